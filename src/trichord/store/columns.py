"""The rows of all parts of a store, concatenated into flat arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trichord.store.manifest import Manifest, StreamInfo, check_size, read_manifest
from trichord.store.mirror import RemoteStore
from trichord.store.shards import damaged


@dataclass(frozen=True)
class Column:
    """The position of a stream's rows in the tensors of the parts.

    Attributes:
        begin: (N,) int64, the first row of each item in the tensor of its part.
        end: (N,) int64, the row after the last one.
        rate_hz: (N,) float64, rows per second; NaN if the item lacks the stream.
        empty: (0, dim), the rows of an item that lacks the stream.
    """

    begin: np.ndarray
    end: np.ndarray
    rate_hz: np.ndarray
    empty: np.ndarray


def checked_parts(paths: list[Path], remote: RemoteStore | None) -> list[Manifest]:
    """Read and check the rows of the parts.

    Args:
        paths: The Parquet files of the parts.
        remote: The remote store that the files are copies of, or None for a local store.

    Raises:
        TrichordError: A part is damaged, or its shard does not have the recorded size.
    """
    parts = []
    for path in paths:
        parts.append(read_manifest(path))
        if remote is None:
            check_size(parts[-1])
        else:
            remote.check_size(parts[-1].info)
    return parts


def coded(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts of a column in order of first appearance, and the index (N,) of each item's text."""
    encoded = column.dictionary_encode()
    return encoded.dictionary.to_pylist(), np.array(encoded.indices)


def texts_in(parts: list[Manifest], name: str) -> pa.Array:
    """Return a text column of all parts. Parts of an older format, which lack the column, contribute empty texts."""
    absent = pa.scalar("", pa.large_string())
    return pa.concat_arrays([part.texts.get(name, pa.repeat(absent, part.num_rows)) for part in parts])


def newest_rows(parts: list[Manifest]) -> np.ndarray | None:
    """Return (N,) the row that holds each item, in the order in which items were first stored, or None if that is every row.

    Each part records how many of its items supersede items of earlier parts, so nothing is compared if there are none.
    """
    if not any(part.info.supersedes for part in parts):
        return None
    keys = pc.binary_join_element_wise(
        texts_in(parts, "collection"), texts_in(parts, "video_id"), pa.scalar("\n", pa.large_string())
    )
    items = np.array(keys.dictionary_encode().indices)
    newest = np.zeros(int(items.max()) + 1, dtype=np.int64)
    np.maximum.at(newest, items, np.arange(len(items)))
    return newest


def merged_streams(parts: list[Manifest]) -> dict[str, StreamInfo]:
    """Return all streams of the parts, each with the widest dtype that occurs.

    Raises:
        TrichordError: Parts disagree about the words or about the width of a stream.
    """
    merged: dict[str, StreamInfo] = {}
    first = parts[0].info
    for part in parts:
        info = part.info
        if info.word_splitting != first.word_splitting:
            raise damaged(
                part.path,
                f"its words are split as {info.word_splitting}, those of earlier parts as {first.word_splitting}",
            )
        if (info.word_source, info.lowercase, info.word_dim) != (first.word_source, first.lowercase, first.word_dim):
            raise damaged(
                part.path, f"its words are from {info.word_source}, those of earlier parts from {first.word_source}"
            )
        for name, stream in info.streams.items():
            known = merged.setdefault(name, stream)
            if known.dim != stream.dim:
                raise damaged(part.path, f"its stream {name} is {stream.dim} wide, that of earlier parts {known.dim}")
            merged[name] = StreamInfo(known.dim, max(known.dtype, stream.dtype, key=lambda d: np.dtype(d).itemsize))
    return merged


def column(name: str, info: StreamInfo, parts: list[Manifest], rows: np.ndarray | None) -> Column:
    """Return the positions of a stream's rows. Items of parts without the stream have no rows.

    Args:
        name: The name of the stream.
        info: The width and dtype of the stream.
        parts: The rows of all parts.
        rows: The result of `newest_rows`.
    """

    def gather(suffix: str, absent: float, dtype: type) -> np.ndarray:
        key = f"{name}_{suffix}"
        values = np.concatenate(
            [p.numbers[key] if key in p.numbers else np.full(p.num_rows, absent, dtype) for p in parts]
        )
        return values if rows is None else values[rows]

    return Column(
        begin=gather("begin", 0, np.int64),
        end=gather("end", 0, np.int64),
        rate_hz=gather("rate_hz", np.nan, np.float64),
        empty=np.empty((0, info.dim), dtype=info.dtype),
    )


def extent(part: Manifest) -> tuple[dict[str, int], int]:
    """Return how many rows of each stream, and how many captions, the rows of a part expect in its tensors."""
    rows = {name: int(part.numbers[f"{name}_end"].max(initial=0)) for name in part.info.streams}
    return rows, int(part.numbers["caption_end"].max(initial=0))


def fingerprint(parts: list[Manifest]) -> str:
    """Return a SHA-256 over the content of the parts, computed from their checksums."""
    lines = "".join(f"{part.info.sha256} {part.info.rows_sha256}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
