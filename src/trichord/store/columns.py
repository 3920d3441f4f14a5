"""The rows of all parts of a store, side by side in flat arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

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


def coded(columns: list[pa.Array]) -> tuple[list[str], np.ndarray]:
    """The different texts in order of first appearance, and the number of each item's text (N,)."""
    encoded = pa.concat_arrays(columns).dictionary_encode()
    return encoded.dictionary.to_pylist(), np.array(encoded.indices)


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


def column(name: str, info: StreamInfo, parts: list[Manifest]) -> Column:
    """The column of a stream; parts that do not know it have none of its rows."""

    def gather(suffix: str, absent: float, dtype: type) -> np.ndarray:
        key = f"{name}_{suffix}"
        return np.concatenate(
            [p.numbers[key] if key in p.numbers else np.full(p.num_rows, absent, dtype) for p in parts]
        )

    return Column(
        begin=gather("begin", 0, np.int64),
        end=gather("end", 0, np.int64),
        rate_hz=gather("rate_hz", np.nan, np.float64),
        empty=np.empty((0, info.dim), dtype=info.dtype),
    )


def fingerprint(parts: list[Manifest]) -> str:
    """SHA-256 of all that the parts hold, from their checksums."""
    lines = "".join(f"{part.info.sha256} {part.info.rows_sha256}\n" for part in parts)
    return hashlib.sha256(lines.encode()).hexdigest()
