"""The report's tables, made from numbers already found: the order table, comparisons, published rows, runs, costs."""

from __future__ import annotations

from collections.abc import Sequence

from trichord.evaluation.geometry import Geometry
from trichord.evaluation.statistics import Interval
from trichord.modality import Direction, Order
from trichord.report.analysis import MAIN_RECALL, RECALLS, BenchmarkPair, Duel, Group, untouched
from trichord.report.document import Cell, Column, Table, slug
from trichord.report.published import conditional_intervals, gallery_evidence, published_interval, published_rows
from trichord.report.reading import Study

NAME = Column("order", numeric=False)
DASH = Cell("-")


def percent(value: float, digits: int = 2) -> str:
    """Of a recall or a difference; -0.00 is 0.00."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def spanned(estimate: float, low: float, high: float) -> str:
    """`48.1 [40.5, 55.8]`; two decimals where the figures are below ten."""
    digits = 1 if max(abs(estimate), abs(low), abs(high)) >= 10 else 2
    return f"{percent(estimate, digits)} [{percent(low, digits)}, {percent(high, digits)}]"


def interval_cell(found: Interval, *, strong: bool = False, note: str = "") -> Cell:
    """An estimate with its interval."""
    return Cell(spanned(found.estimate, found.low, found.high), found.estimate, strong, note)


def share(groups: Sequence[Group]) -> str:
    """The level of all intervals: `95 %`."""
    return f"{100 * next(iter(groups[0].median_rank.values())).level:g} %"


def p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def order_table(groups: Sequence[Group], direction: str) -> Table:
    """The study's table: orders by R@1, R@5, R@10 of every benchmark, with intervals, then chance. A figure is bold only
    where its order is the winner."""
    columns = [NAME, *(Column(f"R@{k}", group.title) for group in groups for k in RECALLS)]
    orders = list(dict.fromkeys(order for group in groups for order in group.orders))
    compared = {order for group in groups for order in group.compared}
    orders.sort(key=lambda order: order not in compared)
    rows = [
        [Cell(str(Order.parse(order))), *(c for group in groups for c in _recalls(group, order))] for order in orders
    ]
    chance = [interval_cell(found) for group in groups for found in (group.chance[k] for k in RECALLS)]
    rows.append([Cell("chance"), *chance])
    rules = {len(rows) - 1} | ({len([o for o in orders if o in compared])} if len(compared) < len(orders) else set())
    caption = (
        f"Zero-shot retrieval {Direction.parse(direction)} ({direction}), recall in percent with {share(groups)} intervals "
        "over queries and seeds. Bold: better than every other order after Holm's correction. Chance: ranking at random, and "
        "where one such run lands that often."
    )
    return Table(
        f"orders-{direction}", f"Orders by recall, {direction}", tuple(columns), tuple(map(tuple, rows)), caption,
        tuple(sorted(rules)),
    )  # fmt: skip


def _recalls(group: Group, order: str) -> list[Cell]:
    if order not in group.orders:
        return [DASH] * len(RECALLS)
    seeds = len(group.ranked[order].seeds)
    notes = [found.note for found in group.recalls[order].values() if found.note][:1]
    if order in group.compared and seeds < max(len(group.ranked[o].seeds) for o in group.compared):
        notes.append(f"{seeds} seed{'s' if seeds > 1 else ''} only")
    if untouched(order, group.direction):
        notes.append(f"its frozen stages do not touch {group.direction}: the figure of its first pair")
    winners = {k: comparison.winner for k, comparison in group.comparisons.items()}
    return [
        interval_cell(found, strong=winners.get(k) == order, note="; ".join(notes))
        for k, found in group.recalls[order].items()
    ]


def sizes_table(groups: Sequence[Group]) -> Table:
    """What the figures of a benchmark are of: queries, gallery, seeds, policies."""
    columns = ("benchmark", "queries", "gallery", "missing clips", "ties", "seeds", "median rank of the orders")
    rows = []
    for group in groups:
        seeds = sorted({len(values.seeds) for values in group.ranked.values()})
        policy = {"drop": "left out", "miss": "counted as errors"}[group.missing]
        medians = ", ".join(
            f"{Order.parse(o)} {v.estimate:g} [{v.low:g}, {v.high:g}]" for o, v in group.median_rank.items()
        )
        ties = "expected over ties" if group.ties == "expected" else group.ties
        rows.append((
            Cell(group.title), Cell(f"{group.num_queries:,}", group.num_queries),
            Cell(f"{group.num_gallery:,}", group.num_gallery),
            Cell(f"{group.num_missing:,}, {policy}", group.num_missing), Cell(ties),
            Cell(" to ".join(map(str, seeds if len(seeds) < 3 else (seeds[0], seeds[-1])))), Cell(medians),
        ))  # fmt: skip
    numeric = (False, True, True, False, False, True, False)
    return Table(
        "benchmarks", "What the figures are of",
        tuple(Column(label, numeric=n) for label, n in zip(columns, numeric, strict=True)), tuple(rows),
    )  # fmt: skip


def directions_table(by_direction: dict[str, Sequence[Group]]) -> Table:
    """R@10 of all orders in all directions."""
    columns = [Column("benchmark", numeric=False), NAME, *(Column(code) for code in by_direction)]
    benchmarks = list(dict.fromkeys(group.title for groups in by_direction.values() for group in groups))
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for title in benchmarks:
        groups = {code: next((g for g in found if g.title == title), None) for code, found in by_direction.items()}
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


def differences_table(groups: Sequence[Group]) -> Table:
    """Every pair of orders at every K."""
    labels = ("benchmark", "recall", "orders", "difference", "p", "p, Holm", "seeds")
    numeric = (False, False, False, True, True, True, True)
    rows, rules = [], []
    for group in groups:
        for k in reversed(RECALLS):
            for pair in group.comparisons[k].differences if k in group.comparisons else ():
                text = spanned(pair.estimate, pair.low, pair.high)
                paired = str(pair.num_seeds) + ("" if pair.paired_seeds else ", not paired")
                rows.append((
                    Cell(group.title), Cell(f"R@{k}"), Cell(f"{Order.parse(pair.a)} − {Order.parse(pair.b)}"),
                    Cell(text, pair.estimate), Cell(p_text(pair.p), pair.p),
                    Cell(p_text(pair.p_adjusted), pair.p_adjusted, strong=pair.p_adjusted < 1 - pair.level),
                    Cell(paired, pair.num_seeds, note=pair.note),
                ))  # fmt: skip
            rules.append(len(rows))
    caption = (
        f"Points of recall, over the same queries, with {share(groups)} intervals (not corrected). Bold: told apart at that level "
        "after Holm's correction "
        "over all pairs of orders at one recall of one benchmark."
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
            Cell(spanned(x.estimate, x.low, x.high), x.estimate),
            Cell(p_text(x.p_adjusted), x.p_adjusted, strong=x.p_adjusted < 1 - x.level),
            Cell(p_text(x.p_crossing_adjusted), x.p_crossing_adjusted, strong=x.p_crossing_adjusted < 1 - x.level),
        )
        for pair in found
        for x in pair.pairs
    ]  # fmt: skip
    columns = tuple(Column(label, numeric=i > 1) for i, label in enumerate(labels))
    caption = (
        f"R@{MAIN_RECALL}, points. The first test sees that a difference is larger on one benchmark; the second (Gail and "
        "Simon, Biometrics 41, 1985) that another order is ahead there."
    )
    return Table("interactions", "Is the best order another one elsewhere?", columns, tuple(rows), caption)


def published_table(benchmark: str, title: str) -> Table | None:
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
        recalls = []
        for name in ("r1", "r5", "r10"):
            sure = published_interval(row, name)
            possible = [sure] if sure else list(conditional_intervals(row, name))
            spans = " or ".join(f"{percent(i.low)}, {percent(i.high)}" for i in possible)
            mark = "" if sure else "? "
            recalls.append(Cell(row.printed(name) + (f" [{mark}{spans}]" if spans else ""), row.recall(name)))
        queries = f"{row.num_queries:,}" if row.num_queries else "not given"
        medr = f"{row.medr:g}" if row.medr is not None else "-"
        rows.append((
            Cell(row.method, note=notes), Cell(row.order or "-"), Cell(row.direction), *recalls,
            Cell(medr, row.medr), Cell(queries, row.num_queries),
        ))  # fmt: skip
    caption = (
        "As printed by their sources. In brackets Wilson's binomial interval over queries, which says nothing of other seeds; "
        "after a question mark those for the usual galleries, where the source names none."
    )
    columns = tuple(Column(label, numeric=n) for label, n in zip(labels, numeric, strict=True))
    study = sum(row.method == found[0].method for row in found)
    return Table(
        f"published-{slug(benchmark)}", f"Published figures on {title}", columns, tuple(rows), caption,
        (study,) if 0 < study < len(rows) else (),
    )  # fmt: skip


def captions_table(group: Group, found: Duel, captions: Sequence[str], count: int = 8) -> Table:
    """The queries where one of two orders is furthest ahead of the other."""
    better_a, better_b = found.furthest(count)
    a, b = str(Order.parse(found.a)), str(Order.parse(found.b))
    rows = []
    for ahead, queries in ((a, better_a), (b, better_b)):
        for query in queries.tolist():
            caption = captions[int(group.clip[query])] if captions else f"clip {int(group.clip[query])}"
            short = caption if len(caption) <= 160 else caption[:157] + "..."
            ranks = [Cell(f"{rank[query]:.1f}", float(rank[query])) for rank in (found.rank_a, found.rank_b)]
            rows.append((Cell(ahead), Cell(short, caption), *ranks))
    columns = (
        Column("ahead", numeric=False), Column("caption", numeric=False),
        Column(a, "mean rank over seeds"), Column(b, "mean rank over seeds"),
    )  # fmt: skip
    split = len(better_a)
    return Table(
        f"queries-{slug(group.benchmark)}", f"Where {a} and {b} differ most, {group.title}", columns, tuple(rows), "",
        (split,) if 0 < split < len(rows) else (),
    )  # fmt: skip


def geometry_table(title: str, benchmark: str, found: Sequence[tuple[str, Sequence[Geometry]]], label: str) -> Table:
    """Gaps and clusters by order, means over seeds."""
    pairs = list(dict.fromkeys(pair for _, several in found for geometry in several for pair in geometry.gap))
    columns = [NAME]
    columns += [Column(pair, "modality gap") for pair in pairs]
    columns += [Column(pair, "cosine, true - other") for pair in pairs]
    columns += [Column(pair, "same cluster (chance)") for pair in pairs]
    columns += [Column("modalities", "cluster purity"), Column(label or "labels", "cluster purity")]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def number(value: float | None) -> Cell:
        return DASH if value is None else Cell(f"{value + 0.0:.2f}", value)

    rows = []
    for order, several in found:
        cells = [Cell(str(Order.parse(order)))]
        cells += [number(mean([g.gap.get(pair) for g in several])) for pair in pairs]
        for pair in pairs:
            known = [g for g in several if pair in g.cosine_true]
            cells.append(number(mean([g.cosine_true[pair] - g.cosine_other[pair] for g in known])))
        for pair in pairs:
            known = [g for g in several if pair in g.agreement]
            same, by_chance = mean([g.agreement[pair] for g in known]), mean([g.agreement_chance[pair] for g in known])
            cells.append(DASH if same is None else Cell(f"{same:.2f} ({by_chance:.2f})", same))
        cells.append(number(mean([g.modality_purity for g in several])))
        pure, by_chance = (
            mean([getattr(g, name) for g in several]) for name in ("label_purity", "label_purity_chance")
        )
        cells.append(DASH if pure is None else Cell(f"{pure:.2f} ({by_chance:.2f})", pure))
        rows.append(tuple(cells))
    sizes = sorted({len(geometry.clip) for _, several in found for geometry in several})
    caption = (
        f"Of up to {sizes[-1]:,} held-out clips that have all modalities of the model; means over seeds. Modality gap: distance "
        "between the mean unit vectors of two modalities. Purity of modalities: 1 where every cluster holds one modality only, "
        "1 / (number of modalities) where they are well mixed. In brackets what pairing or labels by chance would give."
    )
    return Table(f"space-{slug(benchmark)}", f"The joint space on {title}", tuple(columns), tuple(rows), caption)


def runs_table(study: Study) -> Table:
    """What became of every run of the plan."""
    rows = []
    for run in study.runs:
        seconds = [study.stages[name].seconds for name in run.stages]
        total = sum(s for s in seconds if s is not None) if any(s is not None for s in seconds) else None
        steps, clips = (
            sum(getattr(study.stages[name], part) for name in run.stages) for part in ("num_steps", "num_clips")
        )
        rows.append((
            Cell(str(Order.parse(run.order))), Cell(str(run.seed), run.seed),
            Cell(run.status, strong=run.status != "done"), Cell(f"{steps:,}", steps), Cell(f"{clips:,}", clips),
            Cell("-" if total is None else f"{total:,.0f}", total), Cell(", ".join(run.stages)), Cell(run.why),
        ))  # fmt: skip
    labels = ("order", "seed", "status", "steps", "clips seen", "seconds", "stages", "why")
    numeric = (False, True, False, True, True, True, False, False)
    columns = tuple(Column(label, numeric=n) for label, n in zip(labels, numeric, strict=True))
    caption = "All stages of a run are counted, those that it shares with other runs too. Only finished runs enter the figures."
    return Table("runs", "Every run", columns, tuple(rows), caption)


def stages_table(study: Study) -> Table:
    """Parameters and cost of the stages, one row a stage of an order, means over seeds."""
    columns = tuple(
        Column(label, numeric=i > 0)
        for i, label in enumerate(
            ("stage", "trained parameters", "frozen parameters", "seeds", "steps", "clips seen", "seconds")
        )
    )
    rows = []
    by_chain: dict[str, list] = {}
    for stage in study.stages.values():
        if stage.finished:
            by_chain.setdefault(stage.chain, []).append(stage)
    for chain, several in by_chain.items():
        first = several[0]
        counts = [Cell("-" if n is None else f"{n:,}", n) for n in (first.trained, first.frozen)]
        seconds = [stage.seconds for stage in several if stage.seconds is not None]
        mean_s = sum(seconds) / len(seconds) if seconds else None
        rows.append((
            Cell(str(Order.parse(chain))), *counts, Cell(str(len(several)), len(several)),
            Cell(f"{first.num_steps:,}", first.num_steps), Cell(f"{first.num_clips:,}", first.num_clips),
            Cell("-" if mean_s is None else f"{mean_s:,.1f}", mean_s),
        ))  # fmt: skip
    caption = "A stage that several orders share was trained once. Seconds: mean over seeds, training alone."
    return Table("stages", "Stages", columns, tuple(rows), caption)
