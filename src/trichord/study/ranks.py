"""The saved ranks of all queries of all runs, from which comparisons of orders are computed.

`orders/ORDER/seed-N.npz` contains, for each benchmark, the clips (`BENCHMARK/video_id`, `/start_s`, `/end_s`) and, for each
direction, `BENCHMARK/DIRECTION/clip`, `/greater`, `/equal` (see `tasks.retrieval.measure.QueryRanks`) and `/num_gallery`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.data.reader import Clips
from trichord.errors import TrichordError
from trichord.files.arrays import text_array
from trichord.files.writing import replacing, write_json
from trichord.study.files import RUN_AGAIN, array_names, damaged, queries_path, read_arrays
from trichord.tasks.benchmarks import Benchmark
from trichord.tasks.retrieval.measure import QueryRanks, RetrievalResult
from trichord.tasks.subject import captions_of

if TYPE_CHECKING:
    from trichord.store import Store

RANK_PARTS = ("clip", "greater", "equal", "num_gallery")
SEVERAL = ("truths", "text")  # further arrays, for clips with several texts
CLIP_PARTS = ("video_id", "start_s", "end_s")
LATER = ("ranks", "ties", "fusion", "dual_softmax", "windows")  # fields that figures of early versions lack
FIGURES = tuple(f.name for f in fields(RetrievalResult) if f.name not in LATER)
WORDS = ("benchmark", "direction", "missing")


def rank_arrays(
    store: Store, benchmark: Benchmark, clips: Clips, results: Sequence[RetrievalResult], first: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the arrays of a benchmark by their names in the file.

    Args:
        store: Store with the clips.
        benchmark: Benchmark that was scored.
        clips: Clips of the benchmark, with a row per text.
        results: Results of each direction.
        first: Index of the first row of each clip.
    """
    arrays = {
        f"{benchmark.name}/video_id": text_array(
            [store.video_id(int(i)) for i in clips.item], f"the video ids of {store.path}"
        ),
        f"{benchmark.name}/start_s": clips.start_s,
        f"{benchmark.name}/end_s": clips.end_s,
    }
    for result in results:
        if (ranks := result.ranks) is not None:
            row = first[ranks.clip] if ranks.text is None else ranks.text
            arrays |= replace(ranks, clip=row, text=None).to_arrays(f"{benchmark.name}/{result.direction}")
    return arrays


def write_queries(out: Path, store: Store, benchmark: Benchmark, clips: Clips) -> None:
    """Write the video, the times and the caption of each clip of a benchmark, in the order of the ranks, to `queries_path`."""
    queries = [
        {
            "video": store.video_id(int(item)),
            "start_s": float(start),
            "end_s": float(end),
            "caption": caption,
        }
        for item, start, end, caption in zip(
            clips.item, clips.start_s, clips.end_s, captions_of(store, clips), strict=True
        )
    ]
    path = queries_path(out, benchmark.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, queries)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file. An existing file is replaced when the new one is complete."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_ranks(path: Path, benchmark: str, direction: str) -> QueryRanks:
    """Read the ranks of a run.

    Args:
        path: File of the arrays of the run.
        benchmark: Name of the benchmark.
        direction: Code of the direction.

    Raises:
        TrichordError: The file cannot be read or has no ranks of this direction.
    """
    head = f"{benchmark}/{direction}"
    names = {f"{head}/{part}" for part in (*RANK_PARTS, *SEVERAL)}
    arrays = read_arrays(path, names.__contains__)
    if not arrays:
        have = array_names(path)
        known = [name.rpartition("/")[0] for name in have if name.endswith("/clip") and "/geometry/" not in name]
        raise TrichordError(f"{path}: contains no ranks of {head}; it contains {', '.join(known) or 'none'}")
    return ranks_from_arrays(arrays, head, path, RUN_AGAIN)


def ranks_from_arrays(arrays: Mapping[str, np.ndarray], head: str, path: Path, mend: str) -> QueryRanks:
    """Return the ranks of the queries of a benchmark in one direction.

    Args:
        arrays: Arrays by name.
        head: Prefix of the names, BENCHMARK/DIRECTION.
        path: File of the arrays, for messages.
        mend: Advice for the case that the arrays are damaged.

    Raises:
        TrichordError: The arrays are damaged.
    """
    if why := fault_of_ranks(arrays, head):
        raise damaged(path, why, mend)
    clip, greater, equal = (arrays[f"{head}/{part}"].astype(np.int64) for part in RANK_PARTS[:3])
    several = [None if (a := arrays.get(f"{head}/{part}")) is None else a.astype(np.int64) for part in SEVERAL]
    num = int(arrays[f"{head}/num_gallery"])
    if len(clip) and (num < 1 or greater.min() < 0 or equal.min() < 1 or greater.max() > num):
        raise damaged(path, f"the ranks of {head} do not fit its gallery of {num}", mend)
    return QueryRanks(clip, greater, equal, num, *several)


def read_clips(path: Path, benchmark: str) -> tuple[np.ndarray, ...]:
    """Read the clips of a benchmark.

    Args:
        path: File of the arrays of the run.
        benchmark: Name of the benchmark.

    Returns:
        Arrays (n,) of the ids of the videos, the starts and the ends, in seconds.

    Raises:
        TrichordError: The arrays are damaged.
    """
    arrays = read_arrays(path, {f"{benchmark}/{part}" for part in CLIP_PARTS}.__contains__)
    if why := fault_of_clips(arrays, benchmark):
        raise damaged(path, why, RUN_AGAIN)
    return tuple(arrays[f"{benchmark}/{part}"] for part in CLIP_PARTS)


def each_query(path: Path, result: Mapping[str, Any], ranks: QueryRanks) -> dict[str, np.ndarray]:
    """Return the contribution of each query to the figures of a result row (`QueryRanks.each`).

    Args:
        path: File of the ranks, for messages.
        result: Result row.
        ranks: Ranks of its queries.

    Raises:
        TrichordError: The ranks and the result row have different numbers of queries.
    """
    num_errors = result["num_missing"] if result["missing"] == "miss" else 0
    fits = isinstance(num_errors, int) and num_errors >= 0 and len(ranks.clip) + num_errors == result["num_queries"]
    head = f"{result['benchmark']}/{result['direction']}"
    if not fits:
        raise damaged(path, f"the ranks and the figures of {head} differ in the number of queries", RUN_AGAIN)
    return ranks.each(num_errors)


def fault_of_ranks(arrays: Mapping[str, np.ndarray], head: str) -> str:
    """Return what is wrong with the ranks of `head`, i.e. BENCHMARK/DIRECTION, or ''."""
    for part, ndim in zip(RANK_PARTS, (1, 1, 1, 0), strict=True):
        array = arrays.get(f"{head}/{part}")
        if array is None or array.dtype.kind not in "iu" or array.ndim != ndim:
            return f"{head}/{part} is missing or has another type"
    lengths = {len(arrays[name]) for part in (*RANK_PARTS[:3], *SEVERAL) if (name := f"{head}/{part}") in arrays}
    return "" if len(lengths) == 1 else f"the arrays of {head} differ in length"


def fault_of_clips(arrays: Mapping[str, np.ndarray], benchmark: str) -> str:
    """Return what is wrong with the ids and times of the clips of a benchmark, or ''."""
    lengths = set()
    for part, kinds in zip(CLIP_PARTS, ("U", "f", "f"), strict=True):
        array = arrays.get(f"{benchmark}/{part}")
        if array is None or array.dtype.kind not in kinds or array.ndim != 1:
            return f"{benchmark}/{part} is missing or has another type"
        lengths.add(len(array))
    return "" if len(lengths) == 1 else f"the arrays of the clips of {benchmark} differ in length"


def fault_of_rows(rows: object) -> str:
    """Return what is wrong with the figures of a run in its JSON file, or ''."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "its results are not a list of rows"
    for row in rows:
        for name in FIGURES:
            wanted: Any = str if name in WORDS else (int, float)
            if not isinstance(row.get(name), wanted):
                return f"a row has no '{name}'"
    return ""
