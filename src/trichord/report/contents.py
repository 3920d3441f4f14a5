"""The documents of the reports on studies and on evaluations.

Both have figures, comparisons and queries from `analysis`, with the sentences of `findings`. The report of a study also has the
order table, published figures, the joint space, the training and the runs (`contents_space`, `contents_training`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trichord.evaluation.printed import in_percent
from trichord.modality import Direction
from trichord.report import plots
from trichord.report.analysis import (
    Bench,
    BenchmarkPair,
    Target,
    analyse,
    analyse_study,
    interactions,
    notes_on_orders,
    rule_of,
    targets_of,
)
from trichord.report.contents_repeat import repeat_evaluations_section, repeat_section
from trichord.report.contents_space import space_section
from trichord.report.contents_training import training_section
from trichord.report.document import Block, Document, Figure, Section, Text, distinct_slugs, first_of
from trichord.report.duels import duels_section
from trichord.report.findings import comparison_section, of_systems, sentence, warnings
from trichord.report.plots_figures import RecallCurve, recall_curves, system_colours
from trichord.report.queries import clearest_duel, curve_of
from trichord.report.reading import Study
from trichord.report.tables import (
    MEASURES,
    directions_table,
    interactions_table,
    order_table,
    published_table,
    sizes_table,
)
from trichord.report.tables_figures import figures_table, systems_table
from trichord.report.tables_training import runs_table
from trichord.study.figures import System
from trichord.study.units import choices
from trichord.tasks.benchmarks import PUBLISHED

MOST_PANELS = 12  # largest number of panels of a figure; tables contain all rows
MOST_CURVES = 8
DUELS = (
    "The two {} of each benchmark with the clearest difference. Values are means over seeds. Of ranks, 1 is best; of other values, "
    "higher is better."
)


# ---- a study


def build_study(study: Study, *, direction: Direction | None = None, level: float = 0.95) -> Document:
    """Return the report of a study whose runs passed `check_comparable`.

    Args:
        study: Study.
        direction: Direction of the main table. None uses the first one of the recipe that was scored.
        level: Level of all intervals.
    """
    main = direction or study.directions[0]
    benches = analyse_study(study, main, level=level)
    targets = targets_of(benches, main)
    notes = {target.benchmark: notes_on_orders(study, target, main) for target in targets}
    systems = _with_lost_runs(study)
    varies = interactions(targets, level)
    slugs = distinct_slugs(benchmark["name"] for benchmark in study.benchmarks)
    keys = {(name, ""): slug for name, slug in slugs.items()}
    colours = plots.order_colours(study.orders)
    first = [bench for bench in benches if bench.targets[0].name == main.code]
    sections = [
        _order_section(study, targets, notes, main, level),
        comparison_section(first, level, "order", "Which order is best", _varying(varies))
        if len(systems) > 1
        else None,
        Section("Every direction", (directions_table(benches, list(dict.fromkeys([main, *study.directions])), level),))
        if len(study.directions) > 1
        else None,
        _duels_section(first, keys, system_colours(systems), "orders", "queries"),
        space_section(study, slugs, colours),
        training_section(study, colours),
        Section("Runs", (runs_table(study),)),
        _published_section(study, level),
        repeat_section(study, main, level),
    ]
    summary = [sentence(bench, True, "order") for bench in first]
    summary += [f"{pair.first} against {pair.second}: {pair.verdict}." for pair in varies]
    summary += warnings(systems, first, "order") + _notes(notes, targets)
    seeds = len({run.seed for run in study.done})
    subtitle = (
        f"Zero-shot retrieval {main} by order of modalities; {len(study.done)} finished runs, "
        f"{len(study.orders)} orders, {seeds} seed{'s' * (seeds != 1)}"
    )
    return Document(f"Order study: {study.name}", subtitle, tuple(s for s in sections if s is not None), tuple(summary))


def _with_lost_runs(study: Study) -> list[System]:
    """Return the orders of a study. The notes of the first order name the runs that are not in the figures."""
    systems = list(study.systems)
    if lost := [run for run in study.runs if run.status != "done"]:
        names = first_of([f"{run} ({run.status})" for run in lost], 4)
        systems[0] = replace(
            systems[0], left_out=(f"{len(lost)} of {len(study.runs)} runs are not in the figures: {names}",)
        )
    return systems


def _notes(notes: Mapping[str, Mapping[str, Sequence[str]]], targets: Sequence[Target]) -> list[str]:
    """Return each note on orders as a sentence with its orders, and its benchmarks unless it concerns all of them."""
    where: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        for order, own in notes[target.benchmark].items():
            for note in own:
                where.setdefault((note, order), []).append(target.title)
    orders: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (note, order), titles in where.items():
        every = sum(order in target.figures for target in targets) == len(titles)
        orders.setdefault((note, () if every else tuple(titles)), []).append(order)
    return [
        f"{', '.join(names)}{' on ' if titles else ''}{', '.join(titles)}: {note}."
        for (note, titles), names in orders.items()
    ]


def _order_section(
    study: Study,
    targets: Sequence[Target],
    notes: Mapping[str, Mapping[str, Sequence[str]]],
    direction: Direction,
    level: float,
) -> Section:
    colours = system_colours(study.systems)
    shown = [system.name for system in study.systems if any(system.name in target.figures for target in targets)]
    panels = [
        plots.PointPanel(target.title, [plots.PointRow(n, _points(target, n, MEASURES), colours[n]) for n in shown])
        for target in targets
    ]
    svg = plots.intervals(panels, "recall (%)", MEASURES)
    picture = Figure(
        "recalls", "Recall by order", svg,
        f"Points are means over seeds, bars are {in_percent(level)} intervals over queries and seeds.",
        f"Recalls of {', '.join(map(str, study.orders))} with intervals on {len(targets)} benchmarks",
    )  # fmt: skip
    protocols = Text(tuple(f"{b['title']}: {b['protocol']}" for b in study.benchmarks if b.get("protocol")))
    published = (published_table(target.benchmark, target.title, level) for target in targets)
    blocks = (order_table(targets, notes, direction, level), sizes_table(targets), picture, protocols)
    return Section("The order table", (*blocks, *(table for table in published if table is not None)))


def _points(target: Target, system: str, measures: Sequence[str]) -> list[plots.Point | None]:
    figures = (target.figures.get(system, {}).get(measure) for measure in measures)
    return [None if f is None else plots.Point(f.estimate, f.low, f.high, f.chance) for f in figures]


def _varying(varies: Sequence[BenchmarkPair]) -> list[Block]:
    verdicts = Text(tuple(f"{pair.first}, {pair.second}: {pair.verdict}." for pair in varies))
    return [verdicts, interactions_table(varies)] if varies else []


def _published_section(study: Study, level: float) -> Section | None:
    """Return the published tables of benchmarks on which the study was not scored, or None if there are none."""
    scored = {benchmark["name"] for benchmark in study.benchmarks}
    every = (published_table(name, known.title, level) for name, known in PUBLISHED.items() if name not in scored)
    tables = tuple(table for table in every if table is not None)
    intro = (
        "These figures were measured on other data than those of this study. They show the range of published results and the "
        "widths of their intervals, and must not be compared with the tables above."
    )
    return Section("Published figures", tables, intro) if tables else None


# ---- evaluations


def build_evaluations(
    systems: Sequence[System], *, direction: Direction | None = None, level: float = 0.95
) -> Document:
    """Return the report of evaluations.

    Args:
        systems: Systems.
        direction: Direction that is shown first. None keeps the sequence of the files.
        level: Level of all intervals.

    Raises:
        TrichordError: Arrays do not match the figures, or no benchmark was scored in this direction.
    """
    benches = analyse(systems, direction=direction, level=level)
    colours, several = system_colours(systems), len(systems) > 1
    named = ["-".join(filter(None, bench.key)) for bench in benches]
    slugs = dict(zip((bench.key for bench in benches), distinct_slugs(named).values(), strict=True))
    models = of_systems({s.name: dict.fromkeys([*s.notes, *_plain_notes(s)]) for s in systems})
    sections = [
        Section("What was scored", (systems_table(systems), *([models] if models else []))),
        *(_bench_section(bench, slugs[bench.key], colours, several, level) for bench in benches),
        comparison_section(benches, level, "system", "Which systems differ") if several else None,
        _duels_section(benches, slugs, colours, "systems", "units"),
        repeat_evaluations_section(systems, direction, level),
    ]
    names = ", ".join(system.name for system in systems)
    seeds = sorted({system.num_seeds for system in systems})
    num_seeds = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
    counts = f"{len(systems)} system{'s' * several}, {len(benches)} benchmark{'s' * (len(benches) > 1)}"
    subtitle = f"{counts}, {num_seeds} each"
    summary = [sentence(bench, several, "system") for bench in benches] + warnings(systems, benches, "system")
    title = f"Evaluation{'s' if several else ''}: {names if len(names) <= 90 else f'{len(systems)} systems'}"
    return Document(title, subtitle, tuple(s for s in sections if s is not None), tuple(summary))


def _duels_section(
    benches: Sequence[Bench], slugs: Mapping[tuple[str, str], str], colours: Mapping[str, str], nouns: str, table: str
) -> Section | None:
    clearest = ((bench, clearest_duel(bench)) for bench in benches)
    duels = [(slugs[bench.key], f"{bench.title}, {duel.target}", duel) for bench, duel in clearest if duel is not None]
    if nouns == "orders":  # the name of these columns in the report of a study since version 0.1.0
        duels = [
            (slug, title, replace(duel, what=duel.what.replace("rank, mean over seeds", "mean rank over seeds")))
            for slug, title, duel in duels
        ]
    return duels_section(duels, colours, DUELS.format(nouns), table)


def _plain_notes(system: System) -> list[str]:
    """Return the notes on the models of a system, without the name of the model, which is in the table."""
    return [note.removeprefix(f"{scores.subject}: ") for scores in system.scores for note in scores.notes]


def _bench_section(bench: Bench, slug: str, colours: Mapping[str, str], several: bool, level: float) -> Section:
    notes = {
        name: [note.removeprefix(f"{scored.head}: ") for scored in models.scored for note in scored.notes]
        for name, models in bench.models.items()
    }
    remarks = of_systems(notes)
    blocks: list[Block] = [Text((_choices_sentence(bench), *(remarks.paragraphs if remarks else ())))]
    if bench.apart:
        blocks.append(Text(tuple(f"{sentence}." for sentence in bench.apart), "warning"))
    blocks.append(figures_table(bench, slug, several, level))
    blocks.append(_intervals_figure(bench, slug, colours, several, level))
    if (curves := _curves_figure(bench, slug, colours)) is not None:
        blocks.append(curves)
    return Section(bench.title, tuple(blocks), bench.first.paragraph)


def _choices_sentence(bench: Bench) -> str:
    """Return a sentence on how the systems were scored, grouped by systems with the same choices."""
    by_choices: dict[str, list[str]] = {}
    for name, models in bench.models.items():
        row = next(iter(models.scored[0].rows))
        parts = [
            f"{what.removeprefix('the ')} {value}"
            for what, value in choices(models.scored[0], row).items()
            if value not in (None, "none")
        ]
        kind, options = models.scored[0].kind, models.scored[0].options
        labels, gallery = options.get("labels"), options.get("gallery")
        parts += [f"labels {labels}"] if labels and kind not in ("retrieval", "localization") else []
        parts += [f"a gallery from a list of {gallery:,} clips"] if isinstance(gallery, int) and gallery else []
        by_choices.setdefault(", ".join(parts), []).append(name)
    lines = [f"{', '.join(names)}: {how}" if len(by_choices) > 1 else how for how, names in by_choices.items()]
    return f"Scored with: {'; '.join(lines)}."


def _intervals_figure(bench: Bench, slug: str, colours: Mapping[str, str], several: bool, level: float) -> Figure:
    drawn = [target for target in bench.targets if target.main] or bench.targets
    measure = drawn[0].shown
    shown = [target for target in drawn if target.shown == measure]

    def row(label: str, target: Target, system: str) -> plots.PointRow:
        return plots.PointRow(label, _points(target, system, [measure]), colours[system])

    if several:
        panels = [
            plots.PointPanel(t.name, [row(s, t, s) for s in t.figures if measure in t.figures[s]])
            for t in shown[:MOST_PANELS]
        ]
    else:
        (system,) = bench.models
        rows = [row(t.name, t, system) for t in shown if measure in t.figures.get(system, {})]
        panels = [plots.PointPanel(bench.title, rows)]
    left = f" Only the first {MOST_PANELS} of {len(shown)} are drawn." if several and len(shown) > MOST_PANELS else ""
    seeds = " and seeds" if any(len(models.seeds) > 1 for models in bench.models.values()) else ""
    known = any(p is not None and p.low is not None for panel in panels for r in panel.rows for p in r.points)
    caption = (
        f"Bars are {in_percent(level)} intervals over units{seeds}.{left}"
        if known
        else f"No intervals are known.{left}"
    )
    names = ", ".join(bench.models)
    unit = (
        next(iter(shown[0].figures.values()))[measure].unit if measure in next(iter(shown[0].figures.values())) else "%"
    )
    return Figure(
        f"intervals-{slug}", f"{measure}, {bench.title}", plots.intervals(panels, f"{measure} ({unit})"), caption,
        f"{measure} of {names} on {bench.title} with intervals and chance",
    )  # fmt: skip


def _curves_figure(bench: Bench, slug: str, colours: Mapping[str, str]) -> Figure | None:
    """Return the figure of the recall at every K in the first direction, or None if the ranks were not saved."""
    target = bench.targets[0]
    if bench.first.kind != "retrieval" or not target.main:
        return None
    curves, chance = [], None
    apart = len({target.of(name) for name in target.figures}) > 1
    for system in list(target.figures)[:MOST_CURVES]:
        if (curve := curve_of(bench.models[system], target)) is None:
            continue
        k, recall, by_chance = curve
        label = f"{system}, {rule_of(target, system)}" if apart else system
        curves.append(RecallCurve(label, k, recall, colours[system]))
        if len(by_chance) and chance is None:
            chance = RecallCurve("chance", k, by_chance)
    if not curves:
        return None
    left = f" Only the first {MOST_CURVES} systems are drawn." if len(target.figures) > MOST_CURVES else ""
    names = ", ".join(curve.label for curve in curves)
    return Figure(
        f"recall-{slug}", f"Recall at every K, {bench.title}, {target.name}",
        recall_curves(f"{bench.title}, {target.name}", curves, chance),
        f"The share of queries with a true item among the first K. Queries that count as errors never have one.{left}",
        f"Recall of {names} over K from 1 to the size of the gallery",
    )  # fmt: skip
