"""A part's Parquet file: one row per item, and in the schema's metadata what the part is.

A part exists when this file exists: it is written last.
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
from trichord.files.reading import check_regular, parse_json, unreadable
from trichord.files.writing import replacing_file
from trichord.store.shards import damaged, unreadable_part

FORMAT = 2  # 1 had no column `source`; it is still read
_SPLITTING_FORMAT = 3  # format 2 that states how text was split into words, where that is not as published
_RENEWABLE_FORMAT = 4  # adds the columns `media` and `rules`, and how many earlier items the part supersedes
MAX_ROWS = 10_000_000  # of one part; bounds what a damaged file can make us allocate
MAX_WORDS = 10_000_000  # of a store
_KEY = b"trichord"
TEXTS = ("video_id", "collection", "split", "source", "media", "rules")
_REPEATED = ("collection", "split")  # written once, and told by number


@dataclass(frozen=True)
class StreamInfo:
    """Width of a stream's rows and their dtype ("float16" or "float32")."""

    dim: int
    dtype: str


@dataclass(frozen=True)
class PartInfo:
    """What a part is. Its captions use `num_words` words, of which it adds `num_new_words` from id `first_word` on.
    `supersedes` of its items take the place of items of earlier parts that have the same collection and id."""

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
    """One part: its Parquet file, its description and its rows by column (text as Arrow, numbers as int64 or float64).

    Format 1 has no text `source`; `media` and `rules` are there from format 4 on. An item that lacks a stream has 0 for begin and
    end there and NaN for the rate.
    """

    path: Path
    info: PartInfo
    texts: dict[str, pa.Array]
    numbers: dict[str, np.ndarray]

    @property
    def shard_path(self) -> Path:
        return self.path.with_suffix(".safetensors")

    @property
    def num_rows(self) -> int:
        return len(self.numbers["duration_s"])

    def is_as_written(self) -> bool:
        """Return whether the rows have the digest that the description records."""
        texts = {name: column.to_pylist() for name, column in self.texts.items()}
        numbers = {name: column.tolist() for name, column in self.numbers.items()}
        return rows_digest(texts | numbers) == self.info.rows_sha256


def part_paths(store: Path) -> list[Path]:
    """Return the Parquet files of all parts, in order. Raises TrichordError when the folder of parts cannot be listed."""
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
    """How the store's captions were split into words; None while it holds no part."""
    paths = part_paths(store)
    return read_manifest(paths[0]).info.word_splitting if paths else None


def splitting_for(store: Path, asked: str | None) -> str | None:
    """The rule by which captions for a store are split into words: the store's, else the one asked for, if any.

    Raises TrichordError where the store has another rule than the one asked for.
    """
    existing = word_splitting_of(store)
    if None not in (existing, asked) and existing != asked:
        raise TrichordError(
            f"{store}: has its words split as '{existing}', not as '{asked}'; use --word_splitting {existing}, or another store"
        )
    return existing or asked


def texts_of(version: int) -> tuple[str, ...]:
    """Columns of text in a part of that format."""
    return TEXTS if version >= _RENEWABLE_FORMAT else TEXTS[: 4 if version > 1 else 3]


def format_of(info: PartInfo, rows: Sequence[Mapping[str, object]] = ()) -> int:
    """The oldest format that can hold a part and its rows, so that as many versions as possible read it."""
    if info.supersedes or any(row.get("media") or row.get("rules") for row in rows):
        return _RENEWABLE_FORMAT
    return FORMAT if info.word_splitting == "published" else _SPLITTING_FORMAT


def schema_for(streams: Sequence[str], version: int = FORMAT) -> pa.Schema:
    """Columns of the rows of a part that holds `streams`."""
    fields = [(name, pa.string()) for name in texts_of(version)] + [("duration_s", pa.float64())]
    fields += [("caption_begin", pa.int64()), ("caption_end", pa.int64())]
    for stream in streams:
        fields += [(f"{stream}_begin", pa.int64()), (f"{stream}_end", pa.int64()), (f"{stream}_rate_hz", pa.float64())]
    return pa.schema(fields)


def rows_digest(columns: Mapping[str, Sequence[object]]) -> str:
    """SHA-256 of the rows' content, whatever the Parquet encoding."""
    return hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()


def write_manifest(path: Path, columns: Mapping[str, Sequence[object]], info: PartInfo) -> None:
    """Write the part's rows (columns of `schema_for`) whole or not at all, with `rows_sha256` filled in.

    Raises FileExistsError when the part is there already: a committed part is never replaced.
    """
    version = _RENEWABLE_FORMAT if "media" in columns else format_of(info)
    table = pa.table(dict(columns), schema=schema_for(list(info.streams), version))
    described = {"format": version, **asdict(info), "rows_sha256": rows_digest(columns)}
    if version < _RENEWABLE_FORMAT:
        del described["supersedes"]
    if version == FORMAT:
        del described["word_splitting"]
    table = table.replace_schema_metadata({_KEY: json.dumps(described).encode()})
    with replacing_file(path, exclusive=True) as file:  # uncompressed: many small parts open twice as fast
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
            f"{path}: has format {version}, this version reads 1 to {_RENEWABLE_FORMAT}; install a newer trichord"
        )
    try:
        streams = {name: StreamInfo(**entry) for name, entry in values.pop("streams").items()}
        info = PartInfo(**values, streams=streams)
        whole = [info.num_bytes, info.word_dim, info.first_word, info.num_new_words, info.num_words, info.supersedes]
        whole += [stream.dim for stream in streams.values()]
        words = (info.shard, info.sha256, info.rows_sha256, info.word_source)
        sound = all(type(n) is int and n >= 0 for n in whole) and all(type(word) is str for word in words)
        sound = sound and info.num_new_words <= info.num_words and info.first_word + info.num_words <= 2 * MAX_WORDS
        sound = sound and info.first_word + info.num_new_words <= MAX_WORDS and type(info.lowercase) is bool
        sound = sound and info.word_splitting in WORD_SPLITTINGS
        sound = sound and (version >= _RENEWABLE_FORMAT or not info.supersedes)
        sound = sound and all(stream.dtype in ("float16", "float32") for stream in streams.values())
    except (AttributeError, TypeError, ValueError):
        sound = False
    if not sound or info.shard != f"{path.stem}.safetensors":
        raise damaged(path, "its description is not valid")
    return info, version


def _read_rows(path: Path, file: pq.ParquetFile, texts: Sequence[str]) -> pa.Table:
    """The rows with all texts written out. Raises TrichordError where a few bytes would become more than such a file has:
    texts that are told by number (dictionaries) are read as numbers and measured first."""
    most = most_unpacked(path.stat().st_size)
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    if (claimed := sum(column.total_uncompressed_size for column in columns)) > most:
        raise damaged(path, f"claims {claimed:,} bytes")
    if odd := [c.path_in_schema for c in columns if any("DELTA" in encoding for encoding in c.encodings)]:
        raise damaged(path, f"its column {odd[0]} is packed as no store's is")
    told = {c.path_in_schema for c in columns if any("DICTIONARY" in encoding for encoding in c.encodings)}
    if told & set(texts) <= set(_REPEATED):
        table = file.read(use_threads=False)
    else:
        with pq.ParquetFile(
            path, page_checksum_verification=True, pre_buffer=False, read_dictionary=list(texts)
        ) as again:
            table = again.read(use_threads=False)
    return written_out(table, path, most)


def written_out(table: pa.Table, path: Path, most: int) -> pa.Table:
    """Return the table with texts in place of numbers of texts. Raises TrichordError for a column of more than `most` bytes."""
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
    """Read and check one part's rows. Raises TrichordError naming the file when it is damaged."""
    try:
        check_regular(path)
        with pq.ParquetFile(
            path, page_checksum_verification=True, pre_buffer=False, read_dictionary=list(_REPEATED)
        ) as file:
            if not 0 < file.metadata.num_rows <= MAX_ROWS:
                raise damaged(path, f"claims {file.metadata.num_rows} rows")
            info, version = _info(path, file.schema_arrow.metadata)
            if file.schema_arrow.names != schema_for(list(info.streams), version).names:
                raise damaged(path, "its columns are not those of a store")
            table = _read_rows(path, file, texts_of(version))
        table.validate(full=True)  # also refuses text that is not UTF-8
    except TrichordError:
        raise
    except KeyError:  # no column of that name
        raise damaged(path, "is not a part of a store") from None
    except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
        # a damaged footer makes the Parquet reader raise more than its own errors
        raise unreadable_part(path, error) from None
    if not table.schema.equals(schema_for(list(info.streams), version)):
        raise damaged(path, "its columns are not those of a store")
    if any(column.null_count for column in table.columns):
        raise damaged(path, "has empty cells")
    texts = {name: table.column(name).cast(pa.large_string()).combine_chunks() for name in texts_of(version)}
    numbers = {name: np.array(table.column(name)) for name in table.column_names if name not in texts}
    for name in ("caption", *info.streams):
        begin, end = numbers[f"{name}_begin"], numbers[f"{name}_end"]
        if (begin < 0).any() or (end < begin).any():
            raise damaged(path, f"its {name} offsets are not valid")
    return Manifest(path, info, texts, numbers)


def check_size(manifest: Manifest) -> None:
    """Raise TrichordError unless the part's shard is there with the recorded size."""
    try:
        size = manifest.shard_path.stat().st_size
    except OSError as error:
        raise unreadable_part(manifest.shard_path, error) from None
    if size != manifest.info.num_bytes:
        raise damaged(manifest.shard_path, f"has {size} bytes where {manifest.info.num_bytes} were written")
