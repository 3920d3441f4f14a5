"""The report's tables, made from numbers already found: the order table, comparisons, published rows, queries.

Those of the joint space are in `tables_space`, those of runs and costs in `tables_training`. A cell with an interval holds
its ends in full too, for CSV and JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trichord.evaluation.comparison import Interaction
from trichord.evaluation.printed import percent, spanned
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS, Recall
from trichord.evaluation.statistics import Difference, chance_interval
from trichord.modality import Direction
from trichord.report.analysis import MAIN_RECALL, Bench, BenchmarkPair, Target
from trichord.report.document import Cell, Column, Table, Value, slug
from trichord.report.published import (
    PublishedRow,
    conditional_intervals,
    gallery_evidence,
    published_interval,
    published_rows,
)
from trichord.study.figures import Measure
from trichord.study.run_scores import num_errors

MEASURES = tuple(recall.measure for recall in RECALLS)
NAME = Column("order", numeric=False)
DASH = Cell("-")


def difference_cell(estimate: float, low: float, high: float, *, strong: bool = False, note: str = "") -> Cell:
    """A difference with the ends of its interval."""
    return Cell(spanned(estimate, low, high), estimate, strong, note, (("low", low), ("high", high)))


def in_percent(level: float) -> str:
    """The level of intervals: `95 %`."""
    return f"{100 * level:g} %"


def p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def measure_cell(found: Measure | None, *, strong: bool = False, note: str = "") -> Cell:
    """A figure with its interval."""
    if found is None:
        return DASH
    ends: tuple[tuple[str, Value], ...] = () if found.low is None else (("low", found.low), ("high", found.high))
    return Cell(found.text, found.estimate, strong, note, ends)


def order_table(
    targets: Sequence[Target], notes: Mapping[str, Mapping[str, Sequence[str]]], direction: str, level: float
) -> Table:
    """The study's table: orders by R@1, R@5, R@10 of every benchmark, with intervals, then chance. A figure is bold only
    where its order is the winner."""
    columns = [NAME, *(Column(recall, target.title) for target in targets for recall in MEASURES)]
    orders = list(dict.fromkeys(order for target in targets for order in target.figures))
    beside = [order for order in orders if all(order in target.beside for target in targets if order in target.figures)]
    orders = [*(order for order in orders if order not in beside), *beside]
    rows = [
        [Cell(order), *(cell for target in targets for cell in _recalls(target, notes[target.benchmark], order))]
        for order in orders
    ]
    rows.append([Cell("chance"), *(_chance(target, recall, level) for target in targets for recall in RECALLS)])
    seeds = [next(_seeds(target, order) for target in targets if order in target.figures) for order in orders]
    if len({cell.text for cell in seeds}) > 1:
        columns.append(Column("seeds"))
        rows = [[*row, cell] for row, cell in zip(rows, [*seeds, DASH], strict=True)]
    rules = sorted({len(orders) - len(beside), len(orders)})
    caption = (
        f"Zero-shot retrieval {Direction.parse(direction)} ({direction}), recall in percent with {in_percent(level)} intervals "
        f"over queries and seeds. Bold: better at {MAIN_RECALL} than every other order after Holm's correction. Chance: ranking "
        "at random, and where one such run lands that often."
    )
    return Table(
        f"orders-{direction}", f"Orders by recall, {direction}", tuple(columns), tuple(map(tuple, rows)), caption,
        tuple(rules),
    )  # fmt: skip


def _seeds(target: Target, order: str) -> Cell:
    found = target.figures[order][MAIN_RECALL]
    return Cell(found.seeds, found.num_seeds, values=(("runs", found.num_runs),))


def _recalls(target: Target, notes: Mapping[str, Sequence[str]], order: str) -> list[Cell]:
    figures, note = target.figures.get(order, {}), "; ".join(notes.get(order, ()))
    return [
        measure_cell(figures.get(m), strong=m == target.main and target.winner == order, note=note if figures else "")
        for m in MEASURES
    ]


def _chance(target: Target, recall: Recall, level: float) -> Cell:
    """Chance where only a share of the queries can be found at all."""
    row = target.result
    queries = int(row["num_queries"])
    share = (queries - num_errors(row)) / queries
    found = chance_interval(recall.k, row["num_gallery"], round(queries * share), level)
    return difference_cell(found.estimate * share, found.low * share, found.high * share)


def sizes_table(targets: Sequence[Target]) -> Table:
    """What the figures of a benchmark are of: queries, gallery, seeds, policies."""
    columns = ("benchmark", "queries", "gallery", "missing clips", "ties", "seeds", "median rank of the orders")
    rows = []
    for target in targets:
        row = target.result
        medians = {order: of[MEDIAN_RANK] for order, of in target.figures.items()}
        counts = sorted({(v.num_seeds, v.seeds) for v in medians.values()})
        policy = {"drop": "left out", "miss": "counted as errors"}[row["missing"]]
        ties = row.get("ties", "expected")
        found: list[tuple[str, Value]] = []
        for name, v in medians.items():
            found += [(name, v.estimate), (f"{name} low", v.low), (f"{name} high", v.high)]
        rows.append((
            Cell(target.title), Cell(f"{row['num_queries']:,}", row["num_queries"]),
            Cell(f"{row['num_gallery']:,}", row["num_gallery"]),
            Cell(f"{row['num_missing']:,}, {policy}", row["num_missing"], values=(("policy", policy),)),
            Cell("expected over ties" if ties == "expected" else ties),
            Cell(" to ".join(dict.fromkeys(text for _, text in (counts[0], counts[-1]))),
                 values=(("least", counts[0][0]), ("most", counts[-1][0]))),
            Cell(", ".join(f"{name} {v.text}" for name, v in medians.items()), values=tuple(found)),
        ))  # fmt: skip
    numeric = (False, True, True, False, False, True, False)
    return Table(
        "benchmarks", "What the figures are of",
        tuple(Column(label, numeric=n) for label, n in zip(columns, numeric, strict=True)), tuple(rows),
    )  # fmt: skip


def directions_table(benches: Sequence[Bench], directions: Sequence[str], level: float) -> Table:
    """R@10 of all orders in all directions."""
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    (main,) = (recall for recall in RECALLS if recall.measure == MAIN_RECALL)
    for bench in benches:
        targets = {target.name: target for target in bench.targets}
        rules.append(len(rows))
        for order in dict.fromkeys(order for code in directions if code in targets for order in targets[code].figures):
            figures = (targets[code].figures.get(order, {}) if code in targets else {} for code in directions)
            rows.append((Cell(bench.title), Cell(order), *(measure_cell(of.get(MAIN_RECALL)) for of in figures)))
        chance = (_chance(targets[code], main, level) if code in targets else DASH for code in directions)
        rows.append((Cell(bench.title), Cell("chance"), *chance))
    caption = (
        f"{MAIN_RECALL} in percent with {in_percent(level)} intervals. The directions are not corrected for being many."
    )
    columns = (Column("benchmark", numeric=False), NAME, *map(Column, directions))
    return Table("directions", f"{MAIN_RECALL} in every direction", columns, tuple(rows), caption, tuple(rules[1:]))


def is_apart(pair: Difference) -> bool:
    """Whether two orders differ at the level of their interval after Holm's correction. One seed tells models apart, not orders."""
    return pair.num_seeds > 1 and pair.p_adjusted < 1 - pair.level


def differences_table(benches: Sequence[Bench], level: float, noun: str) -> Table:
    """Return the table of all compared pairs of systems in every target; for the orders of a study, at every recall."""
    study = noun == "order"
    labels = ("benchmark", "recall" if study else "of", f"{noun}s", "difference", "p", "p, Holm", "seeds")
    numeric = (False, False, False, True, True, True, True)
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for bench in benches:
        rules.append(len(rows))
        for target in bench.targets:
            groups = [(target.main, found) for found in target.comparisons] + list(target.further.items())[::-1]
            for measure, pair in ((measure, pair) for measure, found in groups for pair in found.differences):
                paired = str(pair.num_seeds) + ("" if pair.paired_seeds else ", not paired")
                told = (("paired", "yes" if pair.paired_seeds else "no"), ("units", pair.num_queries))
                rows.append((
                    Cell(bench.title if study else bench.name), Cell(measure if study else f"{target.name}, {measure}"),
                    Cell(f"{pair.a} − {pair.b}"), difference_cell(pair.estimate, pair.low, pair.high),
                    Cell(p_text(pair.p), pair.p), Cell(p_text(pair.p_adjusted), pair.p_adjusted, strong=is_apart(pair)),
                    Cell(paired, pair.num_seeds, note=pair.note if study else "", values=told),
                ))  # fmt: skip
    family = (
        f"at {MAIN_RECALL} over all pairs of orders on all benchmarks, at the other recalls over those of one benchmark"
        if study
        else f"over all {len(rows)} rows of this table"
    )
    caption = (
        f"Points, over the same units, with {in_percent(level)} intervals (not corrected). Holm's correction is {family}. Bold: "
        "told apart at that level, with two seeds or more."
    )
    columns = tuple(Column(label, numeric=n) for label, n in zip(labels, numeric, strict=True))
    separators = tuple(rule for rule in rules if 0 < rule < len(rows))
    return Table("differences", f"Differences between {noun}s", columns, tuple(rows), caption, separators)


def interactions_table(found: Sequence[BenchmarkPair]) -> Table:
    """Whether differences between orders vary between benchmarks."""
    labels = ("benchmarks", "orders", "difference of differences", "p, Holm", "change of places, p, Holm")
    rows = [
        (
            Cell(f"{pair.first}, {pair.second}"), Cell(f"{x.a} − {x.b}"),
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
        f"{MAIN_RECALL}, points{level}. The first test sees that a difference is larger on one benchmark; the second (Gail and "
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
