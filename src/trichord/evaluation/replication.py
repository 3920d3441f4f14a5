"""Which runs of an order count as seeds: the one rule behind every figure, interval and comparison.

A run has a first stage and, for most orders, later stages, each trained from a seed. What is estimated is the expected figure of
an order over the seeds of its first stage, over those of its later stages, and over queries. Runs that share a first stage are
correlated, so the unit of independent replication is the first stage:

- With two or more first stages, the runs of each are averaged and the means count as its one seed. Every first stage weighs the
  same, however many runs continue it. The interval is over first stages and queries.
- With one first stage and several runs, nothing is known of other first stages. The figure and the interval are conditional on this
  first stage: they are over the seeds of the later stages and over queries, and the note says so.
- With one run, the figure is that of the trained model and the interval is over queries alone; the note says so.

`num_seeds` is the number of first stages throughout, and no order is called better than another from a single one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ONE_SEED = "one seed: over queries only, says nothing of other seeds"
TWO_SEEDS = "two seeds: wide, covers up to 99 %"
ONE_FIRST_STAGE = "the interval is for this first stage only"


@dataclass(frozen=True, eq=False)
class Runs:
    """What each unit (query, clip, video) gives in each run of one order.

    Attributes:
        values: (R, N), a row per run; leading axes are those of several studies alike.
        first_stages: (R,) the seed of each run's first stage, or another name of it; runs with the same one share it.
        seeds: (R,) the seed of each run.
    """

    values: np.ndarray
    first_stages: tuple[Hashable, ...]
    seeds: tuple[Hashable, ...]

    @classmethod
    def of(cls, values: Any) -> Runs:
        """`values` as they are if they are `Runs`; otherwise those of an array (R, N) or (N,) whose rows share no first stage.

        Row i of two arrays is taken for the same seed if both have as many rows.
        """
        if isinstance(values, Runs):
            return values
        table = np.asarray(values, np.float64)
        table = table[None] if table.ndim == 1 else table
        places = tuple((len(table), row) for row in range(len(table))) if table.ndim else ()
        return cls(table, places, places)

    @property
    def num_runs(self) -> int:
        return self.values.shape[-2]

    @property
    def num_seeds(self) -> int:
        """The number of first stages."""
        return len(set(self.first_stages))

    @property
    def is_conditional(self) -> bool:
        """Whether figures hold for the only first stage alone, while its later stages vary."""
        return self.num_seeds == 1 < self.num_runs

    @property
    def labels(self) -> tuple[Hashable, ...]:
        """What each row of `replicates` is a replicate of: seeds of first stages, or of runs if `is_conditional`."""
        return self.seeds if self.num_seeds == 1 else tuple(dict.fromkeys(self.first_stages))

    @property
    def replicates(self) -> np.ndarray:
        """(S, N) rows that are independent of each other: means over the runs of each first stage, or the runs of the only one."""
        if self.num_seeds in (1, self.num_runs):
            return self.values
        labels = np.array([self.labels.index(first) for first in self.first_stages])
        return np.stack([self.values[..., labels == place, :].mean(-2) for place in range(self.num_seeds)], -2)

    @property
    def weights(self) -> np.ndarray:
        """(R,) whole numbers by which the runs count, so that every first stage weighs the same."""
        runs = Counter(self.first_stages)
        common = math.lcm(*runs.values())
        return np.array([common // runs[first] for first in self.first_stages], np.int64)

    @property
    def note(self) -> str:
        """What narrows the meaning of the figures; '' for three first stages or more, each with one run."""
        return replication_note(self.num_seeds, self.num_runs)

    def only(self, labels: Sequence[Hashable]) -> Runs:
        """The replicates with these labels."""
        rows = self.replicates[[self.labels.index(label) for label in labels]]
        firsts = self.first_stages[:1] * len(rows) if self.is_conditional else tuple(labels)
        return Runs(rows, firsts, tuple(labels))

    def with_values(self, values: np.ndarray) -> Runs:
        """The same runs with other values (R, M)."""
        return replace(self, values=values)


def matched(*runs: Runs) -> tuple[Runs, ...]:
    """The replicates that all of them have, in one order, where these are two or more; otherwise the runs as they are."""
    common = [label for label in runs[0].labels if all(label in other.labels for other in runs[1:])]
    return tuple(one.only(common) for one in runs) if len(common) > 1 else runs


def replication_note(num_seeds: int, num_runs: int) -> str:
    """What a number of first stages and runs means for the figures that are made of them."""
    if num_seeds == num_runs:
        return {1: ONE_SEED, 2: TWO_SEEDS}.get(num_seeds, "")
    shared = f"{num_runs} runs share {num_seeds} first stage{'s' if num_seeds > 1 else ''}"
    if num_seeds == 1:
        return f"{shared}: {ONE_FIRST_STAGE}"
    return f"{shared}; {TWO_SEEDS}" if num_seeds == 2 else shared


def seeds_text(num_seeds: int, num_runs: int) -> str:
    """The number of seeds as it is printed: `3`, or `1 (3 runs)` where runs share first stages."""
    return f"{num_seeds:,}" if num_seeds == num_runs else f"{num_seeds:,} ({num_runs:,} runs)"


def mean_over_first_stages(values: Sequence[float], first_stages: Sequence[Hashable]) -> float:
    """The figure of an order from those of its runs: the mean over first stages of the means over their runs."""
    runs = Runs(np.array(values, np.float64)[:, None], tuple(first_stages), tuple(range(len(values))))
    return float(runs.replicates.mean())


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The median of values that count as often as their weights say."""
    return (weighted_rank(values, weights, 0.5, "lower") + weighted_rank(values, weights, 0.5, "higher")) / 2


def weighted_rank(values: np.ndarray, weights: np.ndarray, share: float, method: str) -> float:
    """The quantile of `numpy.quantile` with method `lower` or `higher` if each value stands there as often as its weight."""
    order = np.argsort(values, kind="stable")
    counts = np.cumsum(weights[order])
    place = share * (int(counts[-1]) - 1)
    return float(
        values[order][np.searchsorted(counts, math.floor(place) if method == "lower" else math.ceil(place), "right")]
    )
