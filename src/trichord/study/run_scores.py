"""An adapter that reads a run of a study like an evaluation.

The ranks in `orders/ORDER/seed-N.npz` number the rows of a benchmark, which has a row per text. Here, each row is a unit, which is
named after its video and its times. Queries that could not be ranked and count as errors are further units at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trichord.evaluation.contributions import aligned
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS
from trichord.study.files import RUN_AGAIN, damaged
from trichord.study.ranks import each_query, read_clips, read_ranks
from trichord.study.scores import Measured, Scored, Scores, finite_number, target_of


class RunScores(Scores):
    """The figures of a run of a study, with the contribution of each row of its benchmarks.

    Args:
        path: File of the figures, `orders/ORDER/seed-N.json`. The ranks are next to it.
        results: Rows of the figures.
        benchmarks: Benchmarks as described in the study, with `name`, `title` and `protocol`.
        subject: Name of the run.
        store: Path and fingerprint of the store.
        settings: Settings of the scoring.
        captions: Function that returns the caption of each clip of a benchmark, or [] if they are unknown. None if all captions
            are unknown.
    """

    def __init__(
        self,
        path: Path,
        results: Sequence[dict[str, Any]],
        benchmarks: Sequence[Mapping[str, Any]],
        *,
        subject: str = "",
        store: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        captions: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        rows_of = {
            about["name"]: tuple(row for row in results if row["benchmark"] == about["name"]) for about in benchmarks
        }
        chosen = {key: value for key, value in (settings or {}).items() if key not in ("directions", "block")}
        scored = tuple(
            _scored(path, about, rows_of[about["name"]], chosen) for about in benchmarks if rows_of[about["name"]]
        )
        super().__init__(path.parent, {"subject": subject, "store": store}, scored)
        self.file, self.mend = path.with_suffix(".npz"), RUN_AGAIN
        self._captions = captions

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, as in the file of an evaluation."""
        arrays: dict[str, np.ndarray] = {}
        for scored in self.benchmarks:
            arrays |= self._of_benchmark(scored)
        return arrays

    def _of_benchmark(self, scored: Scored) -> dict[str, np.ndarray]:
        videos, starts, ends = read_clips(self.file, scored.name)
        rows = [f"{video}@{start:.3f}-{end:.3f}" for video, start, end in zip(videos, starts, ends, strict=True)]
        captions, by_direction = self._captions(scored.name) if self._captions else [], []
        for result in scored.results:
            ranks = read_ranks(self.file, scored.name, result["direction"])
            by_direction.append((result["direction"], ranks, each_query(self.file, result, ranks)))
        most = max(len(each[MEDIAN_RANK]) - len(ranks.clip) for _, ranks, each in by_direction)
        errors = [f"query {number} that could not be ranked" for number in range(most)]
        arrays = {f"{scored.head}/text_id": np.array([*rows, *errors], np.str_)}
        if captions:
            arrays[f"{scored.head}/caption"] = np.array([*captions, *[""] * most], np.str_)
        for direction, ranks, each in by_direction:
            head, texts = f"{scored.head}/{direction}", ranks.clip if ranks.text is None else ranks.text
            if len(texts) and not 0 <= texts.min() <= texts.max() < len(rows):
                raise self._damaged(f"{head}/clip contains numbers of clips that do not exist")
            places = np.concatenate([texts, len(rows) + np.arange(len(each[MEDIAN_RANK]) - len(texts))])
            for measure, values in each.items():
                arrays[f"{head}/{measure}/each"] = aligned(values, places, len(rows) + most)
        return arrays


def num_errors(result: Mapping[str, Any]) -> int:
    """Return the number of queries that could not be ranked and count as errors."""
    return int(result["num_missing"]) if result["missing"] == "miss" else 0


def _scored(
    path: Path, about: Mapping[str, Any], results: tuple[dict[str, Any], ...], settings: Mapping[str, Any]
) -> Scored:
    name = about["name"]
    return Scored(
        name, name, str(about.get("title", name)), "retrieval", str(about.get("protocol", "")), name, {},
        tuple(row for result in results for row in _rows(path, name, result)), (), results, "", settings,
    )  # fmt: skip


def _rows(path: Path, name: str, result: dict[str, Any]) -> list[Measured]:
    direction = result["direction"]
    scope, units = f"{direction}, {result.get('fusion', 'sum')}", f"{name}/text_id"
    if target_of("retrieval", scope) != direction:
        raise damaged(path, f"the fusion rule of {name}/{direction} is invalid", RUN_AGAIN)

    def number(field: str) -> float:
        if (value := finite_number(result[field])) is None:
            raise damaged(path, f"the {field} of {name}/{direction} is not a number", RUN_AGAIN)
        return value

    num = int(number("num_queries"))
    rows = [
        Measured(scope, measure, number(field), num, number(f"chance_{field}"), "%", f"{name}/{direction}/{measure}/each", units)
        for measure, field, _ in RECALLS
    ]  # fmt: skip
    each = f"{name}/{direction}/{MEDIAN_RANK}/each"
    return [*rows, Measured(scope, MEDIAN_RANK, number("medr"), num, None, "rank", each, units)]
