"""The rows of all parts of a store, side by side in flat arrays."""

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
    """Where a stream's rows lie in the tensors of the items' parts."""

    begin: np.ndarray  # int64 (N,): first row of the item in its part's tensor
    end: np.ndarray
    rate_hz: np.ndarray  # float64 (N,), NaN where the item lacks the stream
    empty: np.ndarray  # (0, dim)


def checked_parts(paths: list[Path], remote: RemoteStore | None) -> list[Manifest]:
    """The parts' rows. Raises TrichordError when one is damaged or its shard has not the recorded size."""
    parts = []
    for path in paths:
        parts.append(read_manifest(path))
        if remote is None:
            check_size(parts[-1])
        else:
            remote.check_size(parts[-1].info)
    return parts


def coded(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """The different texts in order of first appearance, and the number of each item's text (N,)."""
    encoded = column.dictionary_encode()
    return encoded.dictionary.to_pylist(), np.array(encoded.indices)


def texts_in(parts: list[Manifest], name: str) -> pa.Array:
    """A column of text of all parts; empty text in the parts of an older format, which lack it."""
    absent = pa.scalar("", pa.large_string())
    return pa.concat_arrays([part.texts.get(name, pa.repeat(absent, part.num_rows)) for part in parts])


def newest_rows(parts: list[Manifest]) -> np.ndarray | None:
    """(N,) Of each item the row that holds it, in the order in which the items came into the store; None where that is every row.

    A part says how many of its items supersede those of earlier parts, so that nothing is compared where there are none.
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
    """All streams, each as wide as in every part that has it; raises TrichordError when parts do not fit each other."""
    merged: dict[str, StreamInfo] = {}
    first = parts[0].info
    for part in parts:
        own = part.info
        if own.word_splitting != first.word_splitting:
            raise damaged(
                part.path, f"its words are split as {own.word_splitting}, earlier ones {first.word_splitting}"
            )
        if (own.word_source, own.lowercase, own.word_dim) != (first.word_source, first.lowercase, first.word_dim):
            raise damaged(part.path, f"its words are of {own.word_source}, earlier ones of {first.word_source}")
        for name, info in own.streams.items():
            known = merged.setdefault(name, info)
            if known.dim != info.dim:
                raise damaged(part.path, f"its stream {name} is {info.dim} wide, that of earlier parts {known.dim}")
            merged[name] = StreamInfo(known.dim, max(known.dtype, info.dtype, key=lambda d: np.dtype(d).itemsize))
    return merged


def column(name: str, info: StreamInfo, parts: list[Manifest], rows: np.ndarray | None) -> Column:
    """The column of a stream; parts that do not know it have none of its rows. rows: as of `newest_rows`."""

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
    """How many rows of each stream, and how many captions, the rows of a part ask its tensors for."""
    rows = {name: int(part.numbers[f"{name}_end"].max(initial=0)) for name in part.info.streams}
    return rows, int(part.numbers["caption_end"].max(initial=0))


def fingerprint(parts: list[Manifest]) -> str:
    """SHA-256 of all that the parts hold, from their checksums."""
    lines = "".join(f"{part.info.sha256} {part.info.rows_sha256}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
