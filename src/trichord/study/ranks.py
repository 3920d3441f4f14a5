"""The saved ranks of queries and rows of results, with checks of their types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np

from trichord.errors import TrichordError
from trichord.modality import Direction
from trichord.study.files import damaged
from trichord.tasks.retrieval.measure import QueryRanks, RetrievalResult

RANK_PARTS = ("clip", "greater", "equal", "num_gallery")
SEVERAL = ("truths", "text")  # further arrays, for clips with several texts
LATER = ("ties", "fusion", "dual_softmax", "windows")  # fields that figures of early versions lack
WORDS = ("benchmark", "direction", "missing", "ties", "fusion", "windows")
FIGURES = tuple(f.name for f in fields(RetrievalResult) if f.name != "ranks")


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


def fault_of_ranks(arrays: Mapping[str, np.ndarray], head: str) -> str:
    """Return what is wrong with the ranks of `head`, i.e. BENCHMARK/DIRECTION, or ''."""
    for part, ndim in zip(RANK_PARTS, (1, 1, 1, 0), strict=True):
        array = arrays.get(f"{head}/{part}")
        if array is None or array.dtype.kind not in "iu" or array.ndim != ndim:
            return f"{head}/{part} is missing or has another type"
    lengths = {len(arrays[name]) for part in (*RANK_PARTS[:3], *SEVERAL) if (name := f"{head}/{part}") in arrays}
    return "" if len(lengths) == 1 else f"the arrays of {head} differ in length"


def fault_of_rows(rows: object) -> str:
    """Return what is wrong with rows of `RetrievalResult.to_dict`, or ''."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "its results are not a list of rows"
    for row in rows:
        for name in FIGURES:
            if name in LATER and name not in row:
                continue
            value = row.get(name)
            if not isinstance(value, str) if name in WORDS else finite_number(value) is None:
                return f"a row has no '{name}'" if value is None else f"the {name} of a row is invalid"
        if row["missing"] not in ("drop", "miss"):
            return "the missing of a row is neither drop nor miss"
        try:
            Direction.parse(row["direction"])
        except TrichordError as error:
            return str(error)
    return ""


def finite_number(value: object) -> float | None:
    """Return a finite number as a float, and None for any other value."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # the integer is too large for a float
        return None
