"""The document of a report of evaluations: what was found first, then each benchmark, then what tells systems apart. Numbers
come from `evaluation_analysis`, tables from `evaluation_tables`, figures from `evaluation_plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trichord.evaluation.comparison import Comparison, leaders, listed
from trichord.evaluation.printed import figure_text, percent
from trichord.evaluation.statistics import Difference
from trichord.modality import Direction
from trichord.report import plots
from trichord.report.document import Block, Document, Figure, Section, Text, distinct_slugs
from trichord.report.duels import duels_section
from trichord.report.evaluation_analysis import Bench, Measure, Target, analyse, in_words, note_of_seeds, rule_of
from trichord.report.evaluation_plots import (
    IntervalPanel,
    IntervalRow,
    RecallCurve,
    intervals,
    recall_curves,
    system_colours,
)
from trichord.report.evaluation_queries import clearest_duel, curve_of
from trichord.report.evaluation_repeat import repeat_section
from trichord.report.evaluation_tables import comparison_table, figures_table, systems_table
from trichord.report.tables import in_percent, is_apart, p_text
from trichord.study.figures import System
from trichord.study.units import choices

MOST_PANELS = 12  # of a figure; all rows are in the tables
MOST_CURVES = 8
NAMED = 6  # pairs that a sentence names
DUELS = "The two systems of each benchmark that differ most clearly, where they do. Of ranks 1 is best, of other values more."
SMALL_GALLERY = 50.0  # chance of the main recall in percent, above which systems cannot be told apart


def build(systems: Sequence[System], *, direction: str = "", level: float = 0.95) -> Document:
    """The report of evaluations.

    Args:
        systems: Read.
        direction: Shown first; '' takes the order of the files.
        level: Of all intervals.

    Raises TrichordError when arrays do not fit the figures, or no benchmark was scored in that direction.
    """
    if direction:
        direction = Direction.parse(direction).code
    benches = analyse(systems, direction=direction, level=level)
    colours, several = system_colours(systems), len(systems) > 1
    slugs = dict(zip([bench.key for bench in benches], distinct_slugs(map(_named, benches)).values(), strict=True))
    found = ((bench, clearest_duel(bench)) for bench in benches)
    duels = [(slugs[b.key], f"{b.title}, {duel.of}", duel) for b, duel in found if duel is not None]
    sections = [
        Section("What was scored", (systems_table(systems), *_model_notes(systems))),
        *(_bench_section(bench, slugs[bench.key], colours, several, level) for bench in benches),
        _comparison_section(benches, level) if several else None,
        duels_section(duels, colours, DUELS, "units"),
        repeat_section(systems, direction, level),
    ]
    names = ", ".join(system.name for system in systems)
    seeds = sorted({system.num_seeds for system in systems})
    told = (
        f"{seeds[0]} to {seeds[-1]} seeds each"
        if len(seeds) > 1
        else f"{seeds[0]} seed{'s' if seeds[0] > 1 else ''} each"
    )
    subtitle = f"{len(systems)} system{'s' if several else ''}, {len(benches)} benchmark{'s' if len(benches) > 1 else ''}, {told}"
    summary = [_sentence(bench, several) for bench in benches] + _warnings(systems, benches, several)
    title = f"Evaluation{'s' if several else ''}: {names if len(names) <= 90 else f'{len(systems)} systems'}"
    return Document(title, subtitle, tuple(s for s in sections if s is not None), tuple(summary))


def _named(bench: Bench) -> str:
    """Of a benchmark's tables and figures: its protocol and the clips; each once."""
    return "-".join(part for part in bench.key if part)


# ---- what is said first


def _sentence(bench: Bench, several: bool) -> str:
    """Of the first target. Systems that were not compared are not ranked either."""
    target = next((target for target in bench.targets if target.main), bench.targets[0])
    figures = {name: of[target.shown] for name, of in target.figures.items() if target.shown in of}
    head = f"{bench.title}, {target.name}, {target.shown}"
    chances = [figure.chance for figure in figures.values() if figure.chance is not None]
    chance = f"; chance is {percent(chances[0], 1)}" if chances else ""
    if not several or len(figures) == 1:
        (name, found), *_ = figures.items()
        return f"{head}: {f'{name} has ' if several else ''}{_value(found)}{chance}."
    groups = [(list(found.recalls), found) for found in target.comparisons] if target.main else [(list(figures), None)]
    told = []
    for names, comparison in groups:
        best, *level_with_it = leaders({name: figures[name].estimate for name in names})
        among = "" if len(names) == len(figures) else f"of {', '.join(names)} "
        verdict = _verdict(comparison, best) if comparison is not None else ""
        highest = f"the highest is {best} with {_value(figures[best])}"
        if level_with_it:
            highest = f"the highest are {listed([best, *level_with_it])}, of which {best} has {_value(figures[best])}"
        told.append(f"{among}{highest}{chance}.{verdict}")
    alone = [name for name in figures if not any(name in names for names, _ in groups)]
    told += [
        f"not compared: {', '.join(f'{name} {_value(figures[name])}' for name in alone)}{'' if told else chance}."
    ] * bool(alone)
    return f"{head}: " + " ".join(part if at == 0 else part[0].upper() + part[1:] for at, part in enumerate(told))


def _value(found: Measure) -> str:
    return f"{figure_text(found.estimate, found.low, found.high)} %"


def _verdict(found: Comparison, best: str = "") -> str:
    """What a comparison says, as sentences that follow another; of `best` alone where it is given."""
    pairs = [pair for pair in found.differences if not best or best in (pair.a, pair.b)]
    apart = [pair for pair in pairs if pair.p_adjusted < 1 - pair.level]
    told = []
    if min(recall.num_seeds for recall in found.recalls.values()) > 1:
        verdict = in_words(found.verdict)
        told.append(f"{verdict[0].upper() if verdict.startswith('not ') else verdict[0]}{verdict[1:]}.")
        if found.winner is None and apart:
            told.append(f"Told apart: {_pairs(apart)}.")
    else:
        if methods := [pair for pair in apart if is_apart(pair)]:
            told.append(f"Told apart: {_pairs(methods)}.")
        if models := [pair for pair in apart if not is_apart(pair)]:
            told.append(f"As trained models these differ: {_pairs(models)}.")
        if rest := [pair for pair in pairs if pair not in apart]:
            told.append(
                f"Not seen to differ: {'; '.join(f'{pair.a} and {pair.b}' for pair in rest[:NAMED])}{_more(rest)}."
            )
    return "".join(f" {part}" for part in told)


def _more(items: Sequence[object]) -> str:
    return f"; and {len(items) - NAMED} more" if len(items) > NAMED else ""


def _pairs(pairs: Sequence[Difference]) -> str:
    out = []
    for pair in pairs[:NAMED]:
        ahead, behind = (pair.a, pair.b) if pair.estimate > 0 else (pair.b, pair.a)
        out.append(
            f"{ahead} is ahead of {behind} ({abs(pair.estimate):.1f} points, adjusted p {p_text(pair.p_adjusted)})"
        )
    return "; ".join(out) + _more(pairs)


def _warnings(systems: Sequence[System], benches: Sequence[Bench], several: bool) -> list[str]:
    told = [f"{sentence}." for system in systems for sentence in system.left_out]
    alone = [system.name for system in systems if system.num_seeds == 1]
    if several and alone and any(target.comparisons for bench in benches for target in bench.targets):
        whose = "Every system has" if len(alone) == len(systems) else f"{', '.join(alone)}:"
        told.append(
            f"{whose} one seed: trained models are compared, not the methods that made them; another seed of a method may score "
            "otherwise, and no winner is named."
        )
    elif note := note_of_seeds(systems):
        told.append(f"Intervals: {note}.")
    for bench in benches:
        told += [f"{bench.title}: {sentence}." for sentence in bench.apart if " not compared with " in sentence]
        small = [target.name for target in bench.targets if bench.first.kind == "retrieval" and _is_small(target)]
        if small:
            where = f"{', '.join(small[:3])}{', ...' if small[3:] else ''}"
            told.append(
                f"{bench.title}: the gallery is small: chance is above 50 % at {bench.targets[0].shown} in {where}."
            )
    return told


def _is_small(target: Target) -> bool:
    chances = [of[target.main].chance for of in target.figures.values() if target.main in of]
    return any(chance is not None and chance > SMALL_GALLERY for chance in chances)


def _model_notes(systems: Sequence[System]) -> list[Block]:
    notes: dict[str, list[str]] = {}
    for system in systems:
        for note in dict.fromkeys([*system.notes, *_plain_notes(system)]):
            notes.setdefault(note, []).append(system.name)
    return [Text(tuple(_of_systems(notes, len(systems))))] if notes else []


def _plain_notes(system: System) -> list[str]:
    """Of its models, without the name that the table has."""
    return [note.removeprefix(f"{scores.subject}: ") for scores in system.scores for note in scores.notes]


def _of_systems(notes: Mapping[str, Sequence[str]], num: int) -> list[str]:
    """Each note once, with the systems it holds of where not of all."""
    return [
        f"{note[:1].upper()}{note[1:]}" if len(names) == num else f"{', '.join(names)}: {note}"
        for note, names in notes.items()
    ]


# ---- a benchmark


def _bench_section(bench: Bench, slug: str, colours: Mapping[str, str], several: bool, level: float) -> Section:
    notes: dict[str, list[str]] = {}
    for name, models in bench.models.items():
        own = (note.removeprefix(f"{scored.head}: ") for scored in models.scored for note in scored.notes)
        for note in dict.fromkeys(own):
            notes.setdefault(note, []).append(name)
    blocks: list[Block] = [Text((_choices_told(bench), *_of_systems(notes, len(bench.models))))]
    if bench.apart:
        blocks.append(Text(tuple(f"{sentence}." for sentence in bench.apart), "warning"))
    blocks.append(figures_table(bench, slug, several, level))
    blocks.append(_intervals_figure(bench, slug, colours, several, level))
    if (curves := _curves_figure(bench, slug, colours)) is not None:
        blocks.append(curves)
    return Section(bench.title, tuple(blocks), bench.first.paragraph)


def _choices_told(bench: Bench) -> str:
    """How it was scored, once where all systems were scored alike."""
    told: dict[str, list[str]] = {}
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
        parts += [f"a gallery of {gallery:,} clips that were named"] if isinstance(gallery, int) and gallery else []
        told.setdefault(", ".join(parts), []).append(name)
    lines = [f"{', '.join(names)}: {how}" if len(told) > 1 else how for how, names in told.items()]
    return f"Scored with: {'; '.join(lines)}."


def _intervals_figure(bench: Bench, slug: str, colours: Mapping[str, str], several: bool, level: float) -> Figure:
    drawn = [target for target in bench.targets if target.main] or bench.targets
    measure = drawn[0].shown
    shown = [target for target in drawn if target.shown == measure]

    def row(label: str, target: Target, system: str, colour: str) -> IntervalRow:
        f = target.figures[system][measure]
        return IntervalRow(label, f.estimate, f.low, f.high, f.chance, colour)

    if several:
        panels = [
            IntervalPanel(t.name, [row(s, t, s, colours[s]) for s in t.figures if measure in t.figures[s]])
            for t in shown[:MOST_PANELS]
        ]
    else:
        (system,) = bench.models
        rows = [row(t.name, t, system, colours[system]) for t in shown if measure in t.figures.get(system, {})]
        panels = [IntervalPanel(bench.title, rows)]
    left = f" The first {MOST_PANELS} of {len(shown)} are drawn." if several and len(shown) > MOST_PANELS else ""
    seeds = " and seeds" if any(len(models.seeds) > 1 for models in bench.models.values()) else ""
    known = any(r.low is not None for panel in panels for r in panel.rows)
    caption = (
        f"Bars: {in_percent(level)} intervals over units{seeds}.{left}" if known else f"No intervals are known.{left}"
    )
    names = ", ".join(bench.models)
    unit = (
        next(iter(shown[0].figures.values()))[measure].unit if measure in next(iter(shown[0].figures.values())) else "%"
    )
    return Figure(
        f"intervals-{slug}", f"{measure}, {bench.title}", intervals(panels, f"{measure} ({unit})"), caption,
        f"{measure} of {names} on {bench.title} with intervals and chance",
    )  # fmt: skip


def _curves_figure(bench: Bench, slug: str, colours: Mapping[str, str]) -> Figure | None:
    """Recall at every K in the first direction."""
    target = bench.targets[0]
    if bench.first.kind != "retrieval" or not target.main:
        return None
    curves, chance = [], None
    apart = len({target.of(name) for name in target.figures}) > 1
    for system in list(target.figures)[:MOST_CURVES]:
        if (found := curve_of(bench.models[system], target)) is None:
            continue
        label = f"{system}, {rule_of(bench, system, target)}" if apart else system
        curves.append(RecallCurve(label, found[0], found[1], colours[system]))
        if len(found[2]) and chance is None:
            chance = RecallCurve("chance", found[0], found[2])
    if not curves:
        return None
    left = f" The first {MOST_CURVES} systems." if len(target.figures) > MOST_CURVES else ""
    names = ", ".join(curve.label for curve in curves)
    return Figure(
        f"recall-{slug}", f"Recall at every K, {bench.title}, {target.name}",
        recall_curves(f"{bench.title}, {target.name}", curves, chance),
        f"The share of queries whose truth is among the first K; queries that count as errors are never found.{left}",
        f"Recall of {names} over K from 1 to the size of the gallery",
    )  # fmt: skip


# ---- comparison


def _comparison_section(benches: Sequence[Bench], level: float) -> Section:
    compared = [bench for bench in benches if any(target.comparisons for target in bench.targets)]
    sentences = [f"{bench.title}: {sentence}." for bench in benches for sentence in bench.apart]
    silent = [bench.title for bench in benches if not any(target.main for target in bench.targets)]
    if silent:
        sentences.append(
            f"{', '.join(silent)}: no comparison; their figures have no main measure that is a mean over units."
        )
    intro = (
        "Systems are compared in one main measure of each benchmark and of each thing that its figures are of, over the same "
        "units, seeds as the outer level where there are several. Holm's family is all pairs in all of these rows. A system is "
        "called the winner only where all have two seeds or more and it beats every other one after the correction; with one seed "
        "each it is trained models that are compared, not methods."
    )
    if not compared:
        return Section(
            "Which systems differ", (Text(tuple(sentences or ["No two systems can be compared."]), "warning"),), intro
        )
    panels = []
    for bench in compared:
        target = next(target for target in bench.targets if target.comparisons)
        pairs = [pair for found in target.comparisons for pair in found.differences]
        rows = [(f"{d.a} − {d.b}", d.estimate, d.low, d.high, is_apart(d)) for d in pairs]
        panels.append(plots.DifferencePanel(f"{bench.name}, {target.name}, {target.main}", rows))
    verdicts = tuple(_finding(bench) for bench in compared)
    blocks: list[Block] = [
        Text(verdicts, "finding"),
        Figure(
            "differences", "Differences of the main measures", plots.differences(panels),
            f"Points with {in_percent(level)} intervals, the first direction or modality of each benchmark; filled: told apart at "
            "that level, with two seeds or more, after Holm's correction.",
            "Differences between pairs of systems with their intervals",
        ),
        comparison_table(compared, level),
    ]  # fmt: skip
    if sentences:
        blocks.append(Text(tuple(sentences), "warning"))
    return Section("Which systems differ", tuple(blocks), intro)


def _finding(bench: Bench) -> str:
    """What the first target of a benchmark says in full, and how often the others say so."""
    first, *others = [target for target in bench.targets if target.comparisons]
    verdicts = "".join(_verdict(found) for found in first.comparisons)
    told = f"{bench.title}, {first.name}, {first.main}:{verdicts}"
    if not others:
        return told
    pairs = [pair for target in others for found in target.comparisons for pair in found.differences]
    apart = sum(pair.p_adjusted < 1 - pair.level for pair in pairs)
    highest: dict[str, int] = {}
    for target in others:
        values = {name: of[target.main].estimate for name, of in target.figures.items() if target.main in of}
        for best in leaders(values):
            highest[best] = highest.get(best, 0) + 1
    rows = f"{len(others)} further rows" if len(others) > 1 else "one further row"
    who = ", ".join(f"{name} in {count}" for name, count in sorted(highest.items(), key=lambda item: -item[1]))
    return f"{told} In {rows} the highest is {who}; {apart} of their {len(pairs)} pairs differ after the correction."
