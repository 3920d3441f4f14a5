"""Variance components of a recall (queries, seeds and residual), and the tail probabilities that follow from them.

S seeds, N queries, values (S, N): hits in [0, 1] or differences of hits. The design is crossed, because every seed is evaluated on
the same queries: value = mean + seed + query + residual, all random. The overall mean has the variance seed / S + query / N +
residual / (S N), which is estimated from the mean squares of the two-way table (Searle, Casella and McCulloch, Variance
Components, 1992, section 4.3).

It has two parts that are known with different precision: `within`, query / N, with N - 1 degrees of freedom, and `between`, seed /
S + residual / (S N), with S - 1, often two. Their sum is compared with the Behrens-Fisher distribution (sqrt(within) t[N-1] +
sqrt(between) t[S-1]). With one seed this is the one-sample t-test over queries, and with `within` = 0 that over seeds. The method
was chosen by simulation (benchmarks/bench_statistics.py). At a level of 95 % it covers 95 % or more, up to 99 % with two seeds and
97.5 % with three. Satterthwaite's degrees of freedom cover 87 % at worst with two seeds and 92 % with three, and at Holm's level
for six pairs their error rates are ten and four times too high. Percentile bootstraps over seeds and queries cover 84 % with three
seeds, which are too few to resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trichord.errors import TrichordError


@dataclass(frozen=True)
class Spread:
    """A mean and its variance; leading axes are those of the studies, () for one study.

    Attributes:
        mean: Mean over seeds and queries.
        within: Part of the variance of the mean that is due to queries.
        between: Part of the variance of the mean that is due to seeds; 0 with one seed.
        query_df: Degrees of freedom of `within`.
        seed_df: Degrees of freedom of `between`; 0 with one seed, when nothing is known about other seeds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> of_mean = spread((rng.random((3, 500)) < 0.4) * 1.0)
        >>> round(float(of_mean.mean), 3), of_mean.query_df, of_mean.seed_df
        (0.391, 499, 2)
    """

    mean: Any
    within: Any
    between: Any
    query_df: float
    seed_df: Any


@dataclass(frozen=True)
class Components:
    """Variance components of one value, in units of squared hits, as defined in the module.

    Attributes:
        seed: Variance between seeds; NaN with one seed.
        query: Variance between queries; it includes the residual with one seed.
        residual: Residual variance.
        num_seeds: Number of seeds used for the estimate.
        num_queries: Number of queries used for the estimate.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> is_easy = rng.random(500) < 0.4  # queries that every seed answers
        >>> found = components((is_easy ^ (rng.random((3, 500)) < 0.1)) * 1.0)
        >>> round(found.query, 2), round(found.residual, 2)
        (0.14, 0.1)
    """

    seed: float
    query: float
    residual: float
    num_seeds: int
    num_queries: int


def mean_parts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the variance of the mean estimated from the query means and from the seed means, and its residual part.

    Example:
        >>> by_query, by_seed, residual = mean_parts(np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]]))
        >>> round(float(by_query), 4), round(float(by_seed), 4), round(float(residual), 4)
        (0.0573, 0.0156, 0.0156)
    """
    num_seeds, num_queries = values.shape[-2:]
    query_means, seed_means = values.mean(-2), values.mean(-1)
    by_query = query_means.var(-1, ddof=1) / num_queries
    if num_seeds == 1:
        return by_query, np.zeros_like(by_query), np.zeros_like(by_query)
    by_seed = seed_means.var(-1, ddof=1) / num_seeds
    total = ((values - values.mean((-2, -1), keepdims=True)) ** 2).sum((-2, -1))
    sum_of_seeds = num_queries * (num_seeds - 1) * num_seeds * by_seed
    sum_of_queries = num_seeds * (num_queries - 1) * num_queries * by_query
    residual = np.maximum(total - sum_of_seeds - sum_of_queries, 0.0) / ((num_seeds - 1) * (num_queries - 1))
    return by_query, by_seed, residual / (num_seeds * num_queries)


def spread(values: np.ndarray) -> Spread:
    """Return the mean and spread of values (..., S, N).

    Example:
        >>> of_mean = spread(np.array([[1.0, 0.0, 1.0, 1.0]]))
        >>> float(of_mean.mean), round(float(of_mean.within), 4), float(of_mean.between)
        (0.75, 0.0625, 0.0)
    """
    num_seeds, num_queries = values.shape[-2:]
    by_query, by_seed, residual = mean_parts(values)
    within = np.maximum(by_query - residual, 0.0)
    return Spread(values.mean((-2, -1)), within, by_seed, num_queries - 1, num_seeds - 1)


def independent_spread(mean: Any, within: Any, query_df: float, parts: tuple[Spread, Spread]) -> Spread:
    """Return the spread of a difference whose two sides were trained with different seeds.

    Their `between` parts add up, with Satterthwaite's degrees of freedom. If a side has one seed, seed_df is 0.

    Args:
        mean: Mean of the difference.
        within: Part of the variance that is due to queries.
        query_df: Degrees of freedom of `within`.
        parts: Spread of each side.

    Example:
        >>> one, two = spread(np.eye(2, 8)), spread(np.eye(3, 8))
        >>> difference = independent_spread(one.mean - two.mean, 0.01, 7, (one, two))
        >>> float(difference.mean), difference.query_df
        (0.0, 7)
    """
    first, second = parts
    between = first.between + second.between
    if not first.seed_df or not second.seed_df:
        return Spread(mean, within, np.zeros_like(between), query_df, 0)
    denominator = first.between**2 / first.seed_df + second.between**2 / second.seed_df
    seed_df = between**2 / denominator if denominator > 0 else float(first.seed_df + second.seed_df)
    return Spread(mean, within, between, query_df, seed_df)


def components(values: np.ndarray) -> Components:
    """Return the variance components of values (S, N); negative estimates become 0.

    Example:
        >>> found = components(np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]]))
        >>> round(found.query, 3), round(found.residual, 3), found.num_seeds
        (0.167, 0.125, 2)
    """
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
    """Return 64 nodes and weights with which the mean of f(chi square / df) is the weighted mean of f(nodes).

    Example:
        >>> nodes, weights = chi_square_nodes(2.0)
        >>> nodes.shape, round(float((nodes * weights).sum()), 2)  # the mean of chi square / df is 1
        ((64,), 1.0)
    """
    from scipy.stats import chi2

    nodes, weights = np.polynomial.legendre.leggauss(64)
    return chi2.ppf((nodes + 1) / 2, df) / df, weights / 2


def two_sided(distance: Any, mean_spread: Spread) -> np.ndarray:
    """Return the two-sided p-value of a mean at a given distance from its hypothetical value; broadcasts over studies.

    Given the chi square of the seeds, the sum is nearly a t variable with Satterthwaite's degrees of freedom from those of the
    queries (exactly with one seed). The mean over chi square is the tail of the Behrens-Fisher distribution. A distance of 0 has p
    = 1.

    Example:
        >>> one_seed = Spread(mean=0.05, within=0.02**2, between=np.zeros(()), query_df=499, seed_df=0)
        >>> round(float(two_sided(0.05, one_seed)), 3)
        0.013
    """
    from scipy.special import stdtr

    distance = np.abs(np.asarray(distance, np.float64))
    within, between = np.asarray(mean_spread.within, np.float64), np.asarray(mean_spread.between, np.float64)
    if mean_spread.seed_df:
        nodes, weights = chi_square_nodes(float(mean_spread.seed_df))
        variance = within[..., None] + between[..., None] / nodes
    else:
        weights, variance = np.ones(1), within[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(distance[..., None] == 0, 0.0, distance[..., None] / np.sqrt(variance))
        share = within[..., None] / variance
        df = np.where(share > 1e-4, mean_spread.query_df / share**2, mean_spread.query_df * 1e8)
    return np.minimum((2 * stdtr(df, -ratio) * weights).sum(-1), 1.0)


def half_width(mean_spread: Spread, alpha: float) -> np.ndarray:
    """Return the distance at which `two_sided` is alpha; 0 if nothing scatters.

    Example:
        >>> one_seed = Spread(mean=0.05, within=0.02**2, between=np.zeros(()), query_df=499, seed_df=0)
        >>> round(float(half_width(one_seed, alpha=0.05)), 4)
        0.0393
    """
    from scipy.special import stdtrit

    high = stdtrit(mean_spread.query_df, alpha / 2) ** 2 * np.asarray(mean_spread.within, np.float64)
    if mean_spread.seed_df:
        high = high + stdtrit(mean_spread.seed_df, alpha / 2) ** 2 * np.asarray(mean_spread.between, np.float64)
    high = 1.5 * np.sqrt(high)  # without the factor 1.5 this nearly is an upper bound (Banerjee, Sankhya 22, 1960)
    low = np.zeros_like(high)
    inside, outside = _bracket(mean_spread, alpha, high)
    for _ in range(32):
        middle = (low + high) / 2
        is_outside, is_open = middle >= outside, (inside < middle) & (middle < outside)
        if is_open.any():
            is_outside = is_outside | (is_open & (two_sided(middle, mean_spread) < alpha))
        low, high = np.where(is_outside, low, middle), np.where(is_outside, middle, high)
    return (low + high) / 2


def _bracket(mean_spread: Spread, alpha: float, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances below and above that at which `two_sided` is alpha, mostly less than 1e-9 of it apart.

    The secant method on logarithms needs a third of the evaluations of the bisection, which dominate the time of a report.
    """
    inside, outside = np.zeros_like(high), high

    def height_at(distance: np.ndarray) -> np.ndarray:
        """Return log(p / alpha), and move the bracket to the distance."""
        nonlocal inside, outside
        p = two_sided(distance, mean_spread)
        inside = np.where(p < alpha, inside, np.fmax(inside, distance))
        outside = np.where(p < alpha, np.fmin(outside, distance), outside)
        return np.log(p / alpha)

    with np.errstate(all="ignore"):
        distance, slope = high / 1.5, np.full_like(high, -2.0)
        height = height_at(distance)
        for _ in range(4):
            root = distance * np.exp(-height / slope)
            root = np.where((inside < root) & (root < outside), root, (inside + outside) / 2)
            height_of_root = height_at(root)
            slope = (height_of_root - height) / np.log(root / distance)
            distance, height = root, height_of_root
        root = distance * np.exp(-height / slope)
        height_at(root * (1 - 1e-10))
        height_at(root * (1 + 1e-10))
    return inside, outside


def table_of_hits(hits: Any, name: str = "hits", bounded: bool = True) -> np.ndarray:
    """Return hits as float64 (S, N); a single row (N,) is one seed.

    Args:
        hits: (S, N) or (N,).
        name: Name of the values, for error messages.
        bounded: Whether the values must lie in [0, 1].

    Raises:
        TrichordError: The shape or the values are not valid.

    Example:
        >>> table_of_hits([True, False, True])
        array([[1., 0., 1.]])
        >>> table_of_hits([[0.0, 2.0]], "theirs")
        Traceback (most recent call last):
        trichord.errors.TrichordError: theirs: hits must lie in [0, 1]; make them from ranks with `hits_at`
    """
    values = np.asarray(hits, np.float64)
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.shape[0] or values.shape[1] < 2:
        raise TrichordError(
            f"{name}: the shape is {values.shape}, but it must be (seeds, queries) with at least two queries"
        )
    if not bounded and not np.isfinite(values).all():
        raise TrichordError(f"{name}: a value is not finite; remove the units without a value")
    if bounded and (not np.isfinite(values).all() or values.min() < 0 or values.max() > 1):
        raise TrichordError(f"{name}: hits must lie in [0, 1]; make them from ranks with `hits_at`")
    return values
