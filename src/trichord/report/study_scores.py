"""The runs of a study as evaluations: the adapter by which reports read both alike.

`orders/ORDER/seed-N.npz` numbers the rows of a benchmark, one for each text. Here every row is a unit, named by its video and span;
queries that could not be ranked and count as errors are units of their own, the last ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trichord.evaluation.contributions import aligned
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS
from trichord.modality import Order
from trichord.report.evaluation_analysis import Models
from trichord.report.evaluation_reading import Measured, Scored, Scores, finite_number, target_of
from trichord.report.evaluation_systems import System
from trichord.report.reading import Run, Study
from trichord.study.files import RUN_AGAIN, damaged
from trichord.study.plan import first_stage_label
from trichord.study.ranks import each_query


class RunScores(Scores):
    """The figures of a run of a study, with what each row of its benchmarks gives to them."""

    def __init__(self, study: Study, run: Run) -> None:
        scored = {row["benchmark"] for row in run.results}
        names = dict.fromkeys(b["name"] for b in study.content["benchmarks"] if b["name"] in scored)
        content = {"subject": str(run), "store": study.content["store"]}
        super().__init__(run.path.parent, content, tuple(_scored(study, run, name) for name in names))
        self.file, self.mend = run.path.with_suffix(".npz"), RUN_AGAIN
        self._study, self._run = study, run

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for scored in self.benchmarks:
            arrays |= self._of_benchmark(scored)
        return arrays

    def _of_benchmark(self, scored: Scored) -> dict[str, np.ndarray]:
        rows, captions = self._study.clips(self._run, scored.name), self._study.captions(scored.name)
        found = []
        for result in scored.results:
            ranks = self._study.ranks(self._run, scored.name, result["direction"])
            found.append((result["direction"], ranks, each_query(self.file, result, ranks)))
        most = max(len(each[MEDIAN_RANK]) - len(ranks.clip) for _, ranks, each in found)
        errors = [f"query {number} that could not be ranked" for number in range(most)]
        arrays = {f"{scored.head}/text_id": np.array([*rows, *errors], np.str_)}
        if captions:
            arrays[f"{scored.head}/caption"] = np.array([*captions, *[""] * most], np.str_)
        for direction, ranks, each in found:
            head, texts = f"{scored.head}/{direction}", ranks.clip if ranks.text is None else ranks.text
            if len(texts) and not 0 <= texts.min() <= texts.max() < len(rows):
                raise self._damaged(f"{head}/clip numbers clips that are not there")
            places = np.concatenate([texts, len(rows) + np.arange(len(each[MEDIAN_RANK]) - len(texts))])
            for measure, values in each.items():
                arrays[f"{head}/{measure}/each"] = aligned(values, places, len(rows) + most)
        return arrays


def num_errors(result: Mapping[str, Any]) -> int:
    """Queries that could not be ranked and count as errors."""
    return int(result["num_missing"]) if result["missing"] == "miss" else 0


def _scored(study: Study, run: Run, name: str) -> Scored:
    about = next(benchmark for benchmark in study.content["benchmarks"] if benchmark["name"] == name)
    results = tuple(row for row in run.results if row["benchmark"] == name)
    settings = {key: value for key, value in run.evaluation.items() if key not in ("directions", "block")}
    return Scored(
        name, name, str(about.get("title", name)), "retrieval", str(about.get("protocol", "")), name, {},
        tuple(row for result in results for row in _rows(run.path, name, result)), (), results, "", settings,
    )  # fmt: skip


def _rows(path: Path, name: str, result: dict[str, Any]) -> list[Measured]:
    direction = result["direction"]
    of, units = f"{direction}, {result.get('fusion', 'sum')}", f"{name}/text_id"
    if target_of("retrieval", of) != direction:
        raise damaged(path, f"the fusion rule of {name}/{direction} is none", RUN_AGAIN)

    def number(field: str) -> float:
        if (value := finite_number(result[field])) is None:
            raise damaged(path, f"the {field} of {name}/{direction} is no number", RUN_AGAIN)
        return value

    num = int(number("num_queries"))
    rows = [
        Measured(of, measure, number(field), num, number(f"chance_{field}"), "%", f"{name}/{direction}/{measure}/each", units)
        for measure, field, _ in RECALLS
    ]  # fmt: skip
    each = f"{name}/{direction}/{MEDIAN_RANK}/each"
    return [*rows, Measured(of, MEDIAN_RANK, number("medr"), num, None, "rank", each, units)]


def scores_of(study: Study, run: Run) -> Scores:
    """The scores of a run, read once for all benchmarks and directions."""
    key = (run.order, run.seed)
    if key not in study.kept:
        study.kept[key] = RunScores(study, run)
    return study.kept[key]


def models_of(study: Study, order: str, benchmark: str, direction: str) -> Models | None:
    """The finished runs of an order that were scored on a benchmark in a direction; None where there are none."""
    runs = [run for run in study.runs_of(order) if run.result(benchmark, direction)]
    if not runs:
        return None
    scores = tuple(scores_of(study, run) for run in runs)
    seeds, first_stages = tuple(run.seed for run in runs), tuple(run.stages[0] for run in runs)
    system = System(str(Order.parse(order)), order, study.path, seeds, scores, first_stages)
    scored = tuple(one for own in scores for one in own.benchmarks if one.name == benchmark)
    return Models(system, seeds, scores, scored, tuple(map(first_stage_label, first_stages, seeds)))
