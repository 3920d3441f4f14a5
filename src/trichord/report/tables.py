"""The report's tables, made from numbers already found: the order table, comparisons, published rows, queries.

Those of the joint space are in `tables_space`, those of runs and costs in `tables_training`. A cell with an interval holds
its ends in full too, for CSV and JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from trichord.evaluation.comparison import Interaction
from trichord.evaluation.printed import figure_text, percent, spanned
from trichord.evaluation.replication import seeds_text
from trichord.evaluation.statistics import Difference, Interval
from trichord.modality import Direction, Order
from trichord.report.analysis import KS, MAIN_RECALL, BenchmarkPair, Group
from trichord.report.document import Cell, Column, Table, Value, slug
from trichord.report.published import (
    PublishedRow,
    conditional_intervals,
    gallery_evidence,
    published_interval,
    published_rows,
)

NAME = Column("order", numeric=False)
DASH = Cell("-")


def interval_cell(found: Interval, *, strong: bool = False, note: str = "") -> Cell:
    """An estimate with its interval."""
    return difference_cell(found.estimate, found.low, found.high, strong=strong, note=note)


def difference_cell(estimate: float, low: float, high: float, *, strong: bool = False, note: str = "") -> Cell:
    """A difference with the ends of its interval."""
    return Cell(spanned(estimate, low, high), estimate, strong, note, (("low", low), ("high", high)))


def in_percent(level: float) -> str:
    """The level of intervals: `95 %`."""
    return f"{100 * level:g} %"


def share(groups: Sequence[Group]) -> str:
    """The level of all intervals of the groups: `95 %`."""
    return in_percent(groups[0].level)


def p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def order_table(groups: Sequence[Group], direction: str) -> Table:
    """The study's table: orders by R@1, R@5, R@10 of every benchmark, with intervals, then chance. A figure is bold only
    where its order is the winner."""
    columns = [NAME, *(Column(f"R@{k}", group.title) for group in groups for k in KS)]
    orders = list(dict.fromkeys(order for group in groups for order in group.orders))
    compared = {order for group in groups for order in group.compared}
    orders.sort(key=lambda order: order not in compared)
    rows = [
        [Cell(str(Order.parse(order))), *(c for group in groups for c in _recalls(group, order))] for order in orders
    ]
    chance = [interval_cell(found) for group in groups for found in (group.chance[k] for k in KS)]
    rows.append([Cell("chance"), *chance])
    seeds = [next(_seeds(group, order) for group in groups if order in group.orders) for order in orders]
    if len({cell.text for cell in seeds}) > 1:
        columns.append(Column("seeds"))
        rows = [[*row, cell] for row, cell in zip(rows, [*seeds, DASH], strict=True)]
    rules = {len(rows) - 1} | ({len([o for o in orders if o in compared])} if len(compared) < len(orders) else set())
    caption = (
        f"Zero-shot retrieval {Direction.parse(direction)} ({direction}), recall in percent with {share(groups)} intervals "
        f"over queries and seeds. Bold: better at R@{MAIN_RECALL} than every other order after Holm's correction. Chance: ranking "
        "at random, and where one such run lands that often."
    )
    return Table(
        f"orders-{direction}", f"Orders by recall, {direction}", tuple(columns), tuple(map(tuple, rows)), caption,
        tuple(sorted(rules)),
    )  # fmt: skip


def _seeds(group: Group, order: str) -> Cell:
    found = group.recalls[order][MAIN_RECALL]
    return Cell(seeds_text(found.num_seeds, found.num_runs), found.num_seeds, values=(("runs", found.num_runs),))


def _recalls(group: Group, order: str) -> list[Cell]:
    if order not in group.orders:
        return [DASH] * len(KS)
    note = "; ".join(group.notes.get(order, ()))
    winners = {k: comparison.winner for k, comparison in group.comparisons.items()}
    return [
        interval_cell(found, strong=winners.get(k) == order, note=note) for k, found in group.recalls[order].items()
    ]


def sizes_table(groups: Sequence[Group]) -> Table:
    """What the figures of a benchmark are of: queries, gallery, seeds, policies."""
    columns = ("benchmark", "queries", "gallery", "missing clips", "ties", "seeds", "median rank of the orders")
    rows = []
    for group in groups:
        counts = sorted({(v.num_seeds, seeds_text(v.num_seeds, v.num_runs)) for v in group.median_rank.values()})
        seeds = " to ".join(dict.fromkeys(text for _, text in (counts[0], counts[-1])))
        policy = {"drop": "left out", "miss": "counted as errors"}[group.missing]
        medians = ", ".join(
            f"{Order.parse(o)} {figure_text(v.estimate, v.low, v.high, 'rank')}" for o, v in group.median_rank.items()
        )
        ties = "expected over ties" if group.ties == "expected" else group.ties
        found: list[tuple[str, Value]] = []
        for order, v in group.median_rank.items():
            name = str(Order.parse(order))
            found += [(name, v.estimate), (f"{name} low", v.low), (f"{name} high", v.high)]
        rows.append((
            Cell(group.title), Cell(f"{group.num_queries:,}", group.num_queries),
            Cell(f"{group.num_gallery:,}", group.num_gallery),
            Cell(f"{group.num_missing:,}, {policy}", group.num_missing, values=(("policy", policy),)), Cell(ties),
            Cell(seeds, values=(("least", counts[0][0]), ("most", counts[-1][0]))),
            Cell(medians, values=tuple(found)),
        ))  # fmt: skip
    numeric = (False, True, True, False, False, True, False)
    return Table(
        "benchmarks", "What the figures are of",
        tuple(Column(label, numeric=n) for label, n in zip(columns, numeric, strict=True)), tuple(rows),
    )  # fmt: skip


def directions_table(by_direction: dict[str, Sequence[Group]]) -> Table:
    """R@10 of all orders in all directions."""
    columns = [Column("benchmark", numeric=False), NAME, *(Column(code) for code in by_direction)]
    titles = {group.benchmark: group.title for groups in by_direction.values() for group in groups}
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for name, title in titles.items():
        groups = {code: next((g for g in found if g.benchmark == name), None) for code, found in by_direction.items()}
        orders = list(dict.fromkeys(order for group in groups.values() if group for order in group.orders))
        rules.append(len(rows))
        for order in orders:
            cells = [
                interval_cell(group.recalls[order][MAIN_RECALL]) if group and order in group.orders else DASH
                for group in groups.values()
            ]
            rows.append((Cell(title), Cell(str(Order.parse(order))), *cells))
        chance = [interval_cell(group.chance[MAIN_RECALL]) if group else DASH for group in groups.values()]
        rows.append((Cell(title), Cell("chance"), *chance))
    level = share(next(iter(by_direction.values())))
    caption = f"R@{MAIN_RECALL} in percent with {level} intervals. The directions are not corrected for being many."
    return Table(
        "directions", f"R@{MAIN_RECALL} in every direction", tuple(columns), tuple(rows), caption, tuple(rules[1:])
    )


def is_apart(pair: Difference) -> bool:
    """Whether two orders differ at the level of their interval after Holm's correction. One seed tells models apart, not orders."""
    return pair.num_seeds > 1 and pair.p_adjusted < 1 - pair.level


def differences_table(groups: Sequence[Group]) -> Table:
    """Every pair of orders at every K."""
    labels = ("benchmark", "recall", "orders", "difference", "p", "p, Holm", "seeds")
    numeric = (False, False, False, True, True, True, True)
    rows, rules = [], []
    for group in groups:
        for k in reversed(KS):
            for pair in group.comparisons[k].differences if k in group.comparisons else ():
                paired = str(pair.num_seeds) + ("" if pair.paired_seeds else ", not paired")
                rows.append((
                    Cell(group.title), Cell(f"R@{k}"), Cell(f"{Order.parse(pair.a)} − {Order.parse(pair.b)}"),
                    difference_cell(pair.estimate, pair.low, pair.high), Cell(p_text(pair.p), pair.p),
                    Cell(p_text(pair.p_adjusted), pair.p_adjusted, strong=is_apart(pair)),
                    Cell(paired, pair.num_seeds, note=pair.note, values=(("paired", "yes" if pair.paired_seeds else "no"),)),
                ))  # fmt: skip
            rules.append(len(rows))
    caption = (
        f"Points of recall, over the same queries, with {share(groups)} intervals (not corrected). Bold: told apart at that level, "
        f"with two seeds or more, after Holm's correction: at R@{MAIN_RECALL} over all pairs of orders on all benchmarks, at the "
        "other recalls over those of one benchmark."
    )
    columns = tuple(Column(label, numeric=n) for label, n in zip(labels, numeric, strict=True))
    separators = tuple(rule for rule in rules[:-1] if 0 < rule < len(rows))
    return Table("differences", "Differences between orders", columns, tuple(rows), caption, separators)


def interactions_table(found: Sequence[BenchmarkPair]) -> Table:
    """Whether differences between orders vary between benchmarks."""
    labels = ("benchmarks", "orders", "difference of differences", "p, Holm", "change of places, p, Holm")
    rows = [
        (
            Cell(f"{pair.first}, {pair.second}"), Cell(f"{Order.parse(x.a)} − {Order.parse(x.b)}"),
            difference_cell(x.estimate, x.low, x.high),
            _adjusted(x, x.p, x.p_adjusted),
            _adjusted(x, x.p_crossing, x.p_crossing_adjusted),
        )
        for pair in found
        for x in pair.pairs
    ]  # fmt: skip
    columns = tuple(Column(label, numeric=i > 1) for i, label in enumerate(labels))
    level = f" with {in_percent(found[0].pairs[0].level)} intervals" if found else ""
    caption = (
        f"R@{MAIN_RECALL}, points{level}. The first test sees that a difference is larger on one benchmark; the second (Gail and "
        "Simon, Biometrics 41, 1985) that another order is ahead there."
    )
    return Table("interactions", "Is the best order another one elsewhere?", columns, tuple(rows), caption)


def _adjusted(x: Interaction, p: float, adjusted: float) -> Cell:
    several = min(x.first.num_seeds, x.second.num_seeds) > 1
    return Cell(p_text(adjusted), adjusted, several and adjusted < 1 - x.level, values=(("before correction", p),))


def published_table(benchmark: str, title: str, level: float = 0.95) -> Table | None:
    """The published rows of a benchmark; None where nothing is published."""
    found = published_rows(benchmark)
    if not found:
        return None
    labels = ("method", "order", "direction", "R@1", "R@5", "R@10", "MedR", "queries")
    numeric = (False, False, False, True, True, True, True, True)
    rows = []
    for row in found:
        notes = ". ".join(
            part for part in (row.source, row.note, *(gallery_evidence(row) if row.num_queries is None else ())) if part
        )
        recalls = [_published_recall(row, name, level) for name in ("r1", "r5", "r10")]
        queries = f"{row.num_queries:,}" if row.num_queries else "not given"
        medr = f"{row.medr:g}" if row.medr is not None else "-"
        rows.append((
            Cell(row.method, note=notes), Cell(row.order or "-"), Cell(row.direction), *recalls,
            Cell(medr, row.medr), Cell(queries, row.num_queries),
        ))  # fmt: skip
    caption = (
        f"As printed by their sources. In brackets Wilson's binomial {in_percent(level)} interval over queries, which says nothing "
        "of other seeds; after a question mark those for the usual galleries, where the source names none."
    )
    columns = tuple(Column(label, numeric=n) for label, n in zip(labels, numeric, strict=True))
    study = sum(row.method == found[0].method for row in found)
    return Table(
        f"published-{slug(benchmark)}", f"Published figures on {title}", columns, tuple(rows), caption,
        (study,) if 0 < study < len(rows) else (),
    )  # fmt: skip


def _published_recall(row: PublishedRow, name: str, level: float) -> Cell:
    """A recall with its interval, or with those of the usual galleries after a question mark."""
    sure = published_interval(row, name, level)
    possible = [sure] if sure else list(conditional_intervals(row, name, level))
    spans = " or ".join(f"{percent(i.low)}, {percent(i.high)}" for i in possible)
    values: list[tuple[str, Value]] = []
    for i in possible:
        where = "" if sure else f" if {i.num_queries} queries"
        values += [(f"low{where}", i.low), (f"high{where}", i.high)]
    text = row.printed(name) + (f" [{'' if sure else '? '}{spans}]" if spans else "")
    return Cell(text, row.recall(name), values=tuple(values))
