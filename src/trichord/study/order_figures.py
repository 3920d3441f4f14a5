"""The figures of orders: what their runs give together, with intervals over units and seeds (`evaluation.replication`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from trichord.evaluation.printed import figure_text
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS
from trichord.evaluation.replication import Runs, mean_over_first_stages, replication_note, seeds_text
from trichord.evaluation.statistics import Interval
from trichord.modality import Order
from trichord.protocols.protocol import Row, interval_over_units
from trichord.study.ranks import each_query, read_ranks
from trichord.study.trained_runs import TrainedRun


@dataclass
class EvaluatedRun:
    """What the evaluation of one model gave.

    Attributes:
        run: Order, seed and stage.
        rows: By benchmark, as it was asked for.
        units: Names of the units of `Row.each`, by `Row.each_of`.
        notes: For the reader.
    """

    run: TrainedRun
    rows: dict[str, list[Row]]
    units: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class OrderFigure:
    """One measure of one order.

    Attributes:
        benchmark, of, measure, unit: As of the rows.
        order: Code.
        value: Mean over first stages of the means over their runs; of a median rank with an interval, the median over all runs
            and units together.
        interval: Over units and seeds; None where the rows do not tell what each unit gives, or of seeds with other units.
        num_seeds: First stages.
        num: Units of each run, where all have as many; else of the fewest.
        chance: Mean over runs, where it is known.
        num_runs: Runs; more than `num_seeds` where they share first stages.
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
    num_runs: int = 0

    @property
    def text(self) -> str:
        """As it is printed: `9.0 [4.8, 16.4]`."""
        if self.interval is None:
            return figure_text(self.value, None, None, self.unit)
        return figure_text(self.value, self.interval.low, self.interval.high, self.unit)

    @property
    def seeds(self) -> str:
        """The number of seeds as it is printed."""
        return seeds_text(self.num_seeds, self.num_runs or self.num_seeds)


def run_of_results(run: TrainedRun, results: Sequence[Mapping[str, Any]], path: Path | None = None) -> EvaluatedRun:
    """The recalls of a run as a study keeps them, each with what its queries give.

    Args:
        run: Whose figures they are.
        results: Its rows in `orders/ORDER/seed-N.json`.
        path: Their ranks, `orders/ORDER/seed-N.npz`; without it the figures have no intervals.
    """
    found = EvaluatedRun(run, {})
    for result in results:
        benchmark, direction = result["benchmark"], result["direction"]
        units, each = f"{benchmark}/{direction}/query", {}
        if path is not None:
            ranks = read_ranks(path, benchmark, direction)
            each = each_query(path, result, ranks)
            clip = ranks.clip if ranks.text is None else ranks.text
            found.units[units] = np.concatenate([clip, np.full(len(each[MEDIAN_RANK]) - len(clip), -1)])
        found.rows.setdefault(benchmark, []).extend(
            Row(
                benchmark, direction, measure, result[field], result["num_queries"], result[f"chance_{field}"],
                each=each.get(measure), each_of=units,
            )
            for measure, field, _ in RECALLS
        )  # fmt: skip
    return found


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
    chances = [r.chance for _, r in entries if r.chance is not None]
    first_stages = [done.run.first_stage_label for done, _ in entries]
    interval = _interval(entries, first_stages, level)
    value = interval.estimate if interval else mean_over_first_stages([r.value for _, r in entries], first_stages)
    return OrderFigure(
        name, of, row.measure, row.unit, order, value, interval, len(set(first_stages)), min(r.num for _, r in entries),
        mean(chances) if chances else None, len(entries),
    )  # fmt: skip


def _interval(
    entries: list[tuple[EvaluatedRun, Row]], first_stages: Sequence[Hashable], level: float
) -> Interval | None:
    done, row = entries[0]
    names, table = done.units.get(row.each_of), []
    for other, mine in entries:
        theirs = other.units.get(mine.each_of)
        if row.each is None or mine.each is None or names is None or theirs is None:
            return None
        if not np.array_equal(names, theirs) or not np.array_equal(np.isnan(mine.each), np.isnan(row.each)):
            return None
        table.append(mine.each)
    runs = Runs(np.stack(table), tuple(first_stages), tuple(other.run.seed for other, _ in entries))
    return interval_over_units(runs, row.measure, row.unit, shares=row.shares, level=level)


def notes_of_seeds(figures: Sequence[OrderFigure]) -> list[str]:
    """What the numbers of seeds and runs mean for the figures, a sentence each, with the orders it holds of where not of all."""
    orders: dict[str, dict[str, None]] = {}
    for f in figures:
        orders.setdefault(replication_note(f.num_seeds, f.num_runs or f.num_seeds), {})[f.order] = None
    every = {f.order for f in figures}
    return [
        f"{note[0].upper()}{note[1:]}."
        if set(own) == every
        else f"{', '.join(str(Order.parse(o)) for o in own)}: {note}."
        for note, own in orders.items()
        if note
    ]
