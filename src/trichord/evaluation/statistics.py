"""What a recall is worth: intervals, paired differences, chance, Holm's correction. Percent and points throughout.

S seeds, N queries; hits (S, N) in [0, 1] (a tie counts at its expected value), ranks (S, N) from 1. Values are arrays, or
`replication.Runs` where runs share first stages: `replication` says what is estimated, and which runs count as seeds.

A recall has Wilson's interval (JASA 22, 1927) with the effective number of queries n that gives the half width of
`variance.half_width` (Korn and Graubard, Survey Methodology 24, 1998, use it with Clopper-Pearson's): it stays within
[0, 100] and holds near 0, where mean plus and minus does not. A median rank has Woodruff's (JASA 47, 1952): the interval
of the share of ranks below it, read off the ranks; with one seed nearly that of the order statistics.

A paired difference gets one more discordant query each way, as Bonett and Price (Statistics in Medicine 31, 2012) give the
paired table; they widen the interval and leave the estimate. So a difference of three queries in 131 is not overrated.
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
    """An estimate with its interval. Recalls in percent; ranks as they are. num_seeds: first stages; num_runs: runs that continue
    them. note: what narrows its meaning, or ''."""

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
    """Recall of `a` minus that of `b`, in points, over the same queries.

    low, high: interval at `level`, not adjusted. p: two-sided, p < 1 - level where the interval excludes 0. p_adjusted:
    Holm's over all pairs of a comparison (p itself for a lone pair). paired_seeds: whether seed i of `a` was compared
    with seed i of `b`. num_seeds: 1 where a side has one first stage. components: of the difference of two hits; None where
    seeds are not paired or share a first stage.
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
    """1 - level."""
    if not 0 < level < 1:
        raise TrichordError(f"level {level} must lie between 0 and 1, for instance 0.95")
    return 1 - level


def hits_at(ranks: Any, k: int, equal: Any = None) -> np.ndarray:
    """Hits at K, the shape of `ranks`.

    Args:
        ranks: (S, N) or (N,), from 1; with ties the mean of the tied ranks.
        k: K of the recall.
        equal: the number of items tied with the truth, itself included, the same shape: the hit is then expected over
            ties, clip((K - greater) / equal, 0, 1). None: no ties; a mean rank counts as it stands.
    """
    rank = np.asarray(ranks, np.float64)
    if equal is None:
        return (rank <= k).astype(np.float64)
    tied = np.asarray(equal, np.float64)
    return np.clip((k - (rank - 1 - (tied - 1) / 2)) / tied, 0.0, 1.0)


def wilson(
    share: Any, half: Any, alpha: float, num_queries: int, num_seeds: int, most: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of shares with half widths `half`: Wilson's interval of as many queries as have that half width.

    Never more than `most` of them, by default S N; N where no hit, or every hit, leaves nothing to scatter."""
    from scipy.stats import norm

    share, half, z = np.asarray(share, np.float64), np.asarray(half, np.float64), norm.isf(alpha / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = z**2 * share * (1 - share) / half**2
    effective = np.where(
        half > 0, np.minimum(effective, num_seeds * num_queries if most is None else most), num_queries
    )
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    reach = z * np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
    return np.minimum(np.maximum(centre - reach, 0.0), share), np.maximum(np.minimum(centre + reach, 1.0), share)


def recall_interval(hits: Any, level: float = 0.95) -> Interval:
    """Recall in percent of hits (S, N) or (N,), with its interval over queries and seeds."""
    runs = Runs.of(hits)
    return mean_interval(runs.with_values(table_of_hits(runs.values)), level)


def mean_interval(values: Any, level: float = 0.95, *, shares: bool = False) -> Interval:
    """Mean in percent of values (S, N) or (N,), with its interval over units and seeds.

    Where all values lie in [0, 1] the interval is that of a recall; of others (`evaluation.contributions`) it is plus and minus
    the half width, within [0, 100].

    shares: each value is a mean of its own, as the recall of a video is: they scatter less than hits do, so that N of them
    may be worth more than N hits.
    """
    runs, alpha = Runs.of(values), check_level(level)
    table = table_of_hits(runs.replicates, bounded=False)
    of, num_units = spread(table), table.shape[1]
    half = half_width(of, alpha)
    low, high = np.maximum(of.mean - half, 0.0), np.minimum(of.mean + half, 1.0)
    if table.min() >= 0 and table.max() <= 1:
        most = np.inf if shares else runs.num_runs * num_units
        low, high = wilson(of.mean, half, alpha, num_units, len(table), most)
    return _interval(runs, 100 * float(of.mean), 100 * float(low), 100 * float(high), level)


def median_rank_interval(ranks: Any, level: float = 0.95) -> Interval:
    """Median of all ranks (S, N) or (N,), seeds and queries together, with its interval. Every first stage weighs the same."""
    from scipy.stats import norm

    runs, alpha = Runs.of(ranks), check_level(level)
    values = runs.values
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all() or values.min() < 1:
        raise TrichordError("ranks must be finite, from 1, and of the shape seeds by queries, with two queries or more")
    each, weights = values.ravel(), np.repeat(runs.weights, values.shape[1])
    median = weighted_median(each, weights)
    half = float(half_width(spread(runs.with_values((values <= median).astype(np.float64)).replicates), alpha))
    half = max(half, float(norm.isf(alpha / 2)) / 2 / np.sqrt(values.size))
    low = weighted_rank(each, weights, max(0.5 - half, 0.0), "lower")
    high = weighted_rank(each, weights, min(0.5 + half, 1.0), "higher")
    return _interval(runs, median, low, high, level)


def _interval(runs: Runs, estimate: float, low: float, high: float, level: float) -> Interval:
    return Interval(estimate, low, high, level, runs.num_seeds, runs.values.shape[1], runs.note, runs.num_runs)


def chance_interval(k: int, num_gallery: int, num_queries: int, level: float = 0.95) -> Interval:
    """R@k of ranking at random, and where one such run lands with probability `level` or more, in percent.

    Each query ranks the whole gallery by itself, so hits are independent with k / G, and their number is binomial."""
    from scipy.stats import binom

    alpha = check_level(level)
    if num_gallery < 1 or num_queries < 1:
        raise TrichordError("chance needs a gallery and queries; both must hold an item or more")
    share = min(max(k, 0), num_gallery) / num_gallery
    low, high = binom.ppf(alpha / 2, num_queries, share), binom.isf(alpha / 2, num_queries, share)
    return Interval(
        100 * share, 100 * float(low) / num_queries, 100 * float(high) / num_queries, level, 0, num_queries, "chance"
    )


def binomial_interval(recall: float, num_queries: int, level: float = 0.95) -> Interval:
    """Wilson's interval of a published recall, in percent, of which only the number of queries is known."""
    from scipy.stats import binomtest

    check_level(level)
    if num_queries < 1 or not 0 <= recall <= 100:
        raise TrichordError(
            f"a recall of {recall} % over {num_queries} queries has no interval; give percent and a count"
        )
    found = binomtest(round(recall * num_queries / 100), num_queries).proportion_ci(level, method="wilson")
    return Interval(recall, 100 * float(found.low), 100 * float(found.high), level, 1, num_queries, ONE_SEED, 1)


def difference_spread(first: np.ndarray, second: np.ndarray, paired_seeds: bool) -> Spread:
    """Spread of first (S, N) minus second (S', N), leading axes allowed where seeds are paired; with the two discordant
    pseudo-queries, each the size of one hit of S. Shares, not points."""
    num_queries = first.shape[-1]
    if paired_seeds:
        found = spread(first - second)
    else:
        parts = spread(first), spread(second)
        mean = first.mean(0) - second.mean(0)
        within = mean.var(ddof=1) / num_queries
        if min(len(first), len(second)) > 1:
            within = max(within - mean_parts(first)[2] - mean_parts(second)[2], 0.0)
        found = independent_spread(mean.mean(), within, num_queries - 1, parts)
    num_seeds = min(first.shape[-2], second.shape[-2])
    extra = 2 / (num_seeds * num_queries * (num_queries - 1))
    return replace(found, within=found.within + extra)


def paired_difference(
    hits_a: Any,
    hits_b: Any,
    level: float = 0.95,
    *,
    names: tuple[str, str] = ("a", "b"),
    paired_seeds: bool | None = None,
    bounded: bool = True,
) -> Difference:
    """Difference of two recalls over the same queries.

    Args:
        hits_a, hits_b: (S, N) and (S', N), or (N,); or `Runs`, of which the replicates are compared.
        level: of the interval.
        names: of the two, for errors and the result.
        paired_seeds: whether row i of both had the same seed. None: seeds are paired where both have two or more in common, and
            the others are left out.
        bounded: whether values must lie in [0, 1], as hits do; False for those of `evaluation.contributions`.
    """
    runs = Runs.of(hits_a), Runs.of(hits_b)
    one, two = matched(*runs) if paired_seeds is None else runs
    first, second = (table_of_hits(of.replicates, name, bounded) for of, name in zip((one, two), names, strict=True))
    if first.shape[1] != second.shape[1]:
        raise TrichordError(
            f"{names[0]} has {first.shape[1]} queries and {names[1]} has {second.shape[1]}; "
            "compare runs over the same queries of one benchmark"
        )
    paired = one.labels == two.labels if paired_seeds is None else paired_seeds
    if paired and len(first) != len(second):
        raise TrichordError(
            f"{names[0]} has {len(first)} seeds and {names[1]} has {len(second)}: they cannot be paired"
        )
    alpha, of = check_level(level), difference_spread(first, second, paired)
    half, estimate, p = float(half_width(of, alpha)), float(of.mean), float(two_sided(of.mean, of))
    conditional = [side for side in (one, two) if side.is_conditional]
    num_seeds = 1 if conditional else min(len(first), len(second))
    note = conditional[0].note if conditional else replication_note(num_seeds, num_seeds)
    return Difference(
        *names, 100 * estimate, 100 * max(estimate - half, -1.0), 100 * min(estimate + half, 1.0), level, p, p,
        num_seeds, first.shape[1], paired, components(first - second) if paired and not conditional else None, note,
    )  # fmt: skip


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979), in the order given."""
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise TrichordError("p-values must be a row of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
