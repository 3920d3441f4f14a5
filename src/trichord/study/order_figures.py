"""The figures of orders: what the evaluations of their seeds give together, with intervals over units and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from trichord.evaluation.statistics import Interval, mean_interval, median_rank_interval
from trichord.protocols.protocol import MEDIAN_RANK, Row

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


def _distinct(entries: list[tuple[EvaluatedRun, Row]]) -> list[tuple[EvaluatedRun, Row]]:
    """Without runs that are the same model as an earlier one, as far as this figure goes: their first stage is shared, and
    what came later did not touch it."""
    kept: list[tuple[EvaluatedRun, Row]] = []
    for done, row in entries:
        same = any(
            done.run.first_stage == other.run.first_stage
            and row.each is not None
            and earlier.each is not None
            and np.array_equal(row.each, earlier.each, equal_nan=True)
            for other, earlier in kept
        )
        if not same:
            kept.append((done, row))
    return kept


def _interval(entries: list[tuple[EvaluatedRun, Row]], level: float) -> Interval | None:
    done, row = entries[0]
    if row.each is None or (row.unit == "rank" and row.measure != MEDIAN_RANK):
        return None
    names, counts = done.units.get(row.each_of), ~np.isnan(row.each)
    table = []
    for other, mine in entries:
        theirs = other.units.get(mine.each_of)
        if mine.each is None or names is None or theirs is None or not np.array_equal(names, theirs):
            return None
        if not np.array_equal(~np.isnan(mine.each), counts):
            return None
        table.append(mine.each[counts])
    if counts.sum() < 2:
        return None
    if row.unit == "rank":
        return median_rank_interval(table, level)
    return mean_interval(table, level, shares=row.shares)
