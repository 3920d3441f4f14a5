"""Simulated studies with known truth: do the intervals cover, is a winner declared where there is none, is power right.

Hit of order o, seed s, query q: Bernoulli(Phi(m_o + difficulty_q + taste_oq + luck_s + shift_os)), all normal. Difficulty
and luck are common to the orders (they correlate them), taste and shift are each order's own. The truth of an order is then
Phi(m / sqrt(1 + variances)), exactly; with one seed it is that of the trained model, given its luck and shift. One core.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from results import record  # noqa: E402
from scipy.special import ndtr, ndtri  # noqa: E402

from trichord.evaluation.comparison import compare_orders  # noqa: E402
from trichord.evaluation.power import predicted_power  # noqa: E402
from trichord.evaluation.statistics import difference_spread, wilson  # noqa: E402
from trichord.evaluation.variance import components, half_width, spread, two_sided  # noqa: E402


@dataclass(frozen=True)
class World:
    """Standard deviations on the probit scale."""

    difficulty: float = 1.0
    taste: float = 0.5
    luck: float = 0.03
    shift: float = 0.05

    def offset(self, recall: float) -> float:
        """m of a recall."""
        total = 1 + self.difficulty**2 + self.taste**2 + self.luck**2 + self.shift**2
        return float(ndtri(recall) * np.sqrt(total))


def simulate(
    rng: np.random.Generator, world: World, recalls: tuple[float, ...], studies: int, seeds: int, queries: int
) -> tuple[np.ndarray, np.ndarray]:
    """(hits (orders, studies, S, N), truth of each (orders, studies))."""
    f = np.float32
    normal = rng.standard_normal
    difficulty = f(world.difficulty) * normal((studies, 1, queries), f)
    luck = f(world.luck) * normal((studies, seeds, 1), f)
    hits, truths = [], []
    for recall in recalls:
        offset = world.offset(recall)
        shift = luck + f(world.shift) * normal((studies, seeds, 1), f)
        level = f(offset) + difficulty + f(world.taste) * normal((studies, 1, queries), f) + shift
        hits.append(rng.random(level.shape, f) < ndtr(level))
        if seeds == 1:
            truths.append(ndtr((offset + shift[:, 0, 0]) / np.sqrt(1 + world.difficulty**2 + world.taste**2)))
        else:
            truths.append(np.full(studies, recall))
    return np.stack(hits), np.stack(truths)


def coverage(
    rng: np.random.Generator, world: World, recalls: tuple[float, float], seeds: int, queries: int, studies: int
) -> tuple[float, float]:
    """Coverage in percent of the 95 % intervals of a recall and of a paired difference."""
    single = paired = 0
    block = max(1, 4_000_000 // (seeds * queries))
    for start in range(0, studies, block):
        count = min(block, studies - start)
        hits, truth = simulate(rng, world, recalls, count, seeds, queries)
        first, second = hits[0].astype(np.float32), hits[1].astype(np.float32)
        of = spread(first)
        low, high = wilson(of.mean, half_width(of, 0.05), 0.05, queries, seeds)
        single += int(((low <= truth[0]) & (truth[0] <= high)).sum())
        between = difference_spread(first, second, True)
        paired += int((two_sided(between.mean - (truth[0] - truth[1]), between) >= 0.05).sum())
    return 100 * single / studies, 100 * paired / studies


def bootstrap_coverage(
    rng: np.random.Generator, world: World, recall: float, seeds: int, queries: int, studies: int, draws: int = 400
) -> tuple[float, float]:
    """Coverage of percentile bootstraps of a recall: seeds and queries drawn independently; queries alone."""
    crossed = alone = 0
    for _ in range(studies):
        hits, truth = simulate(rng, world, (recall,), 1, seeds, queries)
        table = hits[0, 0].astype(np.float32)
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws).astype(np.float32) / seeds
        weights = rng.poisson(1.0, (draws, queries)).astype(np.float32)
        weights /= weights.sum(1, keepdims=True)
        by_seed = weights @ table.T
        for inner, values in enumerate(((drawn * by_seed).sum(1), by_seed.mean(1))):
            low, high = np.quantile(values, [0.025, 0.975])
            inside = bool(low <= truth[0, 0] <= high)
            crossed, alone = crossed + (inside and not inner), alone + (inside and inner == 1)
    return 100 * crossed / studies, 100 * alone / studies


def seen(rng: np.random.Generator, world: World, recalls: tuple[float, float], seeds: int, queries: int, studies: int) -> tuple[float, float]:
    """(power found, power predicted from the components of 400,000 or so values of the same world), in percent."""
    large, _ = simulate(rng, world, recalls, 1, 300, 3000)
    of = components(large[0, 0].astype(np.float64) - large[1, 0])
    found, block = 0, max(1, 4_000_000 // (seeds * queries))
    for start in range(0, studies, block):
        hits, _ = simulate(rng, world, recalls, min(block, studies - start), seeds, queries)
        between = difference_spread(hits[0].astype(np.float32), hits[1].astype(np.float32), True)
        sign = np.sign(recalls[0] - recalls[1])
        found += int(((two_sided(between.mean, between) < 0.05) & (np.sign(between.mean) == sign)).sum())
    return 100 * found / studies, 100 * predicted_power(100 * (recalls[0] - recalls[1]), seeds, queries, of)


def winners(rng: np.random.Generator, world: World, recall: float, orders: int, seeds: int, queries: int, studies: int) -> float:
    """Percent of studies of equal orders that declare a winner."""
    declared = 0
    for _ in range(studies):
        hits, _ = simulate(rng, world, (recall,) * orders, 1, seeds, queries)
        declared += compare_orders({f"o{i}": hits[i, 0] for i in range(orders)}).winner is not None
    return 100 * declared / studies
