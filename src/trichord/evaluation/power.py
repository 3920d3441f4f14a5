"""How many queries and seeds it takes to see a difference of d points.

The power is that of the very test of `statistics.paired_difference`, integrated over what it may find: the mean is normal
with variance query / N + seed / S + residual / (S N), the variance between seeds is estimated from S - 1 degrees of freedom.
After Holm the smallest of m p-values must lie below alpha / m; that is assumed of every pair, so the power holds for
each pair by itself, whatever the others do.
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
    """The smallest study of so many seeds that has the power; num_queries is None where no number of queries has it."""

    num_seeds: int
    num_queries: int | None

    def __str__(self) -> str:
        queries = "no number of queries is enough" if self.num_queries is None else f"{self.num_queries:,} queries"
        return f"{self.num_seeds} seeds: {queries}"


def predicted_power(
    d: float, num_seeds: int, num_queries: int, of: Components, level: float = 0.95, num_pairs: int = 1
) -> float:
    """Probability that a true difference of `d` points is seen (p below (1 - level) / num_pairs, in its direction).

    Args:
        d: true difference of two recalls, in points.
        num_seeds, num_queries: of the study to come.
        of: components of the difference, as in `Difference.components`.
        level: of the family of pairs.
        num_pairs: pairs that Holm corrects for; 6 for four orders.
    """
    from scipy.stats import norm

    alpha = check_level(level) / num_pairs
    if num_seeds < 1 or num_queries < 2:
        raise TrichordError(
            f"a study of {num_seeds} seeds and {num_queries} queries has no power; it needs 1 and 2 or more"
        )
    if num_seeds > 1 and math.isnan(of.seed):
        raise TrichordError("one seed tells nothing of the scatter between seeds; estimate from two seeds or more")
    seed = 0.0 if num_seeds == 1 else of.seed
    within = of.query / num_queries
    between = seed / num_seeds + of.residual / (num_seeds * num_queries)
    sd = math.sqrt(within + between)
    extra = 2 / (num_seeds * num_queries * (num_queries - 1))
    if num_seeds == 1:
        found, weights = Spread(0.0, np.array([within + between + extra]), np.zeros(1), num_queries - 1, 0), np.ones(1)
    else:
        nodes, weights = chi_square_nodes(float(num_seeds - 1))
        widened = np.full_like(nodes, within + extra)
        found = Spread(0.0, widened, between * nodes, num_queries - 1, num_seeds - 1)
    half, distance = half_width(found, alpha), abs(d) / 100
    if sd == 0:
        return float(((distance > half) * weights).sum())
    return float((norm.cdf((distance - half) / sd) * weights).sum())


def queries_needed(
    d: float,
    of: Components,
    num_seeds: Sequence[int] = (2, 3, 5, 10, 20),
    *,
    power: float = 0.8,
    level: float = 0.95,
    num_pairs: int = 1,
) -> tuple[Needed, ...]:
    """For each number of seeds, the fewest queries with which a true difference of `d` points is seen with `power`."""
    if not 0 < power < 1 or d == 0:
        raise TrichordError(
            f"power {power} of seeing {d} points: give a power between 0 and 1 and a difference other than 0"
        )

    def fewest(seeds: int) -> int | None:
        def enough(queries: int) -> bool:
            return predicted_power(d, seeds, queries, of, level, num_pairs) >= power

        if not enough(MOST_QUERIES):
            return None
        low, high = 1, MOST_QUERIES
        while high - low > max(1, low // 200):  # to half a percent
            middle = max(low + 1, round(math.sqrt(low * high))) if high > 2 * low else (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high

    return tuple(Needed(seeds, fewest(seeds)) for seeds in num_seeds)


def seeds_needed(
    d: float,
    num_queries: int,
    of: Components,
    *,
    power: float = 0.8,
    level: float = 0.95,
    num_pairs: int = 1,
) -> int | None:
    """The fewest seeds, two or more, with which `d` points are seen on `num_queries` queries; None: not with 200."""

    def enough(seeds: int) -> bool:
        return predicted_power(d, seeds, num_queries, of, level, num_pairs) >= power

    if d == 0 or not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
