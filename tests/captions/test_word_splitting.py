"""The rule that splits text into words is recorded in the store and the model, and a store has only one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from release_helpers import write as write_pickle
from trichord.captions import Captions
from trichord.cli import main
from trichord.embedder.vocabulary import Vocabulary
from trichord.errors import TrichordError
from trichord.extraction.extract import check_words
from trichord.nn import MCN
from trichord.releases import IMPORTERS, export_store, import_npy, import_webdataset, import_youcook2
from trichord.releases.pieces import first_with_words
from trichord.store import Item, Store, StoreWriter
from trichord.store.inspect import store_info
from trichord.store.manifest import word_splitting_of
from trichord.store.words import WordVectors, few_words, table_name
from trichord.tasks.prompts import embed_prompts

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


def test_a_store_splits_its_captions_by_its_recorded_rule(tmp_path: Path) -> None:
    unicode, published = write(tmp_path / "u", "unicode"), write(tmp_path / "p", "published")
    assert words_of(unicode) == ["सूप", "don't"] and words_of(published) == ["स"]
    assert (unicode.word_splitting, published.word_splitting) == ("unicode", "published")
    assert word_splitting_of(tmp_path / "u") == "unicode" and word_splitting_of(tmp_path / "none") is None
    assert "split as unicode" in str(store_info(tmp_path / "u")) and "split as" not in str(store_info(tmp_path / "p"))
    assert unicode.num_known_words(0) == 2
    described = pq.read_schema(tmp_path / "p" / "parts" / "00000.parquet").metadata[b"trichord"]
    assert b"word_splitting" not in described and b'"format": 2' in described  # as earlier versions wrote it


def test_a_store_has_one_rule(tmp_path: Path) -> None:
    write(tmp_path / "u", "unicode")
    with pytest.raises(TrichordError, match="its words are split as 'unicode', not as 'published'"):
        write(tmp_path / "u", "published", "w")
    write(tmp_path / "u", "unicode", "w")


def test_extraction_continues_with_the_rule_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_words(tmp_path / "new", None) == "unicode"
    assert check_words(tmp_path / "new", None, "published") == "published"
    write(tmp_path / "p", "published")
    table = WordVectors([], np.zeros((0, 3), np.float32), "GloVe 3-d abc", True)
    monkeypatch.setattr("trichord.extraction.extract.word_vectors_for", lambda texts, words: table)
    assert check_words(tmp_path / "p", None) == "published"
    with pytest.raises(TrichordError, match="use --word_splitting published, or another store"):
        check_words(tmp_path / "p", None, "unicode")


def release(folder: Path) -> tuple[Path, Path]:
    """A YouCook2 release with a Hindi caption, and its word vectors."""
    table = folder / "words.txt"
    table.write_text("".join(f"{word} {k}.5 1 2\n" for k, word in enumerate(WORDS)))
    entries = [{"id": "a", "2d": np.ones(4, np.float32), "caption": "सूप don\u2019t"}]
    write_pickle(folder / "release" / "youcook_val.pkl", entries)
    return folder / "release", table


def test_importers_use_the_requested_rule_and_exports_restore_it(tmp_path: Path) -> None:
    root, table = release(tmp_path)
    import_youcook2(root, tmp_path / "p", table)
    import_youcook2(root, tmp_path / "u", table, word_splitting="unicode")
    assert words_of(Store(tmp_path / "p")) == ["स"] and words_of(Store(tmp_path / "u")) == ["सूप", "don't"]
    import_youcook2(root, tmp_path / "u", table)  # the rule of the store applies
    with pytest.raises(TrichordError, match="use --word_splitting unicode, or another store"):
        import_youcook2(root, tmp_path / "u", table, word_splitting="published")
    for layout, importer in (("youcook2", import_youcook2), ("webdataset", import_webdataset), ("npy", import_npy)):
        out = tmp_path / layout
        export_store(tmp_path / "u", out, layout=layout)
        for name, words in (("own", None), ("named", table)):
            back = tmp_path / f"{layout}-{name}"
            importer(out, back, words)
            assert Store(back).word_splitting == "unicode" and words_of(Store(back)) == ["सूप", "don't"]
        with pytest.raises(TrichordError, match="its words are split as 'unicode', not as 'published'"):
            importer(out, tmp_path / "new", word_splitting="published")
        importer(out, tmp_path / f"{layout}-published", table, word_splitting="published")
        assert words_of(Store(tmp_path / f"{layout}-published")) == ["स"]


@pytest.mark.parametrize("name", [*IMPORTERS, "stamps"])
def test_every_importer_has_the_option(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", name, "--root", "r", "--store", str(tmp_path / "s"), "--word_splitting", "other"]) == 2
    assert "--word_splitting is other; it must be one of unicode, published" in capsys.readouterr().err


def test_class_prompts_are_split_by_the_rule_of_the_store(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MCN(video_dim=4, embed_dim=8, word_dim=3, reconstruction_dim=4, audio_channels=(8, 16, 16, 32))
    for splitting, unknown in (("unicode", {}), ("published", {"सूप": ["प"]})):
        store = write(tmp_path / splitting, splitting)
        rows, lacking = embed_prompts(model, store, ["सूप"], 5)
        assert lacking == unknown and np.isfinite(rows).all()


@pytest.mark.parametrize(("splitting", "expected"), [("unicode", 2), ("published", 1)])
def test_a_model_splits_text_as_its_store_did(tmp_path: Path, splitting: str, expected: int) -> None:
    from trichord.embedder.folder import _read_words, _write_words

    vectors = WordVectors(WORDS, np.eye(3, dtype=np.float32), "GloVe 3-d abc", True, splitting)
    description = _write_words(tmp_path / "words.safetensors", vectors)
    vocabulary = Vocabulary(_read_words(tmp_path, description))
    assert len(vocabulary.vectors_of([["सूप don\u2019t"]])[0]) == expected
    if splitting == "published":  # earlier versions did not record a rule
        del description["splitting"]
        assert _read_words(tmp_path, description).splitting == "published"
    with pytest.raises(TrichordError, match="the word splitting is 'other'"):
        _read_words(tmp_path, description | {"splitting": "other"})


@pytest.mark.parametrize("text", ["xyz", "सूप"])
def test_a_study_lists_videos_without_known_words_before_training(tmp_path: Path, text: str) -> None:
    from trichord.modality import Order
    from trichord.recipes import load_recipe
    from trichord.study.factories import check_data
    from trichord.training.stage import stages_of

    vectors = WordVectors(WORDS, np.eye(3, dtype=np.float32), "GloVe 3-d abc", True, "unicode")
    rows = {"visual_2d": np.zeros((2, 4), np.float32), "spectrogram": np.zeros((9, 40), np.float32)}
    with StoreWriter(tmp_path / "s", vectors) as writer:
        for name, caption in (("a", "xyz"), ("b", text)):
            captions = Captions.from_rows([(0, 1, caption)])
            writer.add(Item(name, "v", "train", 2.0, rows, {"visual_2d": 1.0, "spectrogram": 62.5}, captions))
    stages = stages_of(Order.parse("av>t"))
    if text == "xyz":
        with pytest.raises(TrichordError, match="order av>t needs text, which the store lacks"):
            check_data(load_recipe("debug"), Store(tmp_path / "s"), stages)
    else:
        (line,) = check_data(load_recipe("debug"), Store(tmp_path / "s"), stages)
        assert line.startswith("1 of 2 videos with captions have no word in GloVe 3-d abc")
        assert check_data(load_recipe("debug"), Store(tmp_path / "s"), stages[:1]) == []


def test_notes_name_a_word_table_without_the_hash_of_its_content() -> None:
    assert table_name("GloVe 6B 50-d 9abcdbc80257") == "GloVe 6B (50-d)"
    assert table_name("word2vec 300-d 0123456789ab") == "word2vec (300-d)" and table_name("other") == "other"
    assert "is in GloVe 6B (50-d); choose" in few_words(0, 4, "GloVe 6B 50-d 9abcdbc80257")


@pytest.mark.parametrize(
    ("texts", "first"),
    [([], []), (["", " ", "!?"], [""]), (["...", "add salt", "stir"], ["add salt"]), (["सूप", "a"], ["सूप"])],
)
def test_the_first_caption_with_words(texts: list[str], first: list[str]) -> None:
    assert first_with_words(texts) == first


def test_note_about_captions_without_known_words() -> None:
    assert few_words(0, 4, "GloVe").startswith(
        "none of its words is in GloVe; choose word vectors of its language with --words"
    )
    assert few_words(1, 4, "GloVe").startswith("only 1 of its 4 words are in GloVe")
    assert few_words(0, 0, "GloVe") == "its captions contain no words, so text cannot be trained or evaluated with it"
