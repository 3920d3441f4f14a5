"""Tables of a study from artificial rows, and scores from artificial rows of protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trichord.evaluation.ranks import RECALLS
from trichord.modality import Direction, Order
from trichord.study.figures import ScoredRun
from trichord.study.scores import Measured, Scored, Scores
from trichord.study.table import StudyTable
from trichord.study.trained_runs import TrainedRun
from trichord.tasks.protocol import Row


def scores_of_rows(
    rows: Mapping[str, Sequence[Row]], arrays: Mapping[str, np.ndarray] | None = None, notes: Sequence[str] = ()
) -> Scores:
    """Return scores with the given rows by benchmark."""
    benchmarks = []
    kept = dict(arrays or {})
    for name, some in rows.items():
        measured = []
        for row in some:
            each = "" if row.each is None else row.key
            if row.each is not None:
                kept[each] = row.each
            measured.append(
                Measured(row.of, row.measure, row.value, row.num, row.chance, row.unit, each, row.each_of, row.shares)
            )
        benchmarks.append(Scored(name, name, name, "retrieval", "", name, {}, tuple(measured), (), ()))
    scores = Scores(Path("made/results.json"), {"subject": "made", "notes": list(notes)}, tuple(benchmarks))
    scores.arrays = kept
    return scores


def table_of_rows(
    results: list[dict[str, Any]], titles: list[str], benchmarks: list[str], direction: str = "t2v"
) -> StudyTable:
    """Return the table of a study whose ranks are not known."""
    runs = []
    for order, seed in dict.fromkeys((row["order"], row["seed"]) for row in results):
        rows: dict[str, list[Row]] = {}
        for row in results:
            if (row["order"], row["seed"]) == (order, seed):
                target = f"{row['direction']}, sum"
                rows.setdefault(row["benchmark"], []).extend(
                    Row(row["benchmark"], target, measure, row[field], row["num_queries"], row[f"chance_{field}"])
                    for measure, field, _ in RECALLS
                )
        runs.append(ScoredRun(TrainedRun(Order.parse(order), seed, "", f"first.seed{seed}"), scores_of_rows(rows)))
    return StudyTable.from_results(results, titles, benchmarks, Direction.parse(direction), runs)
