"""Where the scatter of a recall comes from: queries, seeds, and what is left; and the tails that follow from it.

S seeds, N queries, values (S, N): hits in [0, 1] or differences of hits. The design is crossed, for every seed meets the
same queries: value = mean + seed + query + residual, all random. The mean over all has the variance
seed / S + query / N + residual / (S N), estimated from the mean squares of the two-way table (Searle, Casella and
McCulloch, Variance Components, 1992, section 4.3).

It has two parts that are known unequally well: `within`, query / N, from N - 1 degrees of freedom, and `between`,
seed / S + residual / (S N), from S - 1, often two. Their sum is compared with the Behrens-Fisher distribution
(sqrt(within) t[N-1] + sqrt(between) t[S-1]): with one seed the one-sample t-test over queries, with `within` = 0 that
over seeds. It was chosen by simulation (benchmarks/bench_statistics.py). At level 95 % it
covers 95 % or more, up to 99 % with two seeds and 97.5 % with three. Satterthwaite's degrees of freedom cover 87 % at worst
with two seeds and 92 % with three, and at Holm's level for six pairs err ten and four times too often. Percentile bootstraps
over seeds and queries cover 84 % with three seeds: too few to resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trichord.errors import TrichordError


@dataclass(frozen=True)
class Spread:
    """Mean and its variance. The leading shape is that of the studies, () for one.

    mean: the mean over seeds and queries. within, between: the two parts of its variance. query_df, seed_df: their
    degrees of freedom; seed_df is 0 with one seed, where `between` is 0 and nothing is known of other seeds.
    """

    mean: Any
    within: Any
    between: Any
    query_df: float
    seed_df: Any


@dataclass(frozen=True)
class Components:
    """Variances of one value, in units of hits squared: `seed`, `query` and `residual` as in the module. With one seed
    `seed` is NaN, and `query` holds the residual too. num_seeds, num_queries: what they were estimated from."""

    seed: float
    query: float
    residual: float
    num_seeds: int
    num_queries: int


def mean_parts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Variance of the mean as it seems from the query means, from the seed means, and its residual share."""
    num_seeds, num_queries = values.shape[-2:]
    of_queries, of_seeds = values.mean(-2), values.mean(-1)
    by_query = of_queries.var(-1, ddof=1) / num_queries
    if num_seeds == 1:
        return by_query, np.zeros_like(by_query), np.zeros_like(by_query)
    by_seed = of_seeds.var(-1, ddof=1) / num_seeds
    total = ((values - values.mean((-2, -1), keepdims=True)) ** 2).sum((-2, -1))
    of_rows = num_queries * (num_seeds - 1) * num_seeds * by_seed
    of_columns = num_seeds * (num_queries - 1) * num_queries * by_query
    left = np.maximum(total - of_rows - of_columns, 0.0) / ((num_seeds - 1) * (num_queries - 1))
    return by_query, by_seed, left / (num_seeds * num_queries)


def spread(values: np.ndarray) -> Spread:
    """Mean and spread of values (..., S, N)."""
    num_seeds, num_queries = values.shape[-2:]
    by_query, by_seed, residual = mean_parts(values)
    within = np.maximum(by_query - residual, 0.0)
    return Spread(values.mean((-2, -1)), within, by_seed, num_queries - 1, num_seeds - 1)


def independent_spread(mean: Any, within: Any, query_df: float, parts: tuple[Spread, Spread]) -> Spread:
    """A spread of a difference whose two sides were trained from different seeds: their `between` add up, with
    Satterthwaite's degrees of freedom. Where a side has one seed, seed_df is 0."""
    first, second = parts
    between = first.between + second.between
    if not first.seed_df or not second.seed_df:
        return Spread(mean, within, np.zeros_like(between), query_df, 0)
    below = first.between**2 / first.seed_df + second.between**2 / second.seed_df
    seed_df = between**2 / below if below > 0 else float(first.seed_df + second.seed_df)
    return Spread(mean, within, between, query_df, seed_df)


def components(values: np.ndarray) -> Components:
    """Variance components of values (S, N); negative estimates are 0."""
    num_seeds, num_queries = values.shape
    by_query, by_seed, residual = mean_parts(values)
    if num_seeds == 1:
        return Components(float("nan"), float(num_queries * by_query), 0.0, 1, num_queries)
    return Components(
        float(max(num_seeds * (by_seed - residual), 0.0)),
        float(max(num_queries * (by_query - residual), 0.0)),
        float(num_seeds * num_queries * residual),
        num_seeds,
        num_queries,
    )


@lru_cache(maxsize=256)
def chi_square_nodes(df: float) -> tuple[np.ndarray, np.ndarray]:
    """(nodes, weights), 64 each: the mean of f(nodes) under the weights is the mean of f(chi square / df)."""
    from scipy.stats import chi2

    nodes, weights = np.polynomial.legendre.leggauss(64)
    return chi2.ppf((nodes + 1) / 2, df) / df, weights / 2


def two_sided(distance: Any, of: Spread) -> np.ndarray:
    """P-value of a mean that lies `distance` from where it is supposed to be; broadcasts over studies.

    Given the seeds' chi square the sum is a t, nearly, with Satterthwaite's degrees of freedom from those of the queries
    (exact with one seed); the mean over chi square is the Behrens-Fisher tail. A distance of 0 has p = 1.
    """
    from scipy.special import stdtr

    distance = np.abs(np.asarray(distance, np.float64))
    within, between = np.asarray(of.within, np.float64), np.asarray(of.between, np.float64)
    if of.seed_df:
        nodes, weights = chi_square_nodes(float(of.seed_df))
        variance = within[..., None] + between[..., None] / nodes
    else:
        weights, variance = np.ones(1), within[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(distance[..., None] == 0, 0.0, distance[..., None] / np.sqrt(variance))
        share = within[..., None] / variance
        df = np.where(share > 1e-4, of.query_df / share**2, of.query_df * 1e8)
    return np.minimum((2 * stdtr(df, -ratio) * weights).sum(-1), 1.0)


def half_width(of: Spread, alpha: float) -> np.ndarray:
    """The distance at which `two_sided` is alpha; 0 where nothing scatters."""
    from scipy.stats import t

    high = t.isf(alpha / 2, of.query_df) ** 2 * np.asarray(of.within, np.float64)
    if of.seed_df:
        high = high + t.isf(alpha / 2, of.seed_df) ** 2 * np.asarray(of.between, np.float64)
    high = 1.5 * np.sqrt(high)  # the sum without the 1.5 bounds it nearly (Banerjee, Sankhya 22, 1960)
    low = np.zeros_like(high)
    for _ in range(32):
        middle = (low + high) / 2
        outside = two_sided(middle, of) < alpha
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return (low + high) / 2


def table_of_hits(hits: Any, name: str = "hits", bounded: bool = True) -> np.ndarray:
    """`hits` as float64 (S, N); one row (N,) is one seed. bounded: whether they must lie in [0, 1]."""
    values = np.asarray(hits, np.float64)
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.shape[0] or values.shape[1] < 2:
        raise TrichordError(f"{name}: shape {values.shape} must be seeds by queries, with two queries or more")
    if not bounded and not np.isfinite(values).all():
        raise TrichordError(f"{name}: a value is not finite; leave out what does not count")
    if bounded and (not np.isfinite(values).all() or values.min() < 0 or values.max() > 1):
        raise TrichordError(f"{name}: hits must lie in [0, 1]; make them from ranks with `hits_at`")
    return values
