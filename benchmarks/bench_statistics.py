"""Simulate studies with known truth: the coverage of intervals, the rate of false winners, and the accuracy of the predicted
power.

The hit of order o, seed s and query q is Bernoulli(Phi(m_o + difficulty_q + taste_oq + luck_s + shift_os)), where all terms are
normally distributed. Difficulty and luck are common to all orders, which correlates them; taste and shift belong to one order.
The true recall of an order is then exactly Phi(m / sqrt(1 + variances)); with one seed, it is that of the trained model, given
its luck and shift. Uses one core.

If runs share first stages (`nested`), luck, shift and a taste for single queries belong to the first stage, and each run adds a
shift of its own. With one first stage, the true recall is that of all runs that continue it.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from results import record  # noqa: E402
from scipy.special import ndtr, ndtri, stdtr  # noqa: E402

from trichord.evaluation.comparison import compare_orders  # noqa: E402
from trichord.evaluation.power import predicted_power  # noqa: E402
from trichord.evaluation.replication import Runs  # noqa: E402
from trichord.evaluation.statistics import difference_spread, wilson  # noqa: E402
from trichord.evaluation.variance import Spread, components, half_width, spread, two_sided  # noqa: E402

PAIRS = ((0.02, 0.02), (0.05, 0.08), (0.3, 0.35), (0.6, 0.6))  # recalls of two orders


@dataclass(frozen=True)
class World:
    """Standard deviations on the probit scale."""

    difficulty: float = 1.0
    taste: float = 0.5
    luck: float = 0.03
    shift: float = 0.05
    later: float = 0.05
    leaning: float = 0.3

    def offset(self, recall: float) -> float:
        """Return m for a recall."""
        total = 1 + self.difficulty**2 + self.taste**2 + self.luck**2 + self.shift**2
        return float(ndtri(recall) * np.sqrt(total))


def simulate(
    rng: np.random.Generator, world: World, recalls: tuple[float, ...], studies: int, seeds: int, queries: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return hits (orders, studies, S, N) and the true recall of each study (orders, studies)."""
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
    """Return the coverage in percent of the 95 % intervals of a recall and of a paired difference."""
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


def nested(
    rng: np.random.Generator,
    world: World,
    recalls: tuple[float, ...],
    studies: int,
    sharing: tuple[int, ...],
    queries: int,
) -> tuple[list[Runs], np.ndarray]:
    """Simulate runs that share first stages.

    Args:
        sharing: Number of runs that share each first stage.

    Returns:
        The runs of each order, with values (studies, R, N), and the true recall of each study (orders, studies).
    """
    f, normal = np.float32, rng.standard_normal
    first = np.repeat(np.arange(len(sharing)), sharing)
    variance = 1 + world.difficulty**2 + world.taste**2 + world.leaning**2 + world.later**2
    of_stages = world.luck**2 + world.shift**2
    difficulty = f(world.difficulty) * normal((studies, 1, queries), f)
    luck = f(world.luck) * normal((studies, len(sharing), 1), f)
    orders, truths = [], []
    for recall in recalls:
        offset = float(ndtri(recall) * np.sqrt(variance + of_stages))
        shift = luck + f(world.shift) * normal(luck.shape, f)
        stage = shift + f(world.leaning) * normal((studies, len(sharing), queries), f)
        later = f(world.later) * normal((studies, len(first), 1), f)
        taste = f(world.taste) * normal((studies, 1, queries), f)
        level = f(offset) + difficulty + taste + stage[:, first] + later
        hits = (rng.random(level.shape, f) < ndtr(level)).astype(f)
        orders.append(Runs(hits, tuple(first.tolist()), tuple(range(len(first)))))
        conditional = ndtr((offset + shift[:, 0, 0]) / np.sqrt(variance))
        truths.append(conditional if len(sharing) == 1 else np.full(studies, recall))
    return orders, np.stack(truths)


def nested_coverage(
    rng: np.random.Generator,
    world: World,
    recalls: tuple[float, float],
    sharing: tuple[int, ...],
    queries: int,
    studies: int,
) -> tuple[float, float]:
    """Return the coverage in percent as `coverage` does, for runs that share first stages."""
    single = paired = 0
    block = max(1, 2_000_000 // (sum(sharing) * queries))
    for start in range(0, studies, block):
        orders, truth = nested(rng, world, recalls, min(block, studies - start), sharing, queries)
        first, second = (runs.replicates for runs in orders)
        of, num_runs = spread(first), sum(sharing)
        low, high = wilson(of.mean, half_width(of, 0.05), 0.05, queries, first.shape[-2], num_runs * queries)
        single += int(((low <= truth[0]) & (truth[0] <= high)).sum())
        between = difference_spread(first, second, True)
        paired += int((two_sided(between.mean - (truth[0] - truth[1]), between) >= 0.05).sum())
    return 100 * single / studies, 100 * paired / studies


def bootstrap_coverage(
    rng: np.random.Generator, world: World, recall: float, seeds: int, queries: int, studies: int, draws: int = 400
) -> tuple[float, float]:
    """Return the coverage of percentile bootstraps of a recall that resample seeds and queries, or queries alone."""
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


def seen(
    rng: np.random.Generator, world: World, recalls: tuple[float, float], seeds: int, queries: int, studies: int
) -> tuple[float, float]:
    """Return the observed power and the power predicted from the variance components of much larger samples, in percent."""
    parts = []
    for _ in range(8):
        large, _ = simulate(rng, world, recalls, 1, 200, 2000)
        parts.append(components(large[0, 0].astype(np.float64) - large[1, 0]))
    of = replace(
        parts[0], **{name: float(np.mean([getattr(x, name) for x in parts])) for name in ("seed", "query", "residual")}
    )
    found, block = 0, max(1, 4_000_000 // (seeds * queries))
    for start in range(0, studies, block):
        hits, _ = simulate(rng, world, recalls, min(block, studies - start), seeds, queries)
        between = difference_spread(hits[0].astype(np.float32), hits[1].astype(np.float32), True)
        sign = np.sign(recalls[0] - recalls[1])
        found += int(((two_sided(between.mean, between) < 0.05) & (np.sign(between.mean) == sign)).sum())
    return 100 * found / studies, 100 * predicted_power(100 * (recalls[0] - recalls[1]), seeds, queries, of)


def winners(
    rng: np.random.Generator, world: World, recalls: tuple[float, ...], seeds: int, queries: int, studies: int
) -> float:
    """Return the percentage of studies that declare a winner although the best two or more orders are equal."""
    declared = 0
    for _ in range(studies):
        hits, _ = simulate(rng, world, recalls, 1, seeds, queries)
        orders = {f"o{i}": hits[i, 0] for i in range(len(recalls))}
        declared += compare_orders(orders, explain=False).winner is not None
    return 100 * declared / studies


def tails(rng: np.random.Generator, seeds: int, alpha: float, draws: int = 40_000) -> tuple[str, str]:
    """Return the lowest and highest coverage, in percent, with the tail in use and with Satterthwaite's.

    The values are normal with many queries, over various shares of the variance between seeds.
    """
    used, other = [], []
    for share in (0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0):
        distance = rng.standard_normal(draws)
        between = share * rng.chisquare(seeds - 1, draws) / (seeds - 1)
        total = 1 - share + between
        df = np.clip(total**2 / np.maximum(between**2 / (seeds - 1), 1e-12), seeds - 1, 1e9)
        of = Spread(0.0, np.full(draws, 1 - share), between, 1_000_000, seeds - 1)
        used.append(100 * np.mean(two_sided(distance, of) >= alpha))
        other.append(100 * np.mean(2 * stdtr(df, -np.abs(distance) / np.sqrt(total)) >= alpha))
    return f"{min(used):.1f} to {max(used):.1f}", f"{min(other):.1f} to {max(other):.1f}"


def cell(values: list[tuple[float, float]], asked: bool) -> tuple[str, str]:
    """Return the figures of a row, and the number of them between 93 and 97 %."""
    figures = ", ".join(f"{a:.1f} / {b:.1f}" for a, b in values)
    flat = [x for pair in values for x in pair]
    inside = sum(93 <= x <= 97 for x in flat)
    return figures, f"93 to 97 ({inside} of {len(flat)})" if asked else ""


def shared_first_stages(studies: int) -> None:
    """Record the coverage for runs that share first stages."""
    rng, began = np.random.default_rng(0), time.monotonic()
    usual, very = World(), World(luck=0.15, shift=0.15, later=0.15)
    rows, lowest = [], 100.0
    for sharing in ((3,), (10,), (3, 3), (3, 3, 3), (1, 1, 4), (3,) * 5, (1, 2, 3, 1, 4), (3,) * 10):
        for world, queries in ((usual, 131), (usual, 1000), (very, 1000)):
            found = [nested_coverage(rng, world, pair, sharing, queries, studies) for pair in PAIRS]
            lowest = min(lowest, *map(min, found))
            name = "variable seeds, " if world is very else ""
            each = f"{sharing[0]} each" if len(set(sharing)) == 1 else ", ".join(map(str, sharing))
            strict = len(sharing) >= 5 and queries >= 1000
            what = f"coverage %, {name}{len(sharing)} first stages (runs: {each}), N = {queries}"
            figures, inside = cell(found, True)
            rows.append((what, figures, inside if strict else "at least 93"))
            print(rows[-1], flush=True)
    rows.append(("lowest coverage", f"{lowest:.1f}", "at least 93"))
    record(
        "bench_statistics.py --part shared",
        f"Statistics for runs that share first stages, {studies} simulated studies per setting",
        rows,
        f'Coverage of 95 % intervals (recall / paired difference), for the recalls of the section "Statistics, {studies} '
        'simulated studies per setting". With one first stage, the true recall is that of all runs that continue it. '
        f"{time.monotonic() - began:.0f} s on one core.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument(
        "--part",
        choices=("own", "shared"),
        help="runs with seeds of their own, or with shared first stages (default: both)",
    )
    chosen = parser.parse_args()
    if chosen.part != "shared":
        own_seeds(chosen.studies)
    if chosen.part != "own":
        shared_first_stages(chosen.studies)


def own_seeds(studies: int) -> None:
    """Record the coverage, the winners and the power for runs with seeds of their own."""
    rng, began = np.random.default_rng(0), time.monotonic()
    rows: list[tuple[str, str, str]] = []
    usual, unsteady = World(), World(luck=0.15, shift=0.15)
    settings = [(usual, s, n) for s in (1, 2, 3, 5, 10) for n in (131, 1000, 3350)]
    lowest, highest = 100.0, 0.0
    for world, seeds, queries in settings + [(unsteady, s, 1000) for s in (2, 3, 5, 10)]:
        found = [coverage(rng, world, pair, seeds, queries, studies) for pair in PAIRS]
        lowest, highest = min(lowest, *map(min, found)), max(highest, *map(max, found))
        name = "variable seeds, " if world is unsteady else ""
        rows.append((f"coverage %, {name}S = {seeds}, N = {queries}", *cell(found, True)))
        print(rows[-1], flush=True)
    rows.append(("lowest and highest coverage", f"{lowest:.1f}, {highest:.1f}", "93, 97"))
    for alpha, name in ((0.05, "95"), (0.05 / 6, "99.17 (Holm, six pairs)")):
        for seeds in (2, 3, 5, 10):
            used, other = tails(rng, seeds, alpha)
            what = f"normal values, S = {seeds}, level {name}: Behrens-Fisher (used); Satterthwaite (not used)"
            rows.append((what, f"{used}; {other}", ""))
    for seeds in (3, 10):
        crossed, alone = bootstrap_coverage(rng, unsteady, 0.3, seeds, 1000, studies // 4)
        what = f"percentile bootstrap, variable seeds, S = {seeds}, N = 1000: seeds and queries; queries alone"
        rows.append((what, f"{crossed:.1f}; {alone:.1f} ({studies // 4} studies)", "not used"))
    tenth = (0.1, 0.1, 0.1)
    for world, recalls, seeds, queries in (
        (usual, tenth, 3, 1000),
        (usual, (*tenth, 0.1), 5, 131),
        (unsteady, tenth, 2, 131),
        (usual, (0.3, 0.3, 0.1), 3, 1000),
        (unsteady, (0.3, 0.3, 0.05), 5, 1000),
    ):
        share = winners(rng, world, recalls, seeds, queries, studies)
        name = "variable seeds, " if world is unsteady else ""
        levels = ", ".join(f"{100 * x:g}" for x in recalls)
        rows.append((f"winner %, {name}true recalls {levels}, S = {seeds}, N = {queries}", f"{share:.2f}", "at most 5"))
    worst = 0.0
    for seeds, queries, gains in (
        (2, 3350, (0.02, 0.04, 0.08)),
        (3, 1000, (0.015, 0.025, 0.04)),
        (5, 131, (0.03, 0.05, 0.08)),
        (10, 1000, (0.008, 0.012, 0.018)),
    ):
        found = [seen(rng, usual, (0.1 + gain, 0.1), seeds, queries, studies) for gain in gains]
        worst = max(worst, *(abs(a - b) for a, b in found))
        figures = ", ".join(f"+{100 * g:g}: {a:.1f} / {b:.1f}" for g, (a, b) in zip(gains, found, strict=True))
        rows.append((f"power %, observed / predicted, R 10 %, S = {seeds}, N = {queries}", figures, "within 5"))
    rows.append(("power: largest difference from the prediction, points", f"{worst:.1f}", "at most 5"))
    record(
        "bench_statistics.py",
        f"Statistics, {studies} simulated studies per setting",
        rows,
        "Coverage of 95 % intervals (recall / paired difference), for recalls of "
        + ", ".join(f"{100 * a:g} (and {100 * b:g})" for a, b in PAIRS)
        + " %. With two or three seeds, the coverage exceeds 97 % if the variation between seeds is at most as "
        "large as that between queries. So does the coverage of differences with few hits (R 2 %, N 131). Both "
        "intervals are wide on purpose. With one seed, the true recall is that of the trained model. "
        f"{time.monotonic() - began:.0f} s on one core.",
    )


if __name__ == "__main__":
    main()
