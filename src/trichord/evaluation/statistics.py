"""Intervals, paired differences, chance levels and Holm's correction of recalls, in percent and points.

S seeds, N queries; hits (S, N) in [0, 1] (a tie counts with its expected value), ranks (S, N) from 1. Values are arrays, or
`replication.Runs` if runs share first stages: `replication` defines the quantity that is estimated and which runs count as seeds.

A recall has Wilson's interval (JASA 22, 1927) with the effective number of queries n that gives the half width of
`variance.half_width` (Korn and Graubard, Survey Methodology 24, 1998, use it with the interval of Clopper and Pearson). It stays
within [0, 100] and is valid near 0, where mean plus and minus half width is not. A median rank has Woodruff's interval (JASA 47,
1952): the interval of the share of ranks below it, mapped to ranks; with one seed it nearly is that of the order statistics.

A paired difference is computed with one additional discordant query in each direction, as Bonett and Price (Statistics in Medicine
31, 2012) do for the paired table. This widens the interval and does not change the estimate, so that a difference of three queries
in 131 is not overrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.printed import spanned
from trichord.evaluation.replication import (
    ONE_SEED,
    Runs,
    matched,
    replication_note,
    weighted_median,
    weighted_rank,
)
from trichord.evaluation.variance import (
    Components,
    Spread,
    components,
    half_width,
    independent_spread,
    mean_parts,
    spread,
    table_of_hits,
    two_sided,
)


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval: recalls in percent, ranks as they are.

    Attributes:
        estimate: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Level of the interval.
        num_seeds: Number of first stages.
        num_queries: Number of queries.
        note: Restriction on the meaning of the interval, or ''.
        num_runs: Number of runs that continue the first stages.

    Example:
        >>> print(Interval(48.13, 40.46, 55.81, level=0.95, num_seeds=3, num_queries=160))
        48.1 [40.5, 55.8]
    """

    estimate: float
    low: float
    high: float
    level: float
    num_seeds: int
    num_queries: int
    note: str = ""
    num_runs: int = 0

    def __str__(self) -> str:
        return spanned(self.estimate, self.low, self.high)


@dataclass(frozen=True)
class Difference:
    """Recall of `a` minus recall of `b`, in points, over the same queries.

    Attributes:
        a: Name of the first system.
        b: Name of the second system.
        estimate: The difference.
        low: Lower end of the interval at `level`, without adjustment.
        high: Upper end of the interval at `level`, without adjustment.
        level: Level of the interval.
        p: Two-sided p-value, below 1 - level if the interval excludes 0.
        p_adjusted: `p` adjusted by Holm's method over all pairs of a comparison; `p` itself for a single pair.
        num_seeds: Number of seeds; 1 if one side has a single first stage.
        num_queries: Number of queries.
        paired_seeds: Whether seed i of `a` was compared with seed i of `b`.
        components: Variance components of the difference of two hits; None if seeds are not paired or share a first stage.
        note: Restriction on the meaning of the figures, or ''.

    Example:
        >>> difference = paired_difference([1, 1, 1, 0] * 50, [1, 0, 0, 0] * 50, names=("theirs", "ours"))
        >>> round(difference.estimate, 1), round(difference.low, 1), round(difference.high, 1)
        (50.0, 42.9, 57.1)
        >>> difference.note
        'one seed: the interval is over queries only and does not cover other seeds'
    """

    a: str
    b: str
    estimate: float
    low: float
    high: float
    level: float
    p: float
    p_adjusted: float
    num_seeds: int
    num_queries: int
    paired_seeds: bool
    components: Components | None
    note: str = ""


def check_level(level: float) -> float:
    """Return 1 - level.

    Raises:
        TrichordError: The level is not between 0 and 1.

    Example:
        >>> round(check_level(0.95), 2)
        0.05
        >>> check_level(95)
        Traceback (most recent call last):
        trichord.errors.TrichordError: the level is 95; give a number between 0 and 1, such as 0.95
    """
    if not 0 < level < 1:
        raise TrichordError(f"the level is {level}; give a number between 0 and 1, such as 0.95")
    return 1 - level


def hits_at(ranks: Any, k: int, equal: Any = None) -> np.ndarray:
    """Return the hits at K, with the shape of `ranks`.

    Args:
        ranks: (S, N) or (N,), from 1; for ties the mean of the tied ranks.
        k: K of the recall.
        equal: Number of items that tie with the truth, including itself, with the shape of `ranks`. The hit then is its expected
            value, clip((K - greater) / equal, 0, 1). None if there are no ties; a mean rank is then used as it is.

    Example:
        >>> hits_at([1, 3, 12], 10)
        array([1., 1., 0.])
    """
    rank = np.asarray(ranks, np.float64)
    if equal is None:
        return (rank <= k).astype(np.float64)
    tied = np.asarray(equal, np.float64)
    return np.clip((k - (rank - 1 - (tied - 1) / 2)) / tied, 0.0, 1.0)


def wilson(
    share: Any, half: Any, alpha: float, num_queries: int, num_seeds: int, most: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends (low, high) of Wilson's intervals of shares, with the effective number of queries that gives the half widths.

    Args:
        share: Shares in [0, 1].
        half: Half width of the interval of each share.
        alpha: 1 - level.
        num_queries: Number N of queries; it is the effective number if all hits are equal and nothing scatters.
        num_seeds: Number S of seeds.
        most: Largest effective number of queries; None for S N.

    Example:
        >>> low, high = wilson(share=0.5, half=0.098, alpha=0.05, num_queries=100, num_seeds=1)
        >>> round(float(low), 3), round(float(high), 3)
        (0.404, 0.596)
    """
    from scipy.stats import norm

    share, half, z = np.asarray(share, np.float64), np.asarray(half, np.float64), norm.isf(alpha / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = z**2 * share * (1 - share) / half**2
    effective = np.where(
        half > 0, np.minimum(effective, num_seeds * num_queries if most is None else most), num_queries
    )
    midpoint = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    reach = z * np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
    return np.minimum(np.maximum(midpoint - reach, 0.0), share), np.maximum(np.minimum(midpoint + reach, 1.0), share)


def recall_interval(hits: Any, level: float = 0.95) -> Interval:
    """Return the recall in percent of hits (S, N) or (N,), with its interval over queries and seeds.

    >>> print(recall_interval([1, 0, 1, 1, 0, 1, 1, 0, 1, 1]))
    70.0 [34.2, 91.3]
    """
    runs = Runs.of(hits)
    return mean_interval(runs.with_values(table_of_hits(runs.values)), level)


def mean_interval(values: Any, level: float = 0.95, *, shares: bool = False) -> Interval:
    """Return the mean in percent of values (S, N) or (N,), with its interval over units and seeds.

    If all values lie in [0, 1], the interval is that of a recall. Otherwise (`evaluation.contributions`) it is the mean plus and
    minus the half width, within [0, 100].

    Args:
        values: (S, N) or (N,) values, or `Runs`.
        level: Level of the interval.
        shares: Whether each value is itself a mean, such as the recall of a video. Such values scatter less than hits, so N of
            them may carry more information than N hits.

    Example:
        >>> print(mean_interval([[0.2, 0.9, 0.7, 0.4], [0.3, 0.8, 0.8, 0.5]], shares=True))
        57.5 [16.3, 90.4]
    """
    runs, alpha = Runs.of(values), check_level(level)
    table = table_of_hits(runs.replicates, bounded=False)
    spread_of_mean, num_units = spread(table), table.shape[1]
    half = half_width(spread_of_mean, alpha)
    low, high = np.maximum(spread_of_mean.mean - half, 0.0), np.minimum(spread_of_mean.mean + half, 1.0)
    if table.min() >= 0 and table.max() <= 1:
        most = np.inf if shares else runs.num_runs * num_units
        low, high = wilson(spread_of_mean.mean, half, alpha, num_units, len(table), most)
    return _interval(runs, 100 * float(spread_of_mean.mean), 100 * float(low), 100 * float(high), level)


def median_rank_interval(ranks: Any, level: float = 0.95) -> Interval:
    """Return the median of all ranks (S, N) or (N,) over seeds and queries, with its interval.

    Every first stage has the same weight.

    Raises:
        TrichordError: The ranks are not finite, are below 1, or do not have the shape seeds by queries with at least two queries.

    Example:
        >>> print(median_rank_interval([1, 1, 2, 3, 4, 9, 12, 40]))
        3.5 [1.0, 40.0]
    """
    from scipy.stats import norm

    runs, alpha = Runs.of(ranks), check_level(level)
    values = runs.values
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all() or values.min() < 1:
        raise TrichordError(
            "ranks must be finite numbers of at least 1 with the shape (seeds, queries) and at least two queries, but the shape is "
            f"{values.shape}"
        )
    flat_ranks, weights = values.ravel(), np.repeat(runs.weights, values.shape[1])
    median = weighted_median(flat_ranks, weights)
    half = float(half_width(spread(runs.with_values((values <= median).astype(np.float64)).replicates), alpha))
    half = max(half, float(norm.isf(alpha / 2)) / 2 / np.sqrt(values.size))
    low = weighted_rank(flat_ranks, weights, max(0.5 - half, 0.0), "lower")
    high = weighted_rank(flat_ranks, weights, min(0.5 + half, 1.0), "higher")
    return _interval(runs, median, low, high, level)


def _interval(runs: Runs, estimate: float, low: float, high: float, level: float) -> Interval:
    return Interval(estimate, low, high, level, runs.num_seeds, runs.values.shape[1], runs.note, runs.num_runs)


def chance_interval(k: int, num_gallery: int, num_queries: int, level: float = 0.95) -> Interval:
    """Return the R@k in percent of ranking at random, and the range in which one random run lies with probability `level` or more.

    Each query ranks the whole gallery independently, so hits are independent with probability k / G, and their number is binomial.

    Raises:
        TrichordError: The gallery or the set of queries is empty.

    Example:
        >>> print(chance_interval(k=10, num_gallery=1000, num_queries=1000))
        1.00 [0.40, 1.70]
    """
    from scipy.stats import binom

    alpha = check_level(level)
    if num_gallery < 1 or num_queries < 1:
        raise TrichordError(
            f"the chance level is not defined for {num_queries} queries and a gallery of {num_gallery}; give at least one of each"
        )
    share = min(max(k, 0), num_gallery) / num_gallery
    low, high = binom.ppf(alpha / 2, num_queries, share), binom.isf(alpha / 2, num_queries, share)
    return Interval(
        100 * share, 100 * float(low) / num_queries, 100 * float(high) / num_queries, level, 0, num_queries, "chance"
    )


def binomial_interval(recall: float, num_queries: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval of a published recall in percent, for which only the number of queries is known.

    Raises:
        TrichordError: The recall is not a percentage, or there is no query.

    Example:
        >>> print(binomial_interval(21.5, num_queries=1000))
        21.5 [19.1, 24.2]
    """
    from scipy.stats import binomtest

    check_level(level)
    if num_queries < 1 or not 0 <= recall <= 100:
        raise TrichordError(
            f"a recall of {recall} % over {num_queries} queries has no interval; give a percentage and a positive number of queries"
        )
    interval = binomtest(round(recall * num_queries / 100), num_queries).proportion_ci(level, method="wilson")
    return Interval(recall, 100 * float(interval.low), 100 * float(interval.high), level, 1, num_queries, ONE_SEED, 1)


def difference_spread(first: np.ndarray, second: np.ndarray, paired_seeds: bool) -> Spread:
    """Return the spread of first (S, N) minus second (S', N), as shares instead of points.

    It includes two discordant pseudo-queries, each of which counts as one hit of S. Leading axes are allowed if seeds are paired.

    Example:
        >>> one, two = np.array([[1.0, 1.0, 0.0, 1.0]]), np.array([[1.0, 0.0, 0.0, 0.0]])
        >>> float(difference_spread(one, two, paired_seeds=True).mean)
        0.5
    """
    num_queries = first.shape[-1]
    if paired_seeds:
        difference = spread(first - second)
    else:
        parts = spread(first), spread(second)
        mean = first.mean(0) - second.mean(0)
        within = mean.var(ddof=1) / num_queries
        if min(len(first), len(second)) > 1:
            within = max(within - mean_parts(first)[2] - mean_parts(second)[2], 0.0)
        difference = independent_spread(mean.mean(), within, num_queries - 1, parts)
    num_seeds = min(first.shape[-2], second.shape[-2])
    extra = 2 / (num_seeds * num_queries * (num_queries - 1))
    return replace(difference, within=difference.within + extra)


def paired_difference(
    hits_a: Any,
    hits_b: Any,
    level: float = 0.95,
    *,
    names: tuple[str, str] = ("a", "b"),
    paired_seeds: bool | None = None,
    bounded: bool = True,
) -> Difference:
    """Return the difference of two recalls over the same queries.

    Args:
        hits_a: (S, N) or (N,) hits, or `Runs`, whose replicates are compared.
        hits_b: (S', N) or (N,) hits, or `Runs`.
        level: Level of the interval.
        names: Names of both systems, for error messages and the result.
        paired_seeds: Whether row i of both has the same seed. None: seeds are paired if the systems have at least two in common,
            and the other seeds are ignored.
        bounded: Whether values must lie in [0, 1], as hits do; False for values of `evaluation.contributions`.

    Raises:
        TrichordError: The numbers of queries differ, or seeds should be paired and their numbers differ.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> difference = paired_difference(rng.random((3, 200)) < 0.6, rng.random((3, 200)) < 0.3)
        >>> round(difference.estimate, 1), difference.p < 0.05
        (27.0, True)
    """
    runs = Runs.of(hits_a), Runs.of(hits_b)
    one, two = matched(*runs) if paired_seeds is None else runs
    first, second = (
        table_of_hits(side.replicates, name, bounded) for side, name in zip((one, two), names, strict=True)
    )
    if first.shape[1] != second.shape[1]:
        raise TrichordError(
            f"{names[0]} has {first.shape[1]} queries and {names[1]} has {second.shape[1]}; "
            "compare runs over the same queries of one benchmark"
        )
    paired = one.labels == two.labels if paired_seeds is None else paired_seeds
    if paired and len(first) != len(second):
        raise TrichordError(
            f"{names[0]} has {len(first)} seeds and {names[1]} has {len(second)}, so their seeds cannot be paired; "
            "set paired_seeds to None or False"
        )
    alpha, difference = check_level(level), difference_spread(first, second, paired)
    half, estimate = float(half_width(difference, alpha)), float(difference.mean)
    p = float(two_sided(difference.mean, difference))
    conditional = [side for side in (one, two) if side.is_conditional]
    num_seeds = 1 if conditional else min(len(first), len(second))
    note = conditional[0].note if conditional else replication_note(num_seeds, num_seeds)
    return Difference(
        *names, 100 * estimate, 100 * max(estimate - half, -1.0), 100 * min(estimate + half, 1.0), level, p, p,
        num_seeds, first.shape[1], paired, components(first - second) if paired and not conditional else None, note,
    )  # fmt: skip


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979), in the order of `p_values`.

    Raises:
        TrichordError: A p-value is not in [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise TrichordError("p-values must be a one-dimensional array of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
