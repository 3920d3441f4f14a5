"""Which order is best, where the evidence says so; and whether that is another one on another benchmark.

A winner is an order whose recall differs from that of every other with Holm-adjusted p below 1 - level. Otherwise the
verdict is "not distinguishable", and what it would take. One seed tells trained models apart, never orders: no winner.
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
    """All orders of one benchmark. recalls: by order. differences: of all pairs. winner: None where none is carried by
    the evidence. verdict: a sentence."""

    recalls: dict[str, Interval]
    differences: tuple[Difference, ...]
    winner: str | None
    verdict: str


@dataclass(frozen=True)
class Interaction:
    """Of one pair of orders: how far their difference on benchmark 1 differs from that on benchmark 2, in points.

    p: of the contrast, two-sided. p_crossing: that the sign differs too (Gail and Simon, Biometrics 41, 1985; for two
    benchmarks, the larger of the two one-sided p-values; 1 where the estimates have one sign). *_adjusted: Holm's over all
    pairs. first, second: the pair on each benchmark.
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
    """Every order's hits, checked to be over equally many queries."""
    if len(hits) < 2:
        raise TrichordError(f"{where}: {len(hits)} order has nothing to be compared with; give two or more")
    tables = {}
    for name, values in hits.items():
        runs = Runs.of(values)
        tables[name] = runs.with_values(table_of_hits(runs.values, f"{where}: order {name}", bounded))
    base = next(iter(tables))
    for name, runs in tables.items():
        if runs.values.shape[1] != tables[base].values.shape[1]:
            raise TrichordError(
                f"{where}: {base} has {tables[base].values.shape[1]} queries and {name} has {runs.values.shape[1]}; "
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
        hits: of each order, (S, N) or (N,) or `Runs`, the same N queries in the same order. Two orders are compared over their
            common seeds, seed by seed, where they have two or more.
        level: of the recalls' intervals, of the differences' (not adjusted), and of the family of all pairs (Holm).
        benchmark: its name, for errors.
        explain: whether the verdict says what it would take, which costs some tenths of a second.
    """
    return compare_on_benchmarks({benchmark: hits}, level, explain=explain)[benchmark]


def compare_on_benchmarks(
    hits: Mapping[str, Mapping[str, Any]],
    level: float = 0.95,
    *,
    explain: bool = True,
    bounded: bool = True,
) -> dict[str, Comparison]:
    """Compare orders by a recall on several benchmarks of one study: Holm's family is all pairs on all of them, so that a
    study in which all orders are equal names a winner anywhere with probability 1 - level at most.

    Arguments as of `compare_orders`, by benchmark. bounded: whether values must lie in [0, 1]; False for those of
    `evaluation.contributions`.
    """
    alpha = check_level(level)
    recalls, found = {}, {}
    for benchmark, of in hits.items():
        tables = _tables(of, benchmark, bounded)
        recalls[benchmark] = {name: mean_interval(runs, level) for name, runs in tables.items()}
        found[benchmark] = [
            paired_difference(tables[a], tables[b], level, names=(a, b), bounded=False)
            for a, b in combinations(tables, 2)
        ]
    adjusted = iter(holm([pair.p for pairs in found.values() for pair in pairs]))
    num_pairs = sum(map(len, found.values()))
    differences = {
        benchmark: tuple(replace(pair, p_adjusted=float(next(adjusted))) for pair in pairs)
        for benchmark, pairs in found.items()
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
    best, *level_with_it = leaders({name: recall.estimate for name, recall in recalls.items()})
    against = [pair for pair in differences if best in (pair.a, pair.b)]
    open_pairs = [pair for pair in against if not pair.p_adjusted < alpha]
    if any(recall.num_seeds == 1 for recall in recalls.values()):
        told = f"{listed([best, *level_with_it])} are level" if level_with_it else f"{best} is ahead"
        verdict = f"not distinguishable: {told}, but one seed compares trained models, not orders; train three or more"
        return Comparison(recalls, differences, None, verdict)
    if not open_pairs:
        largest = max(pair.p_adjusted for pair in against)
        return Comparison(
            recalls, differences, best, f"{best} beats every other order (Holm-adjusted p at most {largest:.2g})"
        )
    if not explain:
        return Comparison(recalls, differences, None, "not distinguishable")
    hardest = max(open_pairs, key=lambda pair: pair.p_adjusted)
    return Comparison(recalls, differences, None, f"not distinguishable: {what_it_takes(hardest, level, num_pairs)}")


def leaders(estimates: Mapping[str, float]) -> list[str]:
    """The names with the highest value: several at a tie."""
    highest = max(estimates.values())
    return [name for name, value in estimates.items() if math.isclose(value, highest, rel_tol=1e-9, abs_tol=1e-12)]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def what_it_takes(pair: Difference, level: float = 0.95, num_pairs: int = 1, power: float = 0.8) -> str:
    """How large a study would see the difference of `pair`, were it as large as estimated."""
    if pair.estimate == 0:
        return f"{pair.a} and {pair.b} are level (adjusted p {pair.p_adjusted:.2g})"
    ahead, behind = (pair.a, pair.b) if pair.estimate > 0 else (pair.b, pair.a)
    told = f"{ahead} is {abs(pair.estimate):.2f} points ahead of {behind} (adjusted p {pair.p_adjusted:.2g})"
    if pair.components is None:
        return told
    if pair.num_seeds == 1:
        return told + "; more seeds would tell what it takes"
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
    return f"{told}; to see that much with power {power:g} takes {by_seeds} on {pair.num_queries:,} queries, or {by_queries}"


def _contrast(one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> Spread:
    """Spread of (a - b on benchmark 1) - (a - b on benchmark 2). The benchmarks share no query; seed i is the same model
    on both where all four have as many seeds."""
    parts = difference_spread(*one, len(one[0]) == len(one[1])), difference_spread(*two, len(two[0]) == len(two[1]))
    mean, within = parts[0].mean - parts[1].mean, parts[0].within + parts[1].within
    query_df = min(parts[0].query_df, parts[1].query_df)
    counts = {len(values) for values in (*one, *two)}
    if len(counts) > 1:
        return independent_spread(mean, within, query_df, parts)
    num_seeds = counts.pop()
    if num_seeds == 1:
        return Spread(mean, within, np.zeros(()), query_df, 0)
    of_seeds = (one[0] - one[1]).mean(1) - (two[0] - two[1]).mean(1)
    return Spread(mean, within, of_seeds.var(ddof=1) / num_seeds, query_df, num_seeds - 1)


def interaction(
    hits_1: Mapping[str, Any], hits_2: Mapping[str, Any], level: float = 0.95
) -> tuple[tuple[Interaction, ...], str]:
    """Does the comparison of orders come out differently on two benchmarks?

    Two tests for every pair of orders: the interaction contrast, which sees that a difference is larger on one benchmark,
    and Gail and Simon's of crossing, which sees that another order is ahead. Only the second speaks of "the best order".

    Args:
        hits_1, hits_2: of each order, (S, N) on benchmark 1 and (S, M) on benchmark 2, or `Runs`. Seeds that all have in common
            are paired where there are two or more; of arrays with equal S row i is the same trained model on both.
        level: of the contrast's intervals and of the families of pairs.

    Returns:
        The pairs, and a sentence.
    """
    if set(hits_1) != set(hits_2):
        raise TrichordError(
            f"benchmark 1 has the orders {', '.join(hits_1)} and benchmark 2 {', '.join(hits_2)}; compare the same orders"
        )
    alpha, tables = check_level(level), (_tables(hits_1, "benchmark 1"), _tables(hits_2, "benchmark 2"))
    every = iter(matched(*(table[name] for table in tables for name in hits_1)))
    one, two = ({name: next(every) for name in hits_1} for _ in tables)
    found = []
    for a, b in combinations(one, 2):
        of = _contrast(*((table[a].replicates, table[b].replicates) for table in (one, two)))
        first = paired_difference(one[a], one[b], level, names=(a, b))
        second = paired_difference(two[a], two[b], level, names=(a, b))
        crosses = first.estimate * second.estimate < 0
        half = float(half_width(of, alpha))
        p, crossing = float(two_sided(of.mean, of)), max(first.p, second.p) / 2 if crosses else 1.0
        low, high = max(of.mean - half, -2.0), min(of.mean + half, 2.0)
        found.append(
            Interaction(
                a,
                b,
                100 * float(of.mean),
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
    adjusted, crossings = holm([x.p for x in found]), holm([x.p_crossing for x in found])
    pairs = tuple(
        replace(x, p_adjusted=float(p), p_crossing_adjusted=float(q))
        for x, p, q in zip(found, adjusted, crossings, strict=True)
    )
    return pairs, _interaction_verdict(pairs, alpha)


def _interaction_verdict(pairs: tuple[Interaction, ...], alpha: float) -> str:
    if any(min(x.first.num_seeds, x.second.num_seeds) == 1 for x in pairs):
        return "not distinguishable: one seed compares trained models, not orders; train three or more"
    crossed = [x for x in pairs if x.p_crossing_adjusted < alpha]
    if crossed:
        ahead = [(x.a, x.b) if x.first.estimate > 0 else (x.b, x.a) for x in crossed]
        return "; ".join(f"{a} beats {b} on benchmark 1, and {b} beats {a} on benchmark 2" for a, b in ahead)
    larger = [x for x in pairs if x.p_adjusted < alpha]
    if larger:
        names = ", ".join(f"{x.a} against {x.b}" for x in larger)
        return f"differences vary between the benchmarks ({names}), but no two orders are seen to change places"
    return "not distinguishable: no difference between two orders is seen to vary between the benchmarks"
