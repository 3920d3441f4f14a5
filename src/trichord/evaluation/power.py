"""Numbers of queries and seeds that are needed to show a difference of d points.

The power is that of the test of `statistics.paired_difference`, integrated over its possible estimates: the mean is normal with
variance query / N + seed / S + residual / (S N), and the variance between seeds is estimated with S - 1 degrees of freedom. Holm's
method requires the smallest of m p-values to be below alpha / m. This bound is used for every pair, so the power holds for each
pair regardless of the other pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.statistics import check_level
from trichord.evaluation.variance import Components, Spread, chi_square_nodes, half_width

MOST_QUERIES = 10_000_000
MOST_SEEDS = 200


@dataclass(frozen=True)
class Needed:
    """Size of a study.

    Attributes:
        num_seeds: Number of seeds.
        num_queries: Smallest number of queries that gives the power with this number of seeds; None if no number does.

    Example:
        >>> print(Needed(num_seeds=3, num_queries=3350))
        3 seeds: 3,350 queries
        >>> print(Needed(num_seeds=2, num_queries=None))
        2 seeds: no number of queries is enough
    """

    num_seeds: int
    num_queries: int | None

    def __str__(self) -> str:
        queries = "no number of queries is enough" if self.num_queries is None else f"{self.num_queries:,} queries"
        return f"{self.num_seeds} seed{'s' * (self.num_seeds != 1)}: {queries}"


def predicted_power(
    d: float, num_seeds: int, num_queries: int, components: Components, level: float = 0.95, num_pairs: int = 1
) -> float:
    """Return the probability that a true difference is shown with the right sign and a p-value below (1 - level) / num_pairs.

    Args:
        d: True difference of two recalls, in points.
        num_seeds: Number of seeds of the planned study.
        num_queries: Number of queries of the planned study.
        components: Variance components of the difference, as in `Difference.components`.
        level: Level of the family of pairs.
        num_pairs: Number of pairs in Holm's correction; 6 for four orders.

    Raises:
        TrichordError: The study is too small, or the variance between seeds is unknown.

    Example:
        >>> components = Components(seed=1e-5, query=0.1, residual=0.1, num_seeds=3, num_queries=1000)
        >>> powers = [predicted_power(3.0, num_seeds, 1000, components) for num_seeds in (2, 3, 10)]
        >>> [round(power, 2) for power in powers]
        [0.19, 0.49, 0.8]
    """
    from scipy.stats import norm

    alpha = check_level(level) / num_pairs
    if num_seeds < 1 or num_queries < 2:
        raise TrichordError(
            f"the power is not defined for {num_seeds} seeds and {num_queries} queries; give at least 1 seed and 2 queries"
        )
    if num_seeds > 1 and math.isnan(components.seed):
        raise TrichordError(
            "the variance between seeds cannot be estimated from one seed; estimate the components from two or more seeds"
        )
    seed_variance = 0.0 if num_seeds == 1 else components.seed
    within = components.query / num_queries
    between = seed_variance / num_seeds + components.residual / (num_seeds * num_queries)
    sd = math.sqrt(within + between)
    extra = 2 / (num_seeds * num_queries * (num_queries - 1))
    if num_seeds == 1:
        null_spread, weights = (
            Spread(0.0, np.array([within + between + extra]), np.zeros(1), num_queries - 1, 0),
            np.ones(1),
        )
    else:
        nodes, weights = chi_square_nodes(float(num_seeds - 1))
        widened = np.full_like(nodes, within + extra)
        null_spread = Spread(0.0, widened, between * nodes, num_queries - 1, num_seeds - 1)
    half, distance = half_width(null_spread, alpha), abs(d) / 100
    if sd == 0:
        return float(((distance > half) * weights).sum())
    return float((norm.cdf((distance - half) / sd) * weights).sum())


def queries_needed(
    d: float,
    components: Components,
    num_seeds: Sequence[int] = (2, 3, 5, 10, 20),
    *,
    power: float = 0.8,
    level: float = 0.95,
    num_pairs: int = 1,
) -> tuple[Needed, ...]:
    """Return for each number of seeds the smallest number of queries that shows a true difference with the given power.

    Args:
        d: True difference of two recalls, in points.
        components: Variance components of the difference, as in `Difference.components`.
        num_seeds: Numbers of seeds.
        power: Probability of showing the difference.
        level: Level of the family of pairs.
        num_pairs: Number of pairs in Holm's correction.

    Raises:
        TrichordError: The power is not between 0 and 1, or the difference is 0.

    Example:
        >>> components = Components(seed=1e-5, query=0.1, residual=0.1, num_seeds=3, num_queries=1000)
        >>> print(queries_needed(3.0, components, [1])[0])
        1 seed: 1,756 queries
    """
    if not 0 < power < 1 or d == 0:
        raise TrichordError(
            f"the power is {power} and the difference is {d} points; give a power between 0 and 1 and a difference other than 0"
        )

    def fewest(seeds: int) -> int | None:
        def enough(queries: int) -> bool:
            return predicted_power(d, seeds, queries, components, level, num_pairs) >= power

        if not enough(MOST_QUERIES):
            return None
        low, high = 1, MOST_QUERIES
        while high - low > max(1, low // 200):  # a precision of half a percent is enough
            middle = max(low + 1, round(math.sqrt(low * high))) if high > 2 * low else (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high

    return tuple(Needed(seeds, fewest(seeds)) for seeds in num_seeds)


def seeds_needed(
    d: float,
    num_queries: int,
    components: Components,
    *,
    power: float = 0.8,
    level: float = 0.95,
    num_pairs: int = 1,
) -> int | None:
    """Return the smallest number of seeds, at least 2, that shows a true difference with the given power.

    Args:
        d: True difference of two recalls, in points.
        num_queries: Number of queries.
        components: Variance components of the difference, as in `Difference.components`.
        power: Probability of showing the difference.
        level: Level of the family of pairs.
        num_pairs: Number of pairs in Holm's correction.

    Returns:
        The number of seeds, or None if 200 are not enough.

    Example:
        >>> components = Components(seed=1e-5, query=0.1, residual=0.1, num_seeds=3, num_queries=1000)
        >>> seeds_needed(3.0, 1000, components), seeds_needed(0.1, 1000, components) is None
        (10, True)
    """

    def enough(seeds: int) -> bool:
        return predicted_power(d, seeds, num_queries, components, level, num_pairs) >= power

    if d == 0 or not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
