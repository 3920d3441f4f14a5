"""Comparison of orders: which order is best as far as the evidence shows, and whether this differs between benchmarks.

An order is the winner if its recall is higher than that of every other order with a Holm-adjusted p-value below 1 - level.
Otherwise the verdict is "not distinguishable", with an estimate of the study that would be needed. A single seed can distinguish
trained models but not orders, so it never has a winner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.power import queries_needed, seeds_needed
from trichord.evaluation.replication import Runs, matched
from trichord.evaluation.statistics import (
    Difference,
    Interval,
    check_level,
    difference_spread,
    holm,
    mean_interval,
    paired_difference,
)
from trichord.evaluation.variance import Spread, half_width, independent_spread, table_of_hits, two_sided


@dataclass(frozen=True)
class Comparison:
    """Comparison of all orders on one benchmark.

    Attributes:
        recalls: Recall of each order with its interval.
        differences: Differences of all pairs of orders.
        winner: Name of the best order; None if the evidence does not show one.
        verdict: Sentence that describes the result.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> hits = {order: rng.random((3, 500)) < recall for order, recall in {"av>t": 0.6, "avt": 0.3}.items()}
        >>> comparison = compare_orders(hits)
        >>> print(comparison.recalls["av>t"])
        58.9 [53.7, 64.0]
        >>> comparison.verdict
        'av>t beats every other order (Holm-adjusted p at most 0.011)'
    """

    recalls: dict[str, Interval]
    differences: tuple[Difference, ...]
    winner: str | None
    verdict: str


@dataclass(frozen=True)
class Interaction:
    """Difference between two benchmarks in the comparison of one pair of orders, in points.

    Attributes:
        a: Name of the first order.
        b: Name of the second order.
        estimate: (recall of a - recall of b) on benchmark 1 minus the same difference on benchmark 2.
        low: Lower end of the interval of the estimate.
        high: Upper end of the interval of the estimate.
        level: Level of the interval.
        p: Two-sided p-value of the estimate.
        p_adjusted: `p` adjusted by Holm's method over all pairs.
        p_crossing: P-value of the test for a change of the sign of the difference (Gail and Simon, Biometrics 41, 1985): for two
            benchmarks, the larger of the two one-sided p-values; 1 if both estimates have the same sign.
        p_crossing_adjusted: `p_crossing` adjusted by Holm's method over all pairs.
        first: Difference of the pair on benchmark 1.
        second: Difference of the pair on benchmark 2.
        note: Restriction on the meaning of the figures, or ''.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> one, two = ({"av>t": rng.random((3, 400)) < r, "avt": rng.random((3, 400)) < 0.5} for r in (0.8, 0.5))
        >>> (pair,), verdict = interaction(one, two)
        >>> round(pair.first.estimate, 1), round(pair.second.estimate, 1), round(pair.estimate, 1)
        (24.5, 1.9, 22.6)
    """

    a: str
    b: str
    estimate: float
    low: float
    high: float
    level: float
    p: float
    p_adjusted: float
    p_crossing: float
    p_crossing_adjusted: float
    first: Difference
    second: Difference
    note: str = ""


def _tables(hits: Mapping[str, Any], where: str, bounded: bool = True) -> dict[str, Runs]:
    """Return the runs of each order, after checking that all have the same number of queries."""
    if len(hits) < 2:
        raise TrichordError(f"{where}: a comparison needs at least two orders, not {len(hits)}; give two or more")
    tables = {}
    for name, values in hits.items():
        runs = Runs.of(values)
        tables[name] = runs.with_values(table_of_hits(runs.values, f"{where}: order {name}", bounded))
    first_name = next(iter(tables))
    for name, runs in tables.items():
        if runs.values.shape[1] != tables[first_name].values.shape[1]:
            raise TrichordError(
                f"{where}: {first_name} has {tables[first_name].values.shape[1]} queries and {name} has {runs.values.shape[1]}; "
                "compare runs over the same queries"
            )
    return tables


def compare_orders(
    hits: Mapping[str, Any],
    level: float = 0.95,
    *,
    benchmark: str = "benchmark",
    explain: bool = True,
) -> Comparison:
    """Compare orders by a recall on one benchmark.

    Args:
        hits: For each order the hits (S, N) or (N,) or `Runs`, over the same N queries in the same sequence. Two orders are
            compared over the seeds they have in common, seed by seed, if there are at least two.
        level: Level of the intervals of the recalls, of the unadjusted intervals of the differences, and of the family of all
            pairs (Holm).
        benchmark: Name of the benchmark, for error messages.
        explain: Whether the verdict includes the size of the study that would be needed, which takes some tenths of a second.

    Returns:
        The comparison of all orders.

    Raises:
        TrichordError: There are fewer than two orders, or the numbers of queries differ.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> hits = {order: (rng.random((3, 500)) < recall) * 1.0 for order, recall in {"av>t": 0.6, "avt": 0.3}.items()}
        >>> compare_orders(hits, explain=False).winner
        'av>t'
    """
    return compare_on_benchmarks({benchmark: hits}, level, explain=explain)[benchmark]


def compare_on_benchmarks(
    hits: Mapping[str, Mapping[str, Any]],
    level: float = 0.95,
    *,
    explain: bool = True,
    bounded: bool = True,
) -> dict[str, Comparison]:
    """Compare orders by a recall on several benchmarks of one study.

    The family of Holm's correction consists of all pairs on all benchmarks. If all orders are equal, a study therefore names a
    winner on any benchmark with a probability of at most 1 - level.

    Args:
        hits: For each benchmark the hits of each order, as in `compare_orders`.
        level: Level of the intervals and of the family of all pairs, as in `compare_orders`.
        explain: Whether the verdicts include the size of the study that would be needed.
        bounded: Whether values must lie in [0, 1]; False for values of `evaluation.contributions`.

    Returns:
        The comparison of all orders by benchmark.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> orders = {"av>t": 0.6, "avt": 0.3}
        >>> hits = {name: {o: rng.random((3, 400)) < r for o, r in orders.items()} for name in ("youcook2", "msrvtt")}
        >>> {name: comparison.winner for name, comparison in compare_on_benchmarks(hits).items()}
        {'youcook2': 'av>t', 'msrvtt': 'av>t'}
    """
    alpha = check_level(level)
    recalls, unadjusted = {}, {}
    for benchmark, hits_by_order in hits.items():
        tables = _tables(hits_by_order, benchmark, bounded)
        recalls[benchmark] = {name: mean_interval(runs, level) for name, runs in tables.items()}
        unadjusted[benchmark] = [
            paired_difference(tables[a], tables[b], level, names=(a, b), bounded=False)
            for a, b in combinations(tables, 2)
        ]
    adjusted = iter(holm([pair.p for pairs in unadjusted.values() for pair in pairs]))
    num_pairs = sum(map(len, unadjusted.values()))
    differences = {
        benchmark: tuple(replace(pair, p_adjusted=float(next(adjusted))) for pair in pairs)
        for benchmark, pairs in unadjusted.items()
    }
    return {name: _decided(recalls[name], differences[name], level, alpha, num_pairs, explain) for name in hits}


def _decided(
    recalls: dict[str, Interval],
    differences: tuple[Difference, ...],
    level: float,
    alpha: float,
    num_pairs: int,
    explain: bool,
) -> Comparison:
    best, *tied = leaders({name: recall.estimate for name, recall in recalls.items()})
    differences_to_best = [pair for pair in differences if best in (pair.a, pair.b)]
    open_pairs = [pair for pair in differences_to_best if not pair.p_adjusted < alpha]
    if any(recall.num_seeds == 1 for recall in recalls.values()):
        standing = f"{listed([best, *tied])} are tied" if tied else f"{best} is ahead"
        verdict = (
            f"not distinguishable: {standing}, but with one seed, trained models are compared, not orders; "
            "train three or more seeds"
        )
        return Comparison(recalls, differences, None, verdict)
    if not open_pairs:
        largest = max(pair.p_adjusted for pair in differences_to_best)
        return Comparison(
            recalls, differences, best, f"{best} beats every other order (Holm-adjusted p at most {largest:.2g})"
        )
    if not explain:
        return Comparison(recalls, differences, None, "not distinguishable")
    hardest = max(open_pairs, key=lambda pair: pair.p_adjusted)
    return Comparison(recalls, differences, None, f"not distinguishable: {what_it_takes(hardest, level, num_pairs)}")


def leaders(estimates: Mapping[str, float]) -> list[str]:
    """Return the names with the highest value, several if they are tied.

    Example:
        >>> leaders({"av>t": 41.0, "at>v": 38.5, "avt": 41.0})
        ['av>t', 'avt']
    """
    highest = max(estimates.values())
    return [name for name, value in estimates.items() if math.isclose(value, highest, rel_tol=1e-9, abs_tol=1e-12)]


def listed(names: Sequence[str]) -> str:
    """Join names as `a`, `a and b` or `a, b and c`.

    >>> listed(["AV→T", "AT→V", "AVT"])
    'AV→T, AT→V and AVT'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def what_it_takes(pair: Difference, level: float = 0.95, num_pairs: int = 1, power: float = 0.8) -> str:
    """Describe the size of the study that would show the difference of `pair` if it is as large as estimated.

    Args:
        pair: The difference of two orders.
        level: Level of the family of pairs.
        num_pairs: Number of pairs in the family.
        power: Probability with which the study should show the difference.

    Example:
        >>> one, two = [1] * 60 + [0] * 40, [1] * 52 + [0] * 43 + [1] * 5  # 60 and 57 hits in 100 queries
        >>> pair = paired_difference(one, two, names=("av>t", "avt"))
        >>> print(what_it_takes(pair))
        av>t is 3.00 points ahead of avt (adjusted p 0.44); train more seeds to estimate the size of the study that would
        show it
    """
    if pair.estimate == 0:
        return f"{pair.a} and {pair.b} are tied (adjusted p {pair.p_adjusted:.2g})"
    ahead, behind = (pair.a, pair.b) if pair.estimate > 0 else (pair.b, pair.a)
    standing = f"{ahead} is {abs(pair.estimate):.2f} points ahead of {behind} (adjusted p {pair.p_adjusted:.2g})"
    if pair.components is None:
        return standing
    if pair.num_seeds == 1:
        return standing + "; train more seeds to estimate the size of the study that would show it"
    seeds = seeds_needed(
        pair.estimate, pair.num_queries, pair.components, power=power, level=level, num_pairs=num_pairs
    )
    queries = queries_needed(
        pair.estimate, pair.components, [pair.num_seeds], power=power, level=level, num_pairs=num_pairs
    )[0]
    by_seeds = "more than 200 seeds" if seeds is None else f"{seeds} seeds"
    by_queries = (
        f"no number of queries with {pair.num_seeds} seeds" if queries.num_queries is None
        else f"{queries.num_queries:,} queries with {pair.num_seeds} seeds"
    )  # fmt: skip
    return (
        f"{standing}; a study that shows a difference of this size with power {power:g} needs {by_seeds} on "
        f"{pair.num_queries:,} queries, or {by_queries}"
    )


def _contrast(one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> Spread:
    """Return the spread of (a - b on benchmark 1) - (a - b on benchmark 2).

    The benchmarks share no query. If all four arrays have the same number of seeds, seed i is the same model on both benchmarks.
    """
    parts = difference_spread(*one, len(one[0]) == len(one[1])), difference_spread(*two, len(two[0]) == len(two[1]))
    mean, within = parts[0].mean - parts[1].mean, parts[0].within + parts[1].within
    query_df = min(parts[0].query_df, parts[1].query_df)
    counts = {len(values) for values in (*one, *two)}
    if len(counts) > 1:
        return independent_spread(mean, within, query_df, parts)
    num_seeds = counts.pop()
    if num_seeds == 1:
        return Spread(mean, within, np.zeros(()), query_df, 0)
    contrast_of_seed = (one[0] - one[1]).mean(1) - (two[0] - two[1]).mean(1)
    return Spread(mean, within, contrast_of_seed.var(ddof=1) / num_seeds, query_df, num_seeds - 1)


def interaction(
    hits_1: Mapping[str, Any], hits_2: Mapping[str, Any], level: float = 0.95
) -> tuple[tuple[Interaction, ...], str]:
    """Test whether the comparison of orders differs between two benchmarks.

    There are two tests for every pair of orders. The interaction contrast shows that a difference is larger on one benchmark. The
    test of crossing of Gail and Simon shows that a different order is ahead; only this test concerns the best order.

    Args:
        hits_1: For each order the hits (S, N) on benchmark 1, or `Runs`.
        hits_2: For each order the hits (S, M) on benchmark 2, or `Runs`. The seeds that all orders have in common on both
            benchmarks are paired if there are at least two. If arrays have the same number of rows, row i is the same trained
            model in all of them.
        level: Level of the intervals of the contrasts and of the families of pairs.

    Returns:
        The interaction of every pair of orders, and a sentence that describes the result.

    Raises:
        TrichordError: The benchmarks have different orders.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> one, two = ({"av>t": rng.random((3, 400)) < r, "avt": rng.random((3, 400)) < 0.5} for r in (0.8, 0.5))
        >>> pairs, verdict = interaction(one, two)
        >>> verdict
        'differences vary between the benchmarks (av>t against avt), but no two orders change places significantly'
    """
    if set(hits_1) != set(hits_2):
        raise TrichordError(
            f"benchmark 1 has the orders {', '.join(hits_1)} and benchmark 2 {', '.join(hits_2)}; compare the same orders"
        )
    alpha, tables = check_level(level), (_tables(hits_1, "benchmark 1"), _tables(hits_2, "benchmark 2"))
    matched_runs = iter(matched(*(table[name] for table in tables for name in hits_1)))
    one, two = ({name: next(matched_runs) for name in hits_1} for _ in tables)
    interactions = []
    for a, b in combinations(one, 2):
        contrast = _contrast(*((table[a].replicates, table[b].replicates) for table in (one, two)))
        first = paired_difference(one[a], one[b], level, names=(a, b))
        second = paired_difference(two[a], two[b], level, names=(a, b))
        crosses = first.estimate * second.estimate < 0
        half_width_of_contrast = float(half_width(contrast, alpha))
        p, crossing = float(two_sided(contrast.mean, contrast)), max(first.p, second.p) / 2 if crosses else 1.0
        low, high = max(contrast.mean - half_width_of_contrast, -2.0), min(contrast.mean + half_width_of_contrast, 2.0)
        interactions.append(
            Interaction(
                a,
                b,
                100 * float(contrast.mean),
                100 * float(low),
                100 * float(high),
                level,
                p,
                p,
                crossing,
                crossing,
                first,
                second,
                min(first, second, key=lambda pair: pair.num_seeds).note,
            )  # fmt: skip
        )
    adjusted, crossings = holm([x.p for x in interactions]), holm([x.p_crossing for x in interactions])
    pairs = tuple(
        replace(x, p_adjusted=float(p), p_crossing_adjusted=float(q))
        for x, p, q in zip(interactions, adjusted, crossings, strict=True)
    )
    return pairs, _interaction_verdict(pairs, alpha)


def _interaction_verdict(pairs: tuple[Interaction, ...], alpha: float) -> str:
    if any(min(x.first.num_seeds, x.second.num_seeds) == 1 for x in pairs):
        return "not distinguishable: with one seed, trained models are compared, not orders; train three or more seeds"
    crossed = [x for x in pairs if x.p_crossing_adjusted < alpha]
    if crossed:
        ahead = [(x.a, x.b) if x.first.estimate > 0 else (x.b, x.a) for x in crossed]
        return "; ".join(f"{a} beats {b} on benchmark 1, and {b} beats {a} on benchmark 2" for a, b in ahead)
    larger = [x for x in pairs if x.p_adjusted < alpha]
    if larger:
        names = ", ".join(f"{x.a} against {x.b}" for x in larger)
        return f"differences vary between the benchmarks ({names}), but no two orders change places significantly"
    return "not distinguishable: no difference between two orders varies significantly between the benchmarks"
