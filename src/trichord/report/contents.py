"""The report's document: what was found first, then the table, then what stands behind it. Numbers come from `analysis`,
tables from `tables`, figures from `plots`; here they are put in order and said in words. The parts on the joint space, on
training and on how to repeat the study are in `contents_space`, `contents_training` and `contents_repeat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trichord.evaluation.comparison import leaders, listed
from trichord.modality import Direction, Order
from trichord.protocols.benchmarks import PUBLISHED
from trichord.report import plots
from trichord.report.analysis import MAIN_RECALL, BenchmarkPair, Group, analyse, duel, interactions
from trichord.report.contents_repeat import repeat_section
from trichord.report.contents_space import space_section
from trichord.report.contents_training import training_section
from trichord.report.document import Block, Document, Figure, Section, Text, distinct_slugs
from trichord.report.duels import duels_section
from trichord.report.tables import (
    differences_table,
    directions_table,
    interactions_table,
    is_apart,
    order_table,
    p_text,
    published_table,
    share,
    sizes_table,
)
from trichord.report.tables_training import runs_table

if TYPE_CHECKING:
    from trichord.report.reading import Study

DUELS = "The two orders of each benchmark that differ most clearly. Ranks are means over seeds; 1 is best."
SMALL_GALLERY = 50.0  # chance of R@10 in percent, above which orders cannot be told apart


def build(study: Study, *, direction: str = "", level: float = 0.95) -> Document:
    """The report of a study whose runs passed `check_comparable`.

    Args:
        study: Read.
        direction: Of the main table; '' takes the recipe's first one that was scored.
        level: Of all intervals.
    """
    main = direction or study.directions[0]
    groups = analyse(study, main, level=level)
    others = {code: analyse(study, code, level=level, compare=False) for code in study.directions if code != main}
    colours = plots.order_colours(study.orders)
    varies = interactions(groups, level)
    slugs = distinct_slugs(benchmark["name"] for benchmark in study.benchmarks)
    duels = [(slugs[g.benchmark], g.title, found) for g in groups if (found := duel(g)) is not None]
    sections = [
        _table_section(study, groups, main, level),
        _comparison_section(groups, varies),
        _directions_section({main: groups, **others}) if others else None,
        duels_section(duels, colours, DUELS, "queries"),
        space_section(study, slugs, colours),
        training_section(study, colours),
        Section("Runs", (runs_table(study),)),
        _published_section(groups, level),
        repeat_section(study, main, level),
    ]
    summary = [_sentence(group) for group in groups]
    summary += [f"{pair.first} against {pair.second}: {pair.verdict}." for pair in varies]
    summary += _warnings(study, groups)
    seeds = sorted({run.seed for run in study.done})
    subtitle = (
        f"Zero-shot retrieval {Direction.parse(main)} by order of modalities; {len(study.done)} finished runs, "
        f"{len(study.orders)} orders, {len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    )
    return Document(f"Order study: {study.name}", subtitle, tuple(s for s in sections if s is not None), tuple(summary))


def _sentence(group: Group) -> str:
    if not group.comparisons:
        return f"{group.title}: {group.verdict}."
    recalls = {order: group.recalls[order][MAIN_RECALL] for order in group.compared}
    best = leaders({order: recall.estimate for order, recall in recalls.items()})
    found = recalls[best[0]]
    value = f"{found.estimate:.1f} %"
    if len(best) > 1:
        highest = f"The highest are {listed([str(Order.parse(order)) for order in best])} with {value} each"
    else:
        highest = f"The highest is {Order.parse(best[0])} with {value} [{found.low:.1f}, {found.high:.1f}]"
    apart = [] if group.comparisons[MAIN_RECALL].winner else told_apart(group)
    also = f" Told apart: {'; '.join(apart)}." if apart else ""
    return (
        f"{group.title}, R@{MAIN_RECALL}: {group.verdict}.{also} {highest}; "
        f"chance is {group.chance[MAIN_RECALL].estimate:.1f} %."
    )


def told_apart(group: Group) -> list[str]:
    """The pairs of orders whose main recalls differ after Holm's correction, in words. None with one seed."""
    found = []
    for pair in group.comparisons[MAIN_RECALL].differences:
        if is_apart(pair):
            ahead, behind = (pair.a, pair.b) if pair.estimate > 0 else (pair.b, pair.a)
            points = f"{abs(pair.estimate):.1f} points, adjusted p {p_text(pair.p_adjusted)}"
            found.append(f"{Order.parse(ahead)} is ahead of {Order.parse(behind)} ({points})")
    return found


def _warnings(study: Study, groups: Sequence[Group]) -> list[str]:
    told = []
    lost = [run for run in study.runs if run.status != "done"]
    if lost:
        names = ", ".join(f"{run} ({run.status})" for run in lost[:4]) + (", ..." if lost[4:] else "")
        told.append(f"{len(lost)} of {len(study.runs)} runs are not in the figures: {names}.")
    for group in groups:
        if group.chance[MAIN_RECALL].estimate > SMALL_GALLERY:
            told.append(f"{group.title}: the gallery is too small to tell orders apart; chance is above 50 % at R@10.")
    return told + _notes(groups)


def _notes(groups: Sequence[Group]) -> list[str]:
    """Each note of the groups as one sentence, with the orders it holds of; with the benchmarks where not on all."""
    where: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        for order, notes in group.notes.items():
            for note in notes:
                where.setdefault((note, order), []).append(group.title)
    orders: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (note, order), titles in where.items():
        every = sum(order in group.orders for group in groups) == len(titles)
        orders.setdefault((note, () if every else tuple(titles)), []).append(str(Order.parse(order)))
    return [
        f"{', '.join(names)}{' on ' if titles else ''}{', '.join(titles)}: {note}."
        for (note, titles), names in orders.items()
    ]


def _table_section(study: Study, groups: Sequence[Group], direction: str, level: float) -> Section:
    panels = [
        plots.RecallPanel(
            group.title,
            group.orders,
            {o: {k: (i.estimate, i.low, i.high) for k, i in by_k.items()} for o, by_k in group.recalls.items()},
            {k: found.estimate for k, found in group.chance.items()},
        )
        for group in groups
    ]
    blocks: list[Block] = [order_table(groups, direction), sizes_table(groups)]
    svg = plots.recall_intervals(panels, plots.order_colours(study.orders))
    blocks.append(Figure(
        "recalls", "Recall by order", svg, f"Points are means over seeds, bars {share(groups)} intervals over queries and seeds.",
        f"Recalls of {', '.join(str(Order.parse(o)) for o in study.orders)} with intervals on {len(groups)} benchmarks",
    ))  # fmt: skip
    protocols = [f"{b['title']}: {b['protocol']}" for b in study.benchmarks if b.get("protocol")]
    blocks.append(Text(tuple(protocols)))
    published = [published_table(group.benchmark, group.title, level) for group in groups]
    return Section("The order table", (*blocks, *(table for table in published if table is not None)))


def _published_section(groups: Sequence[Group], level: float) -> Section | None:
    """The published tables of benchmarks that this study was not scored on."""
    scored = {group.benchmark for group in groups}
    found = [published_table(name, of.title, level) for name, of in PUBLISHED.items() if name not in scored]
    tables = tuple(table for table in found if table is not None)
    intro = (
        "Of other data than this study's: they show what the field reports and how wide its intervals are, and are not to be "
        "compared with the tables above."
    )
    return Section("Published figures", tables, intro) if tables else None


def _comparison_section(groups: Sequence[Group], varies: Sequence[BenchmarkPair]) -> Section | None:
    compared = [group for group in groups if group.comparisons]
    if not compared:
        return None
    panels = [
        plots.DifferencePanel(
            group.title,
            [
                (f"{Order.parse(d.a)} − {Order.parse(d.b)}", d.estimate, d.low, d.high, is_apart(d))
                for d in group.comparisons[MAIN_RECALL].differences
            ],
        )
        for group in compared
    ]
    verdicts = tuple(f"{group.title}: {group.verdict}." for group in compared)
    blocks: list[Block] = [
        Text(verdicts, "finding"),
        Figure(
            "differences", f"Differences at R@{MAIN_RECALL}", plots.differences(panels),
            f"Points of recall with {share(compared)} intervals; filled: told apart at that level, "
            "with two seeds or more, after Holm's correction over all pairs on all benchmarks.",
            "Differences between all pairs of orders with their intervals",
        ),
        differences_table(compared),
    ]  # fmt: skip
    if varies:
        blocks += [Text(tuple(f"{v.first}, {v.second}: {v.verdict}." for v in varies)), interactions_table(varies)]
    intro = (
        "Orders are compared over the same queries, seeds as the outer level. An order is called the winner only where it beats "
        "every other one after Holm's correction; otherwise the sentence says how large a study would see the difference."
    )
    return Section("Which order is best", tuple(blocks), intro)


def _directions_section(by_direction: dict[str, Sequence[Group]]) -> Section:
    return Section("Every direction", (directions_table(by_direction),))
