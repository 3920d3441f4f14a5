"""The figures of orders and other systems, combined over their runs, with intervals over units and seeds.

Studies, evaluations of studies and evaluations of single models all use this module, so that every table and page prints the same
figure. `evaluation.replication` defines which runs count as seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trichord.evaluation.printed import figure_text
from trichord.evaluation.replication import Runs, mean_over_first_stages, replication_note, seeds_text
from trichord.evaluation.statistics import Interval
from trichord.modality import Order
from trichord.study.plan import first_stage_label
from trichord.study.scores import Measured, Scored, Scores, target_of
from trichord.study.trained_runs import TrainedRun
from trichord.study.units import places_of_units
from trichord.tasks.protocol import has_interval, interval_over_units


@dataclass(frozen=True)
class ScoredRun:
    """A run of a study and its scores."""

    run: TrainedRun
    scores: Scores

    @property
    def results(self) -> list[dict[str, Any]]:
        """Retrieval rows of all benchmarks, with the order and the seed, as in `study.json`."""
        return self.scores.results(order=self.run.order.code, seed=self.run.seed)


@dataclass(frozen=True, eq=False)
class System:
    """A row of tables and reports: an order with its runs, or a single model.

    Attributes:
        name: Printed name, which is unique.
        order: Order of a study. None for a single model.
        folder: Folder that the user gave.
        seeds: Seeds of its models. (0,) for a single model.
        scores: Scores of each seed.
        first_stages: Folder of the first stage of each seed. '' if it is not recorded.
        notes: Limitations of its figures.
        left_out: Sentences on runs of its folder that were not scored.
        study: Path of the study of its models, as given to `trichord evaluate`, or ''.
    """

    name: str
    order: Order | None
    folder: Path
    seeds: tuple[int, ...]
    scores: tuple[Scores, ...]
    first_stages: tuple[str, ...] = ("",)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    study: str = ""

    @property
    def labels(self) -> tuple[int | str, ...]:
        """Labels that identify the first stage of each seed."""
        return tuple(map(first_stage_label, self.first_stages, self.seeds))

    @property
    def num_seeds(self) -> int:
        """Number of different first stages."""
        return len(set(self.labels))


@dataclass(frozen=True)
class Measure:
    """A figure of a system, combined over its runs. Shares are in percent.

    Attributes:
        benchmark: Name of the benchmark.
        of: Scope of the figure, such as a retrieval direction.
        measure: Name of the measure, such as `R@10`.
        unit: Unit of the measure: `%`, `rank` or another.
        order: Order. None for a single model.
        estimate: Mean over first stages of the means over their runs. For a median rank with an interval, the median over all runs
            and units.
        interval: Interval over units and seeds. None if the results of units are unknown, or runs were scored on different units.
        num_seeds: Number of first stages.
        num: Number of units of a run. The smallest number if runs differ.
        chance: Mean of chance over the runs. None if it is unknown.
        num_runs: Number of runs. It exceeds `num_seeds` if runs share first stages.
    """

    benchmark: str
    of: str
    measure: str
    unit: str
    order: Order | None
    estimate: float
    interval: Interval | None
    num_seeds: int
    num: int
    chance: float | None
    num_runs: int = 0

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""
        return None if self.interval is None else self.interval.low

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""
        return None if self.interval is None else self.interval.high

    @property
    def note(self) -> str:
        """Note on the variation that the interval does not cover, or ''."""
        return "" if self.interval is None else self.interval.note

    @property
    def text(self) -> str:
        """Printed figure, such as `9.0 [4.8, 16.4]`."""
        return figure_text(self.estimate, self.low, self.high, self.unit)

    @property
    def seeds(self) -> str:
        """Printed number of seeds."""
        return seeds_text(self.num_seeds, self.num_runs or self.num_seeds)


@dataclass(frozen=True, eq=False)
class Models:
    """The models of a system that were scored on a benchmark.

    Attributes:
        system: System.
        seeds: Seed of each model.
        scores: Evaluation of each model.
        scored: Results of each model on the benchmark.
        first_stages: Label of the first stage of each model (`study.plan.first_stage_label`).
    """

    system: System
    seeds: tuple[int, ...]
    scores: tuple[Scores, ...]
    scored: tuple[Scored, ...]
    first_stages: tuple[int | str, ...]

    @property
    def one(self) -> tuple[Scores, Scored]:
        """Evaluation of the first seed, and its results on the benchmark."""
        return self.scores[0], self.scored[0]

    def rows(self, target: str, measure: str) -> list[Measured] | None:
        """Return the row of each seed, or None if a seed lacks it."""
        rows = [scored.row(target, measure) for scored in self.scored]
        return None if None in rows else [row for row in rows if row is not None]

    def table(self, target: str, measure: str) -> np.ndarray | None:
        """Return the contributions of the units to a figure.

        Args:
            target: Scope of the figure without the way of scoring (`study.scores.target_of`).
            measure: Name of the measure.

        Returns:
            Array (S, n) of S seeds and n units. None if contributions are unknown, or units differ between seeds.
        """
        rows = self.rows(target, measure)
        if rows is None or not all(row.each for row in rows):
            return None
        values: list[np.ndarray] = []
        for scores, scored, row in zip(self.scores, self.scored, rows, strict=True):
            if (places := places_of_units(self.one, rows[0], (scores, scored), row)) is None:
                return None
            values.append(scores.each(row)[places])
            if not np.array_equal(np.isnan(values[-1]), np.isnan(values[0])):
                return None
        return np.stack(values)

    def places(self, other: Models, target: str, measure: str) -> np.ndarray | None:
        """Return the positions of the units of other models among the units of these models, for the first seeds.

        Returns:
            Array (n,) of indices. None if units differ.
        """
        one, two = other.rows(target, measure), self.rows(target, measure)
        if not one or not two:
            return None
        return places_of_units(other.one, one[0], self.one, two[0])

    def runs(self, target: str, measure: str) -> Runs | None:
        """Return the contributions of the units in each run, or None if `table` returns None."""
        table = self.table(target, measure)
        return None if table is None else Runs(table, self.first_stages, self.seeds)

    def figure(self, target: str, measure: str, level: float = 0.95) -> Measure | None:
        """Return a figure over the seeds that have it.

        Args:
            target: Scope of the figure without the way of scoring.
            measure: Name of the measure.
            level: Level of the interval.

        Returns:
            The figure. None if no seed has it.
        """
        rows = [scored.row(target, measure) for scored in self.scored]
        known = [row for row in rows if row is not None]
        if not known:
            return None
        row, chances = known[0], [row.chance for row in known if row.chance is not None]
        firsts = [first for first, row in zip(self.first_stages, rows, strict=True) if row is not None]
        interval = None
        if has_interval(row.measure, row.unit) and (runs := self.runs(target, measure)) is not None:
            interval = interval_over_units(runs, row.measure, row.unit, shares=row.shares, level=level)
        estimate = interval.estimate if interval else mean_over_first_stages([row.value for row in known], firsts)
        return Measure(
            self.scored[0].name, row.of, measure, row.unit, self.system.order, estimate, interval, len(set(firsts)),
            min(row.num for row in known), float(np.mean(chances)) if chances else None, len(known),
        )  # fmt: skip

    def figures(self, target: str, level: float = 0.95) -> dict[str, Measure]:
        """Return all figures of a target by measure."""
        rows = (row for scored in self.scored for row in scored.rows if target_of(scored.kind, row.of) == target)
        measures = dict.fromkeys(row.measure for row in rows)
        return {m: figure for m in measures if (figure := self.figure(target, m, level)) is not None}


def systems_of(runs: Iterable[ScoredRun], folder: Path = Path()) -> list[System]:
    """Return the orders of scored runs, in order of appearance."""
    by_order: dict[Order, list[ScoredRun]] = {}
    for scored in runs:
        by_order.setdefault(scored.run.order, []).append(scored)
    return [
        System(
            str(order), order, folder, tuple(one.run.seed for one in mine), tuple(one.scores for one in mine),
            tuple(one.run.first_stage for one in mine),
        )
        for order, mine in by_order.items()
    ]  # fmt: skip


def models_on(systems: Sequence[System], key: tuple[str, str]) -> dict[str, Models]:
    """Return the models that were scored on a benchmark, by the name of their system."""
    models: dict[str, Models] = {}
    for system in systems:
        every = zip(system.seeds, system.scores, system.labels, strict=True)
        some = [(seed, own, scored, first) for seed, own, first in every if (scored := own.scored(key)) is not None]
        if some:
            models[system.name] = Models(system, *map(tuple, zip(*some, strict=True)))
    return models


def benchmark_keys(systems: Sequence[System]) -> list[tuple[str, str]]:
    """Return the keys of all benchmarks (`Scored.key`), in order of appearance."""
    every = (scored.key for system in systems for scores in system.scores for scored in scores.benchmarks)
    return list(dict.fromkeys(every))


def target_names(models: Mapping[str, Models]) -> list[str]:
    """Return the targets of a benchmark, in order of appearance."""
    rows = ((scored, row) for own in models.values() for scored in own.scored for row in scored.rows)
    return list(dict.fromkeys(target_of(scored.kind, row.of) for scored, row in rows))


def order_figures(runs: Sequence[ScoredRun], level: float = 0.95) -> list[Measure]:
    """Return all figures of the orders of a study, sorted by benchmark, by target and by order.

    Args:
        runs: Runs of the study.
        level: Level of the intervals.
    """
    systems = systems_of(runs)
    return [
        figure
        for key in benchmark_keys(systems)
        for models in [models_on(systems, key)]
        for target in target_names(models)
        for own in models.values()
        for figure in own.figures(target, level).values()
    ]


def notes_of_seeds(figures: Sequence[Measure]) -> list[str]:
    """Return a sentence for each note on the numbers of seeds and runs. It names its orders unless it concerns all of them."""
    orders: dict[str, dict[Order | None, None]] = {}
    for figure in figures:
        note = replication_note(figure.num_seeds, figure.num_runs or figure.num_seeds)
        orders.setdefault(note, {})[figure.order] = None
    every = {figure.order for figure in figures}
    return [
        f"{note[0].upper()}{note[1:]}." if set(own) == every else f"{', '.join(map(str, own))}: {note}."
        for note, own in orders.items()
        if note
    ]
