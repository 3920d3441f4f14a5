"""The rank of every query of every run, kept beside its figures: what comparisons of orders are made from.

`orders/ORDER/seed-N.npz` holds, for each benchmark, the clips (`BENCHMARK/video_id`, `/start_s`, `/end_s`) and for each
direction `BENCHMARK/DIRECTION/clip`, `/greater`, `/equal` (see `evaluation.benchmarks.QueryRanks`) and `/num_gallery`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trichord.data.reader import Clips
from trichord.errors import TrichordError, one_line
from trichord.evaluation.benchmarks import Benchmark, QueryRanks, RetrievalResult
from trichord.training.checkpoint import write_json

if TYPE_CHECKING:
    from trichord.store import Store


def rank_arrays(
    store: Store, benchmark: Benchmark, clips: Clips, results: Sequence[RetrievalResult]
) -> dict[str, np.ndarray]:
    """The arrays of one benchmark by their names in the file."""
    arrays = {
        f"{benchmark.name}/video_id": np.array([store.video_id(int(i)) for i in clips.item], dtype=np.str_),
        f"{benchmark.name}/start_s": clips.start_s,
        f"{benchmark.name}/end_s": clips.end_s,
    }
    for result in results:
        if result.ranks is not None:
            head = f"{benchmark.name}/{result.direction}"
            arrays[f"{head}/clip"] = result.ranks.clip.astype(np.int32)
            arrays[f"{head}/greater"] = result.ranks.greater.astype(np.int32)
            arrays[f"{head}/equal"] = result.ranks.equal.astype(np.int32)
            arrays[f"{head}/num_gallery"] = np.array(result.ranks.num_gallery)
    return arrays


def write_queries(out: Path, store: Store, benchmark: Benchmark, clips: Clips) -> None:
    """`queries/BENCHMARK.json`: video, span and caption of each clip of a benchmark, in the order of the ranks."""
    queries = [
        {
            "video": store.video_id(int(item)),
            "start_s": float(start),
            "end_s": float(end),
            "caption": " ".join(store.caption_text(int(item), int(c)) for c in captions),
        }
        for item, start, end, captions in zip(clips.item, clips.start_s, clips.end_s, clips.captions, strict=True)
    ]
    path = out / "queries" / f"{benchmark.name.replace('/', '-')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, queries)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)


def read_ranks(path: Path, benchmark: str, direction: str) -> QueryRanks:
    """Ranks of one run. Raises TrichordError when the file is not there or has none of that direction."""
    head = f"{benchmark}/{direction}"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if f"{head}/clip" not in arrays:
                known = sorted(
                    {n.rpartition("/")[0] for n in arrays.files if n.endswith("/clip") and "/geometry/" not in n}
                )
                raise TrichordError(f"{path}: has no ranks of {head}; it has {', '.join(known) or 'none'}")
            clip, greater, equal = (arrays[f"{head}/{part}"].astype(np.int64) for part in ("clip", "greater", "equal"))
            return QueryRanks(clip, greater, equal, int(arrays[f"{head}/num_gallery"]))
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, TrichordError):
            raise
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); run the study again") from None
