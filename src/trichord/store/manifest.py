"""The Parquet file of a part: one row per item, and a description of the part in the metadata of the schema.

It is written after all other files of the part, so a part exists if and only if this file exists.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trichord.captions import WORD_SPLITTINGS
from trichord.errors import TrichordError
from trichord.files.arrays import most_unpacked
from trichord.files.parquet import read_column_chunks
from trichord.files.reading import check_regular, parse_json, unreadable
from trichord.files.writing import replacing_file
from trichord.store.shards import damaged, unreadable_part

FORMAT = 2  # format 1 lacks the column `source`; it can still be read
_SPLITTING_FORMAT = 3  # format 2 with a non-default rule for splitting text into words
_RENEWABLE_FORMAT = 4  # adds the columns `media` and `rules`, and how many earlier items the part supersedes
MAX_ROWS = 10_000_000  # of one part; limits the memory that a damaged file can claim
MAX_WORDS = 10_000_000  # of a store
_KEY = b"trichord"
TEXTS = ("video_id", "collection", "split", "source", "media", "rules")
_REPEATED = ("collection", "split")  # dictionary-encoded


@dataclass(frozen=True)
class StreamInfo:
    """The width and dtype ("float16" or "float32") of a stream's rows."""

    dim: int
    dtype: str


@dataclass(frozen=True)
class PartInfo:
    """The description of a part.

    The captions of the part use `num_words` words, of which it adds `num_new_words`, beginning with id `first_word`.
    `supersedes` of its items replace items of earlier parts with the same collection and id.
    """

    shard: str
    num_bytes: int
    sha256: str
    rows_sha256: str
    streams: dict[str, StreamInfo]
    word_source: str
    lowercase: bool
    word_dim: int
    first_word: int
    num_new_words: int
    num_words: int
    word_splitting: str = "published"
    supersedes: int = 0


@dataclass(frozen=True)
class Manifest:
    """One part: its Parquet file, its description, and its rows by column (text as Arrow, numbers as int64 or float64).

    Format 1 lacks the text column `source`; formats before 4 lack `media` and `rules`. An item without a stream has begin and end
    0 and a NaN rate there.
    """

    path: Path
    info: PartInfo
    texts: dict[str, pa.Array]
    numbers: dict[str, np.ndarray]

    @property
    def shard_path(self) -> Path:
        """The path of the tensor file."""
        return self.path.with_suffix(".safetensors")

    @property
    def num_rows(self) -> int:
        """The number of items in the part."""
        return len(self.numbers["duration_s"])

    def is_as_written(self) -> bool:
        """Return whether the rows have the digest that the description records, so that they are unchanged."""
        texts = {name: column.to_pylist() for name, column in self.texts.items()}
        numbers = {name: column.tolist() for name, column in self.numbers.items()}
        return rows_digest(texts | numbers) == self.info.rows_sha256


def part_paths(store: Path) -> list[Path]:
    """Return the Parquet files of all parts, in order.

    Raises:
        TrichordError: The folder of parts cannot be listed.
    """
    folder = store / "parts"
    try:
        paths = [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from None
    return sorted(
        (path for path in paths if path.suffix == ".parquet" and path.stem.isdecimal()), key=lambda path: int(path.stem)
    )


def word_splitting_of(store: Path) -> str | None:
    """Return how the captions of a store are split into words; None if the store has no parts."""
    paths = part_paths(store)
    return read_manifest(paths[0]).info.word_splitting if paths else None


def splitting_for(store: Path, asked: str | None) -> str | None:
    """Return the rule for splitting captions into words: that of the store, else the requested one, if any.

    Args:
        store: The folder of the store.
        asked: The requested rule, or None.

    Raises:
        TrichordError: The store has another rule than the requested one.
    """
    existing = word_splitting_of(store)
    if None not in (existing, asked) and existing != asked:
        raise TrichordError(
            f"{store}: its words are split as '{existing}', not as '{asked}'; use --word_splitting {existing}, or another store"
        )
    return existing or asked


def texts_of(version: int) -> tuple[str, ...]:
    """Return the names of the text columns in a part of the given format version."""
    return TEXTS if version >= _RENEWABLE_FORMAT else TEXTS[: 4 if version > 1 else 3]


def format_of(info: PartInfo, rows: Sequence[Mapping[str, object]] = ()) -> int:
    """Return the oldest format that can hold a part and its rows, so that as many versions as possible can read it."""
    if info.supersedes or any(row.get("media") or row.get("rules") for row in rows):
        return _RENEWABLE_FORMAT
    return FORMAT if info.word_splitting == "published" else _SPLITTING_FORMAT


def schema_for(streams: Sequence[str], version: int = FORMAT) -> pa.Schema:
    """Return the schema of the rows of a part with the given streams."""
    fields = [(name, pa.string()) for name in texts_of(version)] + [("duration_s", pa.float64())]
    fields += [("caption_begin", pa.int64()), ("caption_end", pa.int64())]
    for stream in streams:
        fields += [(f"{stream}_begin", pa.int64()), (f"{stream}_end", pa.int64()), (f"{stream}_rate_hz", pa.float64())]
    return pa.schema(fields)


def rows_digest(columns: Mapping[str, Sequence[object]]) -> str:
    """Return a SHA-256 of the content of the rows, which does not depend on the Parquet encoding."""
    return hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()


def write_manifest(path: Path, columns: Mapping[str, Sequence[object]], info: PartInfo) -> None:
    """Write the rows of a part completely or not at all, and fill in `rows_sha256`.

    Args:
        path: The Parquet file of the part.
        columns: The rows by column, with the columns of `schema_for`.
        info: The description of the part.

    Raises:
        FileExistsError: The part exists already. A committed part is never replaced.
    """
    version = _RENEWABLE_FORMAT if "media" in columns else format_of(info)
    table = pa.table(dict(columns), schema=schema_for(list(info.streams), version))
    described = {"format": version, **asdict(info), "rows_sha256": rows_digest(columns)}
    if version < _RENEWABLE_FORMAT:
        del described["supersedes"]
    if version == FORMAT:
        del described["word_splitting"]
    table = table.replace_schema_metadata({_KEY: json.dumps(described).encode()})
    with replacing_file(path, exclusive=True) as file:  # uncompressed, because many small parts then open twice as fast
        pq.write_table(
            table, file, compression="none", use_dictionary=["collection", "split"], write_page_checksum=True
        )


def _info(path: Path, metadata: Mapping[bytes, bytes] | None) -> tuple[PartInfo, int]:
    try:
        values = parse_json((metadata or {})[_KEY])
        version = values.pop("format")
    except (KeyError, ValueError, AttributeError):
        raise damaged(path, "is not a part of a store") from None
    if version not in (1, FORMAT, _SPLITTING_FORMAT, _RENEWABLE_FORMAT):
        raise TrichordError(
            f"{path}: has format {version}, but this version of trichord reads "
            f"formats 1 to {_RENEWABLE_FORMAT}; install a newer version"
        )
    try:
        streams = {name: StreamInfo(**entry) for name, entry in values.pop("streams").items()}
        info = PartInfo(**values, streams=streams)
        integers = [info.num_bytes, info.word_dim, info.first_word, info.num_new_words, info.num_words, info.supersedes]
        integers += [stream.dim for stream in streams.values()]
        words = (info.shard, info.sha256, info.rows_sha256, info.word_source)
        is_valid = all(type(n) is int and n >= 0 for n in integers) and all(type(word) is str for word in words)
        is_valid = (
            is_valid and info.num_new_words <= info.num_words and info.first_word + info.num_words <= 2 * MAX_WORDS
        )
        is_valid = is_valid and info.first_word + info.num_new_words <= MAX_WORDS and type(info.lowercase) is bool
        is_valid = is_valid and info.word_splitting in WORD_SPLITTINGS
        is_valid = is_valid and (version >= _RENEWABLE_FORMAT or not info.supersedes)
        is_valid = is_valid and all(stream.dtype in ("float16", "float32") for stream in streams.values())
    except (AttributeError, TypeError, ValueError):
        is_valid = False
    if not is_valid or info.shard != f"{path.stem}.safetensors":
        raise damaged(path, "its description is not valid")
    return info, version


def _read_rows(path: Path, file: pq.ParquetFile, texts: Sequence[str]) -> pa.Table:
    """Read the rows with all texts decoded.

    Dictionary-encoded texts are read as indices and measured before they are decoded.

    Raises:
        TrichordError: The rows unpack to more bytes than a file of this size can explain.
    """
    most = most_unpacked(path.stat().st_size)
    with open(path, "rb") as binary_file:
        chunks = read_column_chunks(binary_file)
    if (claimed := sum(chunk.num_bytes for chunk in chunks)) > most:
        raise damaged(path, f"claims to contain {claimed:,} bytes")
    if unexpected := [chunk.name for chunk in chunks if chunk.is_delta_encoded]:
        raise damaged(path, f"its column {unexpected[0]} has an encoding that stores do not use")
    encoded = {chunk.name for chunk in chunks if chunk.is_dictionary_encoded}
    if encoded & set(texts) <= set(_REPEATED):
        table = file.read(use_threads=False)
    else:
        with pq.ParquetFile(
            path, page_checksum_verification=True, pre_buffer=False, read_dictionary=list(texts)
        ) as again:
            table = again.read(use_threads=False)
    return written_out(table, path, most)


def written_out(table: pa.Table, path: Path, most: int) -> pa.Table:
    """Return the table with dictionary-encoded texts decoded.

    Args:
        table: The table.
        path: The file of the table, for the error message.
        most: The largest allowed size of a decoded column in bytes.

    Raises:
        TrichordError: A column decodes to more than `most` bytes.
    """
    for at, name in enumerate(table.column_names):
        column = table.column(at)
        if pa.types.is_dictionary(column.type):
            chunks = [chunk for chunk in column.chunks if len(chunk)]
            sizes = (pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() for chunk in chunks)
            if (num_bytes := sum(size or 0 for size in sizes)) > most:
                raise damaged(path, f"its column {name} unpacks to {num_bytes:,} bytes")
            table = table.set_column(at, name, column.cast(pa.string()))
    return table


def read_manifest(path: Path) -> Manifest:
    """Read and check the rows of a part.

    Raises:
        TrichordError: The part is missing or damaged. The message names the file.
    """
    try:
        check_regular(path)
        with pq.ParquetFile(
            path, page_checksum_verification=True, pre_buffer=False, read_dictionary=list(_REPEATED)
        ) as file:
            if not 0 < file.metadata.num_rows <= MAX_ROWS:
                raise damaged(path, f"claims to contain {file.metadata.num_rows} rows")
            info, version = _info(path, file.schema_arrow.metadata)
            if file.schema_arrow.names != schema_for(list(info.streams), version).names:
                raise damaged(path, "its columns are not those of a store")
            table = _read_rows(path, file, texts_of(version))
        table.validate(full=True)  # also rejects text that is not UTF-8
    except TrichordError:
        raise
    except KeyError:  # a column is missing
        raise damaged(path, "is not a part of a store") from None
    except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
        # A damaged footer makes the Parquet reader raise other errors than its own.
        raise unreadable_part(path, error) from None
    if not table.schema.equals(schema_for(list(info.streams), version)):
        raise damaged(path, "its columns are not those of a store")
    if any(column.null_count for column in table.columns):
        raise damaged(path, "has missing values")
    texts = {name: table.column(name).cast(pa.large_string()).combine_chunks() for name in texts_of(version)}
    numbers = {name: np.array(table.column(name)) for name in table.column_names if name not in texts}
    for name in ("caption", *info.streams):
        begin, end = numbers[f"{name}_begin"], numbers[f"{name}_end"]
        if (begin < 0).any() or (end < begin).any():
            raise damaged(path, f"its {name} offsets are not valid")
    return Manifest(path, info, texts, numbers)


def check_size(manifest: Manifest) -> None:
    """Check that the shard of a part exists and has the recorded size.

    Raises:
        TrichordError: The shard is missing or has another size.
    """
    try:
        size = manifest.shard_path.stat().st_size
    except OSError as error:
        raise unreadable_part(manifest.shard_path, error) from None
    if size != manifest.info.num_bytes:
        raise damaged(manifest.shard_path, f"has {size} bytes, but {manifest.info.num_bytes} were written")
