"""What a study's runs say, in numbers: intervals, chance, comparisons of orders, and where they may not be compared.

A group is one benchmark in one direction. Its orders are compared over the same queries, so its runs must have met the same
clips under the same policies; otherwise `check_comparable` refuses, and names the difference.

Compared with each other are the orders that combine most modalities: a pair alone (`vt`) is shown beside them, but it is the
first stage of an order (`vt>a`), and where that order's later stage freezes it, the two have one and the same figure.

`evaluation.replication` says which runs count as seeds. Orders with one first stage are left out of the comparison where others
have more.

Holm's family at the main recall is all pairs on all benchmarks of the direction, and only there can an order be a winner; at the
other recalls it is the pairs of one benchmark, and no winner is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.comparison import (
    Comparison,
    Interaction,
    compare_on_benchmarks,
    compare_orders,
    interaction,
)
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS
from trichord.evaluation.replication import Runs
from trichord.evaluation.statistics import (
    Interval,
    chance_interval,
    median_rank_interval,
    recall_interval,
)
from trichord.modality import Direction, Order
from trichord.report.duels import Duel
from trichord.report.reading import Run, Study
from trichord.study.figures import Models, models_on
from trichord.study.run_scores import num_errors
from trichord.study.units import captions_of_units, difference_of_scoring

KS = tuple(recall.k for recall in RECALLS)
MAIN_RECALL = 10


@dataclass(frozen=True, eq=False)
class Ranked:
    """What the queries of a group give in the runs of one order, by measure: R@1, R@5, R@10 and MedR. Queries that count as errors
    come last."""

    each: dict[str, Runs]

    @classmethod
    def of(cls, models: Models, direction: str, places: np.ndarray | None = None) -> Ranked:
        """The queries of an order's models that count, of the units at `places`."""
        each = {}
        for measure in (*(recall.measure for recall in RECALLS), MEDIAN_RANK):
            runs = models.runs(direction, measure)
            assert runs is not None, "`check_comparable` has compared the units"
            values = runs.values if places is None else runs.values[:, places]
            each[measure] = runs.with_values(values[:, ~np.isnan(values[0])])
        return cls(each)

    def hits(self, k: int) -> Runs:
        """Expected hits at K."""
        return self.each[f"R@{k}"]

    @property
    def ranks(self) -> Runs:
        """Ranks from 1."""
        return self.each[MEDIAN_RANK]


@dataclass(frozen=True, eq=False)
class Group:
    """One benchmark in one direction. Intervals in percent, by order.

    Attributes:
        benchmark, title, direction: Which.
        level: Of all intervals.
        orders: All orders that were scored, in the plan's order.
        compared: Those that the comparison is over.
        models: The scores behind the figures.
        ranked: What the queries that count give, in one order for all orders.
        names, captions: (N,) of the queries that count; captions are '' where they were not kept.
        recalls: order -> K -> interval.
        median_rank: order -> interval.
        chance: K -> interval of one run.
        num_queries, num_gallery, num_missing: Sizes; queries count the missing ones under `miss`.
        missing, ties: Policies.
        comparisons: K -> comparison of `compared`; {} with fewer than two of them.
        notes: order -> what narrows the meaning of its figures.
    """

    benchmark: str
    title: str
    direction: str
    level: float
    orders: tuple[str, ...]
    compared: tuple[str, ...]
    models: dict[str, Models]
    ranked: dict[str, Ranked]
    names: np.ndarray
    captions: np.ndarray
    recalls: dict[str, dict[int, Interval]]
    median_rank: dict[str, Interval]
    chance: dict[int, Interval]
    num_queries: int
    num_gallery: int
    num_missing: int
    missing: str
    ties: str
    comparisons: dict[int, Comparison]
    notes: dict[str, tuple[str, ...]]

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
    for benchmark in (str(b["name"]) for b in study.benchmarks):
        first: dict[str, Run] = {}
        for run in study.done:
            for row in run.results:
                if row["benchmark"] != benchmark:
                    continue
                direction = row["direction"]
                if direction not in first:
                    first[direction] = run
                elif why := difference_of_runs((study, first[direction]), (study, run), benchmark, direction):
                    raise TrichordError(
                        f"{study.path}: {first[direction]} and {run} cannot be compared on {benchmark} {direction}: {why}; "
                        "run the study again with one setting for all orders, on one store"
                    )


def difference_of_runs(one: tuple[Study, Run], two: tuple[Study, Run], benchmark: str, direction: str) -> str:
    """In what two runs differ that were scored on a benchmark in a direction, in words; '' where they may be compared."""
    sides = []
    for study, run in (one, two):
        scores = study.scores(run)
        sides.append((scores, next(scored for scored in scores.benchmarks if scored.name == benchmark)))
    return difference_of_scoring(sides[0], sides[1], direction, f"R@{MAIN_RECALL}")


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
    found = [_group(study, benchmark, direction, level) for benchmark in study.benchmarks]
    groups = tuple(group for group in found if group is not None)
    return _compared(groups, level) if compare else groups


def _compared(groups: tuple[Group, ...], level: float) -> tuple[Group, ...]:
    """The groups with their comparisons."""
    some = [group for group in groups if len(group.compared) > 1]
    by_k: dict[int, dict[str, Comparison]] = {}
    for k in KS:
        hits = {g.benchmark: {o: g.ranked[o].hits(k) for o in g.compared} for g in some}
        if k == MAIN_RECALL:
            by_k[k] = compare_on_benchmarks(hits, level)
            continue
        alone = {name: compare_orders(of, level, benchmark=name, explain=False) for name, of in hits.items()}
        by_k[k] = {name: replace(found, winner=None) for name, found in alone.items()}
    return tuple(replace(g, comparisons={k: by_k[k][g.benchmark] for k in KS}) if g in some else g for g in groups)


def _group(study: Study, benchmark: Mapping[str, object], direction: str, level: float) -> Group | None:
    name = str(benchmark["name"])
    models = {}
    for own in models_on(study.systems, (name, "")).values():
        kept = [at for at, scored in enumerate(own.scored) if scored.result(direction)]
        if kept:
            models[own.system.order] = own.only(kept)
    if not models:
        return None
    base = next(iter(models.values()))
    scores, scored = base.one
    row, unit = scored.result(direction), scored.row(direction, MEDIAN_RANK)
    assert row is not None and unit is not None
    ranked = {
        order: Ranked.of(own, direction, own.places(base, direction, MEDIAN_RANK)) for order, own in models.items()
    }
    counted = ~np.isnan(scores.each(unit))
    texts = captions_of_units(scores, scored, unit)
    compared, notes = _who_is_compared(study, ranked, direction)
    share = (row["num_queries"] - num_errors(row)) / row["num_queries"]
    return Group(
        benchmark=name,
        title=str(benchmark["title"]),
        direction=direction,
        level=level,
        orders=tuple(models),
        compared=compared,
        models=models,
        ranked=ranked,
        names=scores.units(unit)[counted],
        captions=np.full(counted.sum(), "") if texts is None else texts[counted],
        recalls={o: {k: recall_interval(values.hits(k), level) for k in KS} for o, values in ranked.items()},
        median_rank={order: median_rank_interval(values.ranks, level) for order, values in ranked.items()},
        chance={k: _chance(k, row["num_gallery"], row["num_queries"], share, level) for k in KS},
        num_queries=row["num_queries"],
        num_gallery=row["num_gallery"],
        num_missing=row["num_missing"],
        missing=row["missing"],
        ties=row.get("ties", "expected"),
        comparisons={},
        notes=notes,
    )


def _who_is_compared(
    study: Study, ranked: dict[str, Ranked], direction: str
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The orders that are compared with each other, and what is to be said of each order's figures."""
    most = max(len(Order.parse(order).modalities) for order in ranked)
    whole = [order for order in ranked if len(Order.parse(order).modalities) == most]
    count = {order: values.ranks.num_seeds for order, values in ranked.items()}
    several = [order for order in whole if count[order] > 1]
    compared = several if len(several) > 1 else whole
    largest = max(count[order] for order in whole)
    thawed = bool(study.recipe.get("later_stages", {}).get("thaw"))
    notes = {}
    for order, values in ranked.items():
        told = []
        if untouched(order, direction) and not thawed:
            told.append(f"its later stages leave {direction} untouched: the figure of its first pair")
        if order in whole and order not in compared:
            told.append("one seed: not compared with the others")
        elif order in whole and count[order] < largest:
            told.append(f"{count[order]} of {largest} seeds")
        if count[order] == 1 or count[order] < values.ranks.num_runs:
            told.append(values.ranks.note)
        notes[order] = tuple(told)
    return tuple(compared), notes


def _chance(k: int, num_gallery: int, num_queries: int, share: float, level: float) -> Interval:
    """Chance where only a share of the queries can be found at all."""
    found = chance_interval(k, num_gallery, round(num_queries * share), level)
    return Interval(found.estimate * share, found.low * share, found.high * share, level, 0, num_queries, found.note)


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


def duel(group: Group) -> Duel | None:
    """The two compared orders that differ most clearly: smallest p at the main recall, then the largest difference."""
    if MAIN_RECALL not in group.comparisons:
        return None
    pair = min(group.comparisons[MAIN_RECALL].differences, key=lambda d: (d.p, -abs(d.estimate)))
    keys = (pair.a, pair.b) if pair.estimate >= 0 else (pair.b, pair.a)
    num_ranked = len(group.names) - (group.num_missing if group.missing == "miss" else 0)
    rank_a, rank_b = (group.ranked[order].ranks.replicates.mean(0)[:num_ranked] for order in keys)
    a, b = (str(Order.parse(order)) for order in keys)
    what = "mean rank over seeds" if max(group.ranked[order].ranks.num_runs for order in keys) > 1 else "rank"
    names, captions = group.names[:num_ranked], group.captions[:num_ranked]
    return Duel(a, b, keys, rank_a, rank_b, True, what, names, captions, group.direction)


def untouched(order: str, direction: str) -> bool:
    """Whether an order's later, frozen stages cannot change a direction: its first stage has all of its modalities."""
    parsed = Order.parse(order)
    return len(parsed.stages) > 1 and set(Direction.parse(direction).modalities) <= set(parsed.added(0))
