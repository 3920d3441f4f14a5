"""Replication: which runs of an order count as seeds. All figures, intervals and comparisons follow this definition.

A run consists of a first stage and, for most orders, later stages, each trained with a seed. The quantity to be estimated is the
expected figure of an order over the seeds of its first stage, the seeds of its later stages, and the queries. Runs that share a
first stage are correlated, so the unit of independent replication is the first stage:

- With two or more first stages, the runs of each first stage are averaged, and the mean counts as one seed. Every first stage has
  the same weight, regardless of how many runs continue it. The interval is over first stages and queries.
- With one first stage and several runs, there is no information on other first stages. The figure and the interval are conditional
  on this first stage: they are over the seeds of the later stages and over queries. The note says so.
- With one run, the figure describes the trained model, and the interval is over queries only. The note says so.

`num_seeds` always is the number of first stages. With a single first stage, no order is called better than another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ONE_SEED = "one seed: the interval is over queries only and does not cover other seeds"
TWO_SEEDS = "two seeds: the interval is wide and covers up to 99 %"
ONE_FIRST_STAGE = "the interval is for this first stage only"


@dataclass(frozen=True, eq=False)
class Runs:
    """Values of each unit (query, clip or video) in each run of one order.

    Attributes:
        values: (R, N), one row per run; leading axes are for several studies of the same form.
        first_stages: (R,) seed or other identifier of the first stage of each run; runs with the same one share it.
        seeds: (R,) seed of each run.

    Example:
        >>> runs = Runs(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), first_stages=(0, 0, 1), seeds=(0, 1, 2))
        >>> runs.num_runs, runs.num_seeds
        (3, 2)
    """

    values: np.ndarray
    first_stages: tuple[Hashable, ...]
    seeds: tuple[Hashable, ...]

    @classmethod
    def of(cls, values: Any) -> Runs:
        """Convert an array (R, N) or (N,) to `Runs`, assuming that each row has its own first stage. `Runs` are returned unchanged.

        If two arrays have the same number of rows, row i is assumed to have the same seed in both.

        Example:
            >>> Runs.of([1, 0, 1]).values
            array([[1., 0., 1.]])
        """
        if isinstance(values, Runs):
            return values
        table = np.asarray(values, np.float64)
        table = table[None] if table.ndim == 1 else table
        identifiers = tuple((len(table), row) for row in range(len(table))) if table.ndim else ()
        return cls(table, identifiers, identifiers)

    @property
    def num_runs(self) -> int:
        """Number R of runs.

        Example:
            >>> Runs.of(np.ones((3, 200))).num_runs
            3
        """
        return self.values.shape[-2]

    @property
    def num_seeds(self) -> int:
        """Number of first stages.

        Example:
            >>> Runs(np.ones((3, 200)), first_stages=(0, 0, 1), seeds=(0, 1, 2)).num_seeds
            2
        """
        return len(set(self.first_stages))

    @property
    def is_conditional(self) -> bool:
        """Whether figures hold only for a single first stage, with several runs that differ in their later stages.

        Example:
            >>> Runs(np.ones((3, 200)), first_stages=(0, 0, 0), seeds=(0, 1, 2)).is_conditional
            True
        """
        return self.num_seeds == 1 < self.num_runs

    @property
    def labels(self) -> tuple[Hashable, ...]:
        """Identifier of each row of `replicates`: the seed of its first stage, or of the run if there is one first stage.

        Example:
            >>> Runs(np.ones((3, 200)), first_stages=(7, 7, 8), seeds=(0, 1, 2)).labels
            (7, 8)
        """
        return self.seeds if self.num_seeds == 1 else tuple(dict.fromkeys(self.first_stages))

    @property
    def replicates(self) -> np.ndarray:
        """Independent rows (S, N): means over the runs of each first stage, or the runs themselves if there is only one.

        Example:
            >>> Runs(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), first_stages=(0, 0, 1), seeds=(0, 1, 2)).replicates
            array([[0.5, 0. ],
                   [1. , 1. ]])
        """
        if self.num_seeds in (1, self.num_runs):
            return self.values
        labels = np.array([self.labels.index(first) for first in self.first_stages])
        return np.stack([self.values[..., labels == place, :].mean(-2) for place in range(self.num_seeds)], -2)

    @property
    def weights(self) -> np.ndarray:
        """Integer weights (R,) of the runs that give every first stage the same weight.

        Example:
            >>> Runs(np.ones((3, 200)), first_stages=(0, 0, 1), seeds=(0, 1, 2)).weights
            array([1, 1, 2])
        """
        runs = Counter(self.first_stages)
        common = math.lcm(*runs.values())
        return np.array([common // runs[first] for first in self.first_stages], np.int64)

    @property
    def note(self) -> str:
        """Restriction on the meaning of the figures; '' for three or more first stages with one run each.

        Example:
            >>> Runs.of(np.ones((2, 200))).note
            'two seeds: the interval is wide and covers up to 99 %'
        """
        return replication_note(self.num_seeds, self.num_runs)

    def only(self, labels: Sequence[Hashable]) -> Runs:
        """Return the replicates with these labels.

        Example:
            >>> Runs(np.eye(3), first_stages=(7, 8, 9), seeds=(7, 8, 9)).only([9, 7]).values
            array([[0., 0., 1.],
                   [1., 0., 0.]])
        """
        rows = self.replicates[[self.labels.index(label) for label in labels]]
        firsts = self.first_stages[:1] * len(rows) if self.is_conditional else tuple(labels)
        return Runs(rows, firsts, tuple(labels))

    def with_values(self, values: np.ndarray) -> Runs:
        """Return the same runs with other values (R, M).

        Example:
            >>> Runs.of(np.ones((3, 200))).with_values(np.zeros((3, 50))).values.shape
            (3, 50)
        """
        return replace(self, values=values)


def matched(*runs: Runs) -> tuple[Runs, ...]:
    """Return the replicates that all runs have in common, in the same order; the runs unchanged if they share fewer than two.

    Example:
        >>> one = Runs(np.eye(3), first_stages=(0, 1, 2), seeds=(0, 1, 2))
        >>> two = Runs(np.eye(3), first_stages=(2, 3, 1), seeds=(2, 3, 1))
        >>> [runs.seeds for runs in matched(one, two)]
        [(1, 2), (1, 2)]
    """
    common = [label for label in runs[0].labels if all(label in other.labels for other in runs[1:])]
    return tuple(one.only(common) for one in runs) if len(common) > 1 else runs


def replication_note(num_seeds: int, num_runs: int) -> str:
    """Return the restriction that the numbers of first stages and runs put on the meaning of a figure, or ''.

    Example:
        >>> replication_note(num_seeds=1, num_runs=3)
        '3 runs share 1 first stage: the interval is for this first stage only'
        >>> replication_note(num_seeds=3, num_runs=3)
        ''
    """
    if num_seeds == num_runs:
        return {1: ONE_SEED, 2: TWO_SEEDS}.get(num_seeds, "")
    shared = f"{num_runs} runs share {num_seeds} first stage{'s' if num_seeds > 1 else ''}"
    if num_seeds == 1:
        return f"{shared}: {ONE_FIRST_STAGE}"
    return f"{shared}; {TWO_SEEDS}" if num_seeds == 2 else shared


def seeds_text(num_seeds: int, num_runs: int) -> str:
    """Format the number of seeds: `3`, or `1 (3 runs)` if runs share first stages.

    >>> seeds_text(3, 3), seeds_text(1, 3)
    ('3', '1 (3 runs)')
    """
    return f"{num_seeds:,}" if num_seeds == num_runs else f"{num_seeds:,} ({num_runs:,} runs)"


def mean_over_first_stages(values: Sequence[float], first_stages: Sequence[Hashable]) -> float:
    """Return the figure of an order: the mean over first stages of the means over their runs.

    >>> mean_over_first_stages([40.0, 44.0, 50.0], first_stages=[0, 0, 1])
    46.0
    """
    runs = Runs(np.array(values, np.float64)[:, None], tuple(first_stages), tuple(range(len(values))))
    return float(runs.replicates.mean())


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the median of values that are repeated as often as their weights.

    Example:
        >>> weighted_median(np.array([1.0, 2.0, 8.0]), np.array([1, 1, 3]))
        8.0
    """
    return (weighted_rank(values, weights, 0.5, "lower") + weighted_rank(values, weights, 0.5, "higher")) / 2


def weighted_rank(values: np.ndarray, weights: np.ndarray, share: float, method: str) -> float:
    """Return the quantile of `numpy.quantile` with method `lower` or `higher`, where weights are numbers of repetitions.

    Example:
        >>> weighted_rank(np.array([1.0, 2.0, 8.0]), np.array([1, 1, 3]), share=0.25, method="lower")
        2.0
    """
    order = np.argsort(values, kind="stable")
    counts = np.cumsum(weights[order])
    position = share * (int(counts[-1]) - 1)
    return float(
        values[order][
            np.searchsorted(counts, math.floor(position) if method == "lower" else math.ceil(position), "right")
        ]
    )
