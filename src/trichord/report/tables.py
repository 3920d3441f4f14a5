"""Tables of the report: the order table, sizes, directions, comparisons and published figures.

The tables of the joint space are in `tables_space`, those of runs and costs in `tables_training`, those of evaluations in
`tables_figures`. A cell with an interval also contains its ends with full precision, for CSV and JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trichord.evaluation.comparison import Interaction
from trichord.evaluation.printed import in_percent, percent, spanned
from trichord.evaluation.ranks import MEDIAN_RANK, RECALLS, Recall
from trichord.evaluation.statistics import Difference, chance_interval
from trichord.modality import Direction
from trichord.report.analysis import MAIN_RECALL, Bench, BenchmarkPair, Target
from trichord.report.document import Cell, Column, Table, Value, columns, slug
from trichord.report.published import (
    PublishedRow,
    conditional_intervals,
    gallery_evidence,
    published_interval,
    published_rows,
)
from trichord.study.figures import Measure

MEASURES = tuple(recall.measure for recall in RECALLS)
NAME = Column("order", numeric=False)
DASH = Cell("-")


def difference_cell(estimate: float, low: float, high: float, *, strong: bool = False, note: str = "") -> Cell:
    """Return the cell of a difference with its interval."""
    return Cell(spanned(estimate, low, high), estimate, strong, note, (("low", low), ("high", high)))


def p_text(p: float) -> str:
    """Return a p-value as text."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def measure_cell(figure: Measure | None, *, strong: bool = False, note: str = "") -> Cell:
    """Return the cell of a figure with its interval."""
    if figure is None:
        return DASH
    ends: tuple[tuple[str, Value], ...] = () if figure.low is None else (("low", figure.low), ("high", figure.high))
    return Cell(figure.text, figure.estimate, strong, note, ends)


def order_table(
    targets: Sequence[Target], notes: Mapping[str, Mapping[str, Sequence[str]]], direction: Direction, level: float
) -> Table:
    """Return the order table of a study: R@1, R@5 and R@10 of every order and benchmark with intervals, and chance.

    A figure is bold only if its order is the winner.
    """
    heads = [NAME, *(Column(recall, target.title) for target in targets for recall in MEASURES)]
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
        heads.append(Column("seeds"))
        rows = [[*row, cell] for row, cell in zip(rows, [*seeds, DASH], strict=True)]
    rules = sorted({len(orders) - len(beside), len(orders)})
    caption = (
        f"Zero-shot retrieval {direction} ({direction.code}), recall in percent with {in_percent(level)} intervals "
        f"over queries and seeds. Bold: better at {MAIN_RECALL} than every other order after Holm's correction. Chance: the "
        "recall of a random ranking, with the range of a single random run."
    )
    return Table(
        f"orders-{direction.code}", f"Orders by recall, {direction.code}", tuple(heads), tuple(map(tuple, rows)), caption,
        tuple(rules),
    )  # fmt: skip


def _seeds(target: Target, order: str) -> Cell:
    figure = target.figures[order][MAIN_RECALL]
    return Cell(figure.seeds, figure.num_seeds, values=(("runs", figure.num_runs),))


def _recalls(target: Target, notes: Mapping[str, Sequence[str]], order: str) -> list[Cell]:
    figures, note = target.figures.get(order, {}), "; ".join(notes.get(order, ()))
    return [
        measure_cell(figures.get(m), strong=m == target.main and target.winner == order, note=note if figures else "")
        for m in MEASURES
    ]


def _chance(target: Target, recall: Recall, level: float) -> Cell:
    """Return the cell of chance, scaled by the share of the queries that can be found at all."""
    row = target.result
    queries = int(row["num_queries"])
    share = (queries - (row["num_missing"] if row["missing"] == "miss" else 0)) / queries
    chance = chance_interval(recall.k, row["num_gallery"], round(queries * share), level)
    return difference_cell(chance.estimate * share, chance.low * share, chance.high * share)


def sizes_table(targets: Sequence[Target]) -> Table:
    """Return the table of queries, gallery, policies, seeds and median ranks of each benchmark."""
    labels = ("benchmark", "queries", "gallery", "missing clips", "ties", "seeds", "median rank of the orders")
    rows = []
    for target in targets:
        row = target.result
        medians = {order: measures[MEDIAN_RANK] for order, measures in target.figures.items()}
        counts = sorted({(v.num_seeds, v.seeds) for v in medians.values()})
        policy = {"drop": "left out", "miss": "counted as errors"}[row["missing"]]
        ties = row.get("ties", "expected")
        ranks: list[tuple[str, Value]] = []
        for name, v in medians.items():
            ranks += [(name, v.estimate), (f"{name} low", v.low), (f"{name} high", v.high)]
        rows.append((
            Cell(target.title), Cell(f"{row['num_queries']:,}", row["num_queries"]),
            Cell(f"{row['num_gallery']:,}", row["num_gallery"]),
            Cell(f"{row['num_missing']:,}, {policy}", row["num_missing"], values=(("policy", policy),)),
            Cell("expected over ties" if ties == "expected" else ties),
            Cell(" to ".join(dict.fromkeys(text for _, text in (counts[0], counts[-1]))),
                 values=(("least", counts[0][0]), ("most", counts[-1][0]))),
            Cell(", ".join(f"{name} {v.text}" for name, v in medians.items()), values=tuple(ranks)),
        ))  # fmt: skip
    texts = ("benchmark", "missing clips", "ties", "median rank of the orders")
    return Table("benchmarks", "Queries, gallery and seeds", columns(labels, texts), tuple(rows))


def directions_table(benches: Sequence[Bench], directions: Sequence[Direction], level: float) -> Table:
    """Return the table with the R@10 of all orders in all directions."""
    codes = [direction.code for direction in directions]
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    (main,) = (recall for recall in RECALLS if recall.measure == MAIN_RECALL)
    for bench in benches:
        targets = {target.name: target for target in bench.targets}
        rules.append(len(rows))
        for order in dict.fromkeys(order for code in codes if code in targets for order in targets[code].figures):
            figures = (targets[code].figures.get(order, {}) if code in targets else {} for code in codes)
            rows.append(
                (Cell(bench.title), Cell(order), *(measure_cell(measures.get(MAIN_RECALL)) for measures in figures))
            )
        chance = (_chance(targets[code], main, level) if code in targets else DASH for code in codes)
        rows.append((Cell(bench.title), Cell("chance"), *chance))
    caption = f"{MAIN_RECALL} in percent with {in_percent(level)} intervals. They are not corrected for the number of directions."
    heads = (Column("benchmark", numeric=False), NAME, *map(Column, codes))
    return Table("directions", f"{MAIN_RECALL} in every direction", heads, tuple(rows), caption, tuple(rules[1:]))


def is_apart(pair: Difference) -> bool:
    """Return whether two orders differ at the level of their interval after Holm's correction.

    With one seed, a difference is between trained models, not between orders.
    """
    return pair.num_seeds > 1 and pair.p_adjusted < 1 - pair.level


def differences_table(benches: Sequence[Bench], level: float, noun: str) -> Table:
    """Return the table of all compared pairs of systems in every target. The orders of a study are compared at every recall.

    Args:
        benches: Benchmarks.
        level: Level of the intervals.
        noun: What systems are called: `system` or `order`.
    """
    study = noun == "order"
    labels = ("benchmark", "recall" if study else "of", f"{noun}s", "difference", "p", "p, Holm", "seeds")
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for bench in benches:
        rules.append(len(rows))
        for target in bench.targets:
            groups = [(target.main, group) for group in target.comparisons] + list(target.further.items())[::-1]
            for measure, pair in ((measure, pair) for measure, group in groups for pair in group.differences):
                paired = str(pair.num_seeds) + ("" if pair.paired_seeds else ", not paired")
                values = (("paired", "yes" if pair.paired_seeds else "no"), ("units", pair.num_queries))
                rows.append((
                    Cell(bench.title if study else bench.name), Cell(measure if study else f"{target.name}, {measure}"),
                    Cell(f"{pair.a} − {pair.b}"), difference_cell(pair.estimate, pair.low, pair.high),
                    Cell(p_text(pair.p), pair.p), Cell(p_text(pair.p_adjusted), pair.p_adjusted, strong=is_apart(pair)),
                    Cell(paired, pair.num_seeds, note=pair.note if study else "", values=values),
                ))  # fmt: skip
    family = (
        f"at {MAIN_RECALL} all pairs of orders on all benchmarks, and at the other recalls those of one benchmark"
        if study
        else f"all {len(rows)} rows of this table"
    )
    caption = (
        f"Differences in points over the same units, with {in_percent(level)} intervals that are not corrected. Holm's correction "
        f"covers {family}. Bold: the difference is significant at that level, with two seeds or more."
    )
    separators = tuple(rule for rule in rules if 0 < rule < len(rows))
    return Table(
        "differences", f"Differences between {noun}s", columns(labels, labels[:3]), tuple(rows), caption, separators
    )


def interactions_table(benchmark_pairs: Sequence[BenchmarkPair]) -> Table:
    """Return the table that shows whether the differences between orders vary between benchmarks."""
    labels = ("benchmarks", "orders", "difference of differences", "p, Holm", "change of places, p, Holm")
    rows = [
        (
            Cell(f"{pair.first}, {pair.second}"), Cell(f"{x.a} − {x.b}"),
            difference_cell(x.estimate, x.low, x.high),
            _adjusted(x, x.p, x.p_adjusted),
            _adjusted(x, x.p_crossing, x.p_crossing_adjusted),
        )
        for pair in benchmark_pairs
        for x in pair.pairs
    ]  # fmt: skip
    level = f" with {in_percent(benchmark_pairs[0].pairs[0].level)} intervals" if benchmark_pairs else ""
    caption = (
        f"{MAIN_RECALL}, in points{level}. The first test shows whether a difference is larger on one benchmark, the second "
        "(Gail and Simon, Biometrics 41, 1985) whether another order is ahead there."
    )
    return Table(
        "interactions",
        "Does the best order depend on the benchmark?",
        columns(labels, labels[:2]),
        tuple(rows),
        caption,
    )


def _adjusted(x: Interaction, p: float, adjusted: float) -> Cell:
    several = min(x.first.num_seeds, x.second.num_seeds) > 1
    return Cell(p_text(adjusted), adjusted, several and adjusted < 1 - x.level, values=(("before correction", p),))


def published_table(benchmark: str, title: str, level: float = 0.95) -> Table | None:
    """Return the table of published figures of a benchmark, or None if there are none.

    Args:
        benchmark: Name of the benchmark.
        title: Title of the benchmark.
        level: Level of the intervals.
    """
    published = published_rows(benchmark)
    if not published:
        return None
    labels = ("method", "order", "direction", "R@1", "R@5", "R@10", "MedR", "queries")
    rows = []
    for row in published:
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
        f"Figures as printed by their sources. In brackets: Wilson's binomial {in_percent(level)} interval over queries, which "
        "does not cover other seeds; after a question mark, the intervals for the usual galleries, if the source does not name one."
    )
    study = sum(row.method == published[0].method for row in published)
    return Table(
        f"published-{slug(benchmark)}", f"Published figures on {title}", columns(labels, labels[:3]), tuple(rows), caption,
        (study,) if 0 < study < len(rows) else (),
    )  # fmt: skip


def _published_recall(row: PublishedRow, name: str, level: float) -> Cell:
    """Return the cell of a recall with its interval, or with those for the usual galleries after a question mark."""
    sure = published_interval(row, name, level)
    possible = [sure] if sure else list(conditional_intervals(row, name, level))
    spans = " or ".join(f"{percent(i.low)}, {percent(i.high)}" for i in possible)
    values: list[tuple[str, Value]] = []
    for i in possible:
        where = "" if sure else f" if {i.num_queries} queries"
        values += [(f"low{where}", i.low), (f"high{where}", i.high)]
    text = row.printed(name) + (f" [{'' if sure else '? '}{spans}]" if spans else "")
    return Cell(text, row.recall(name), values=tuple(values))
