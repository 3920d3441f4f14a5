"""How text is split into words is recorded in the store and the model, and one store has one way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from trichord.captions import Captions
from trichord.embedder.vocabulary import Vocabulary
from trichord.errors import TrichordError
from trichord.extraction.extract import check_words
from trichord.store import Item, Store, StoreWriter
from trichord.store.inspect import store_info
from trichord.store.manifest import word_splitting_of
from trichord.store.words import WordVectors, few_words

WORDS = ["सूप", "स", "don't"]


def write(path: Path, splitting: str, name: str = "v", text: str = "सूप don\u2019t") -> Store:
    vectors = WordVectors(WORDS, np.eye(3, dtype=np.float32), "GloVe 3-d abc", True, splitting)
    captions = Captions.from_rows([(0, 1, text)])
    rows = {"visual_2d": np.zeros((2, 4), np.float32)}
    with StoreWriter(path, vectors) as writer:
        writer.add(Item(name, "videos", "train", 2.0, rows, {"visual_2d": 1.0}, captions))
    return Store(path)


def words_of(store: Store) -> list[str]:
    return [store.words[k] for k in store.word_ids(0, 0)]


def test_a_store_splits_its_captions_as_it_says(tmp_path: Path) -> None:
    unicode, published = write(tmp_path / "u", "unicode"), write(tmp_path / "p", "published")
    assert words_of(unicode) == ["सूप", "don't"] and words_of(published) == ["स"]
    assert (unicode.word_splitting, published.word_splitting) == ("unicode", "published")
    assert word_splitting_of(tmp_path / "u") == "unicode" and word_splitting_of(tmp_path / "none") is None
    assert "split as unicode" in str(store_info(tmp_path / "u")) and "split as" not in str(store_info(tmp_path / "p"))
    assert unicode.num_known_words(0) == 2
    described = pq.read_schema(tmp_path / "p" / "parts" / "00000.parquet").metadata[b"trichord"]
    assert b"word_splitting" not in described and b'"format": 2' in described  # as earlier versions write it


def test_one_store_has_one_way(tmp_path: Path) -> None:
    write(tmp_path / "u", "unicode")
    with pytest.raises(TrichordError, match="has its words split as 'unicode', not as 'published'"):
        write(tmp_path / "u", "published", "w")
    write(tmp_path / "u", "unicode", "w")


def test_extraction_goes_on_as_the_store_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_words(tmp_path / "new", None) == "unicode"
    assert check_words(tmp_path / "new", None, "published") == "published"
    write(tmp_path / "p", "published")
    table = WordVectors([], np.zeros((0, 3), np.float32), "GloVe 3-d abc", True)
    monkeypatch.setattr("trichord.extraction.extract.word_vectors_for", lambda texts, words: table)
    assert check_words(tmp_path / "p", None) == "published"
    with pytest.raises(TrichordError, match="use --word_splitting published, or another store"):
        check_words(tmp_path / "p", None, "unicode")


@pytest.mark.parametrize(("splitting", "expected"), [("unicode", 2), ("published", 1)])
def test_a_model_splits_text_as_its_store_did(tmp_path: Path, splitting: str, expected: int) -> None:
    from trichord.embedder.folder import _read_words, _write_words

    vectors = WordVectors(WORDS, np.eye(3, dtype=np.float32), "GloVe 3-d abc", True, splitting)
    told = _write_words(tmp_path / "words.safetensors", vectors)
    vocabulary = Vocabulary(_read_words(tmp_path, told))
    assert len(vocabulary.vectors_of([["सूप don\u2019t"]])[0]) == expected
    if splitting == "published":  # what earlier versions wrote states none
        del told["splitting"]
        assert _read_words(tmp_path, told).splitting == "published"
    with pytest.raises(TrichordError, match="splits text into words as 'other'"):
        _read_words(tmp_path, told | {"splitting": "other"})


@pytest.mark.parametrize("text", ["xyz", "सूप"])
def test_a_study_says_before_training_which_videos_have_no_known_word(tmp_path: Path, text: str) -> None:
    from trichord.modality import Order
    from trichord.recipes import load_recipe
    from trichord.study.factories import check_data
    from trichord.training.stage import stages_of

    vectors = WordVectors(WORDS, np.eye(3, dtype=np.float32), "GloVe 3-d abc", True, "unicode")
    rows = {"visual_2d": np.zeros((2, 4), np.float32), "spectrogram": np.zeros((9, 40), np.float32)}
    with StoreWriter(tmp_path / "s", vectors) as writer:
        for name, said in (("a", "xyz"), ("b", text)):
            captions = Captions.from_rows([(0, 1, said)])
            writer.add(Item(name, "v", "train", 2.0, rows, {"visual_2d": 1.0, "spectrogram": 62.5}, captions))
    stages = stages_of(Order.parse("av>t"))
    if text == "xyz":
        with pytest.raises(TrichordError, match="order av>t needs text, which the store lacks"):
            check_data(load_recipe("debug"), Store(tmp_path / "s"), stages)
    else:
        (line,) = check_data(load_recipe("debug"), Store(tmp_path / "s"), stages)
        assert line.startswith("1 of 2 videos with captions have no word in GloVe 3-d abc")
        assert check_data(load_recipe("debug"), Store(tmp_path / "s"), stages[:1]) == []


def test_what_is_said_of_captions_without_known_words() -> None:
    assert few_words(0, 4, "GloVe").startswith(
        "none of its words is in GloVe; name word vectors of its language with --words"
    )
    assert few_words(1, 4, "GloVe").startswith("only 1 of its 4 words are in GloVe")
    assert few_words(0, 0, "GloVe") == "has captions without a word; text cannot be learnt or tested with it"
