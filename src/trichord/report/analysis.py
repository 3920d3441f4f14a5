"""What a study's runs say, in numbers: intervals, chance, comparisons of orders, and where they may not be compared.

A group is one benchmark in one direction. Its orders are compared over the same queries, so its runs must have met the same
clips under the same policies; otherwise `check_comparable` refuses, and names the difference.

Compared with each other are the orders that combine most modalities: a pair alone (`vt`) is shown beside them, but it is the
first stage of an order (`vt>a`), and where that order's later stage freezes it, the two have one and the same figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.comparison import Comparison, Interaction, compare_orders, interaction
from trichord.evaluation.statistics import Interval, chance_interval, hits_at, median_rank_interval, recall_interval
from trichord.modality import Direction, Order
from trichord.report.reading import Run, Study

RECALLS = (1, 5, 10)
MAIN_RECALL = 10


@dataclass(frozen=True, eq=False)
class Ranked:
    """Ranks of one order in a group: rows are seeds, columns the queries (with the missing ones under `miss`).

    Attributes:
        seeds: Of the rows.
        rank: (S, N) from 1; a tie has the mean of the tied ranks; a missing query that of a gallery with it, the last.
        equal: (S, N) gallery items that score as the truth does, itself included.
        lost: (S, N) queries that can be no hit at any K: missing, or with a score that is not a number.
    """

    seeds: tuple[int, ...]
    rank: np.ndarray
    equal: np.ndarray
    lost: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """(S, N) expected hits at K."""
        return np.where(self.lost, 0.0, hits_at(self.rank, k, self.equal))


@dataclass(frozen=True, eq=False)
class Group:
    """One benchmark in one direction. Intervals in percent, by order.

    Attributes:
        benchmark, title, direction: Which.
        orders: All orders that were scored, in the plan's order.
        compared: Those that the comparison is over.
        ranked: The ranks behind the figures.
        clip: (N,) number of the benchmark's clip of each query; missing ones come last.
        recalls: order -> K -> interval.
        median_rank: order -> interval.
        chance: K -> interval of one run.
        num_queries, num_gallery, num_missing: Sizes; queries count the missing ones under `miss`.
        missing, ties: Policies.
        comparisons: K -> comparison of `compared`; {} with fewer than two of them.
    """

    benchmark: str
    title: str
    direction: str
    orders: tuple[str, ...]
    compared: tuple[str, ...]
    ranked: dict[str, Ranked]
    clip: np.ndarray
    recalls: dict[str, dict[int, Interval]]
    median_rank: dict[str, Interval]
    chance: dict[int, Interval]
    num_queries: int
    num_gallery: int
    num_missing: int
    missing: str
    ties: str
    comparisons: dict[int, Comparison]

    @property
    def verdict(self) -> str:
        """What the main recall says of the orders."""
        if MAIN_RECALL in self.comparisons:
            return in_print(self.comparisons[MAIN_RECALL].verdict, self.compared)
        return "one order alone: nothing to compare"


def in_print(text: str, orders: tuple[str, ...]) -> str:
    """Codes of orders as they are printed: `av>t` -> `AV→T`."""
    import re

    for order in sorted(orders, key=len, reverse=True):
        text = re.sub(rf"(?<![\w>]){re.escape(order)}(?![\w>])", str(Order.parse(order)), text)
    return text


def check_comparable(study: Study) -> None:
    """Refuse a study whose runs were scored on different galleries, or under different policies.

    Raises TrichordError, which names two runs and the difference.
    """
    for benchmark in study.benchmarks:
        first: Run | None = None
        for run in study.done:
            if not any(row["benchmark"] == benchmark["name"] for row in run.results):
                continue
            if first is None:
                first, clips = run, study.clips(run, benchmark["name"])
                continue
            where = f"{study.path}: {first} and {run} cannot be compared on {benchmark['name']}"
            if why := difference_of_runs(first, run, benchmark["name"]):
                raise TrichordError(f"{where}: {why}; run the study again with one setting for all orders")
            if why := difference_of_clips(clips, study.clips(run, benchmark["name"])):
                raise TrichordError(f"{where}: {why}; run the study again on one store")


def difference_of_runs(one: Run, two: Run, benchmark: str) -> str:
    """In what the evaluation of two runs on a benchmark differs, in words; '' where they may be compared."""
    for key in sorted(set(one.evaluation) | set(two.evaluation)):
        if key in ("directions", "block"):
            continue
        if one.evaluation.get(key) != two.evaluation.get(key):
            return f"evaluation.{key} is {one.evaluation.get(key)} in one and {two.evaluation.get(key)} in the other"
    names = {"missing": "the missing-clip policy", "ties": "the tie policy", "num_gallery": "the gallery's size",
             "num_queries": "the number of queries"}  # fmt: skip
    for row in one.results:
        other = two.result(benchmark, row["direction"])
        if row["benchmark"] != benchmark or other is None:
            continue
        for key, name in names.items():
            if row.get(key) != other.get(key):
                return f"{name} in {row['direction']} is {row.get(key)} in one and {other.get(key)} in the other"
    return ""


def difference_of_clips(one: list[str], two: list[str]) -> str:
    """In what two lists of clips differ, in words; '' where they are the same."""
    if len(one) != len(two):
        return f"the galleries differ: {len(one)} clips and {len(two)}"
    for number, (a, b) in enumerate(zip(one, two, strict=True)):
        if a != b:
            return f"the galleries differ: clip {number} is {a} in one and {b} in the other"
    return ""


def analyse(study: Study, direction: str, *, level: float = 0.95, compare: bool = True) -> tuple[Group, ...]:
    """The groups of one direction, a benchmark each.

    Args:
        study: Whose runs passed `check_comparable`.
        direction: E.g. `t2v`. Orders that lack one of its modalities are left out.
        level: Of all intervals.
        compare: Whether orders are compared too; without it only their intervals are found.

    Raises TrichordError when no run was scored in that direction.
    """
    if direction not in study.directions:
        known = ", ".join(study.directions)
        raise TrichordError(f"{study.path}: no run was scored in direction '{direction}'; choose one of {known}")
    groups = (_group(study, benchmark, direction, level, compare) for benchmark in study.benchmarks)
    return tuple(group for group in groups if group is not None)


def _group(study: Study, benchmark: Mapping[str, object], direction: str, level: float, compare: bool) -> Group | None:
    name = str(benchmark["name"])
    runs = {
        order: found
        for order in study.orders
        if (found := [run for run in study.runs_of(order) if run.result(name, direction)])
    }
    if not runs:
        return None
    row = next(iter(runs.values()))[0].result(name, direction)
    assert row is not None
    num_lost = row["num_missing"] if row["missing"] == "miss" else 0
    ranked = {order: _ranked(study, found, name, direction, num_lost) for order, found in runs.items()}
    clip = study.ranks(next(iter(runs.values()))[0], name, direction).clip
    hits = {order: {k: values.hits(k) for k in RECALLS} for order, values in ranked.items()}
    most = max(len(Order.parse(order).modalities) for order in runs)
    compared = tuple(order for order in runs if len(Order.parse(order).modalities) == most)
    comparisons = {}
    if compare and len(compared) > 1:
        comparisons = {
            k: compare_orders({o: hits[o][k] for o in compared}, level, benchmark=name, explain=k == MAIN_RECALL)
            for k in RECALLS
        }
    share = len(clip) / row["num_queries"]
    return Group(
        benchmark=name,
        title=str(benchmark["title"]),
        direction=direction,
        orders=tuple(runs),
        compared=compared,
        ranked=ranked,
        clip=clip,
        recalls={o: {k: recall_interval(found, level) for k, found in by_k.items()} for o, by_k in hits.items()},
        median_rank={order: median_rank_interval(values.rank, level) for order, values in ranked.items()},
        chance={k: _chance(k, row["num_gallery"], row["num_queries"], share, level) for k in RECALLS},
        num_queries=row["num_queries"],
        num_gallery=row["num_gallery"],
        num_missing=row["num_missing"],
        missing=row["missing"],
        ties=row.get("ties", "expected"),
        comparisons=comparisons,
    )  # fmt: skip


def _chance(k: int, num_gallery: int, num_queries: int, share: float, level: float) -> Interval:
    """Chance where only a share of the queries can be found at all."""
    found = chance_interval(k, num_gallery, round(num_queries * share), level)
    return Interval(found.estimate * share, found.low * share, found.high * share, level, 0, num_queries, found.note)


def _ranked(study: Study, runs: list[Run], benchmark: str, direction: str, num_lost: int) -> Ranked:
    rows, equals, losts = [], [], []
    for run in runs:
        found = study.ranks(run, benchmark, direction)
        lost = found.greater >= found.num_gallery
        rank = np.minimum(1 + found.greater + (found.equal - 1) / 2, found.num_gallery)
        rows.append(np.concatenate([rank, np.full(num_lost, float(found.num_gallery + num_lost))]))
        equals.append(np.concatenate([found.equal, np.ones(num_lost, np.int64)]))
        losts.append(np.concatenate([lost, np.ones(num_lost, bool)]))
    return Ranked(tuple(run.seed for run in runs), np.stack(rows), np.stack(equals), np.stack(losts))


@dataclass(frozen=True)
class BenchmarkPair:
    """Whether the comparison of orders comes out differently on two benchmarks."""

    first: str
    second: str
    pairs: tuple[Interaction, ...]
    verdict: str


def interactions(groups: tuple[Group, ...], level: float = 0.95) -> tuple[BenchmarkPair, ...]:
    """For every two benchmarks: is the best order another one? At the main recall, over the orders that both have."""
    found = []
    for i, one in enumerate(groups):
        for two in groups[i + 1 :]:
            common = [order for order in one.compared if order in two.compared]
            if len(common) < 2:
                continue
            hits = [{o: group.ranked[o].hits(MAIN_RECALL) for o in common} for group in (one, two)]
            pairs, verdict = interaction(hits[0], hits[1], level)
            told = verdict.replace("benchmark 1", one.title).replace("benchmark 2", two.title)
            found.append(BenchmarkPair(one.title, two.title, pairs, in_print(told, tuple(common))))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Duel:
    """Two orders query by query. Ranks are means over seeds.

    Attributes:
        a, b: The orders.
        rank_a, rank_b: (N,).
        wins, ties, losses: Queries that `a` ranks better, alike, worse.
    """

    a: str
    b: str
    rank_a: np.ndarray
    rank_b: np.ndarray
    wins: int
    ties: int
    losses: int

    def furthest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The queries where `a`, and where `b`, is furthest ahead, by the ratio of the ranks."""
        ratio = np.log(self.rank_b) - np.log(self.rank_a)
        order = np.argsort(-ratio, kind="stable")
        return order[:count][ratio[order[:count]] > 0], order[::-1][:count][ratio[order[::-1][:count]] < 0]


def duel(group: Group) -> Duel | None:
    """The two compared orders that differ most clearly: smallest p at the main recall, then the largest difference."""
    if MAIN_RECALL not in group.comparisons:
        return None
    pair = min(group.comparisons[MAIN_RECALL].differences, key=lambda d: (d.p, -abs(d.estimate)))
    a, b = (pair.a, pair.b) if pair.estimate >= 0 else (pair.b, pair.a)
    rank_a, rank_b = (group.ranked[order].rank.mean(0)[: len(group.clip)] for order in (a, b))
    wins, losses = int((rank_a < rank_b).sum()), int((rank_a > rank_b).sum())
    return Duel(a, b, rank_a, rank_b, wins, len(rank_a) - wins - losses, losses)


def untouched(order: str, direction: str) -> bool:
    """Whether an order's later, frozen stages cannot change a direction: its first stage has all of its modalities."""
    parsed = Order.parse(order)
    return len(parsed.stages) > 1 and set(Direction.parse(direction).modalities) <= set(parsed.added(0))
