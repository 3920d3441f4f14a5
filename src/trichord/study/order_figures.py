"""The figures of orders: what the evaluations of their seeds give together, with intervals over units and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from trichord.evaluation.statistics import Interval
from trichord.protocols.protocol import MEDIAN_RANK, Row, interval_over_units

if TYPE_CHECKING:
    from trichord.study.evaluate_orders import EvaluatedRun


@dataclass(frozen=True)
class OrderFigure:
    """One measure of one order.

    Attributes:
        benchmark, of, measure, unit: As of the rows.
        order: Code.
        value: Mean over seeds; of a median rank with an interval, the median over all seeds and units together.
        interval: Over units and seeds; None where the rows do not tell what each unit gives, or of seeds with other units.
        num_seeds: Seeds. Runs that share their first stage and give the same to every unit count as one.
        num: Units of each run, where all have as many; else of the fewest.
        chance: Mean over seeds, where it is known.
    """

    benchmark: str
    of: str
    measure: str
    unit: str
    order: str
    value: float
    interval: Interval | None
    num_seeds: int
    num: int
    chance: float | None


def order_figures(runs: Sequence[EvaluatedRun], level: float = 0.95) -> list[OrderFigure]:
    """All figures, benchmark by benchmark, in the order of the rows; within a measure orders as they come."""
    found: dict[tuple[str, str, str], dict[str, list[tuple[EvaluatedRun, Row]]]] = {}
    for name in dict.fromkeys(name for done in runs for name in done.rows):
        for done in runs:
            for row in done.rows.get(name, ()):
                by_order = found.setdefault((name, row.of, row.measure), {})
                by_order.setdefault(done.run.order, []).append((done, row))
    return [
        _figure(name, of, order, entries, level)
        for (name, of, _), by_order in found.items()
        for order, entries in by_order.items()
    ]


def _figure(name: str, of: str, order: str, entries: list[tuple[EvaluatedRun, Row]], level: float) -> OrderFigure:
    row = entries[0][1]
    values, chances = [r.value for _, r in entries], [r.chance for _, r in entries if r.chance is not None]
    distinct = _distinct(entries)
    interval = _interval(distinct, level)
    value = interval.estimate if interval is not None and row.measure == MEDIAN_RANK else mean(values)
    return OrderFigure(
        name, of, row.measure, row.unit, order, value, interval, len(distinct), min(r.num for _, r in entries),
        mean(chances) if chances else None,
    )  # fmt: skip


def distinct_runs(first_stages: Sequence[str], each: Sequence[np.ndarray | None]) -> list[int]:
    """Places of the runs that are not the same model as an earlier one, as far as a figure goes: those share a first stage
    (empty: not known), and what came later changed nothing that a unit gives."""
    kept: list[int] = []
    for i, (first, mine) in enumerate(zip(first_stages, each, strict=True)):
        same = any(
            first and first == first_stages[j] and mine is not None and (other := each[j]) is not None
            and np.array_equal(mine, other, equal_nan=True)
            for j in kept
        )  # fmt: skip
        kept += [] if same else [i]
    return kept


def _distinct(entries: list[tuple[EvaluatedRun, Row]]) -> list[tuple[EvaluatedRun, Row]]:
    places = distinct_runs([done.run.first_stage for done, _ in entries], [row.each for _, row in entries])
    return [entries[i] for i in places]


def _interval(entries: list[tuple[EvaluatedRun, Row]], level: float) -> Interval | None:
    done, row = entries[0]
    names, table = done.units.get(row.each_of), []
    for other, mine in entries:
        theirs = other.units.get(mine.each_of)
        if row.each is None or mine.each is None or names is None or theirs is None:
            return None
        if not np.array_equal(names, theirs) or not np.array_equal(np.isnan(mine.each), np.isnan(row.each)):
            return None
        table.append(mine.each)
    return interval_over_units(np.stack(table), row.measure, row.unit, shares=row.shares, level=level)
