"""Sentences of a report: its summary, its warnings, and the section on which systems differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from trichord.evaluation.comparison import Comparison, leaders, listed
from trichord.evaluation.printed import in_percent, percent
from trichord.evaluation.replication import ONE_SEED, replication_note
from trichord.evaluation.statistics import Difference
from trichord.report import plots
from trichord.report.analysis import Bench, Target
from trichord.report.document import Block, Figure, Section, Text, first_of
from trichord.report.tables import differences_table, is_apart, p_text
from trichord.study.figures import Measure, System

NAMED = 6  # largest number of pairs that a sentence names
SMALL_GALLERY = 50.0  # chance of the main recall in percent above which systems are hard to distinguish
RULES = {
    "system": "Systems are compared in the main measure of each direction or modality of a benchmark, over the same units. If "
    "there are several seeds, they form the outer level. Holm's correction covers all pairs in all of these rows. A "
    "system is named the winner only if all systems have two seeds or more and it is better than every other one after the "
    "correction. With one seed each, the comparison is between trained models, not between methods.",
    "order": "Orders are compared over the same queries, with the seeds as the outer level. An order is named the winner only if "
    "it is better than every other one after Holm's correction. Otherwise, the sentence states how large a study would need to "
    "be to detect the difference.",
}


def sentence(bench: Bench, several: bool, noun: str) -> str:
    """Return the sentence of the summary about the first target of a benchmark. Systems that were not compared are not ranked."""
    target = next((target for target in bench.targets if target.main), bench.targets[0])
    figures = {name: measures[target.shown] for name, measures in target.figures.items() if target.shown in measures}
    head = f"{bench.title}, {target.name}, {target.shown}"
    chances = [figure.chance for figure in figures.values() if figure.chance is not None]
    chance = f"; chance is {percent(chances[0], 1)} %" if chances else ""
    if not several or len(figures) == 1:
        (name, figure), *_ = figures.items()
        return f"{head}: {f'{name} has ' if several else ''}{_value(figure)}{chance}."
    groups = [(list(c.recalls), c) for c in target.comparisons] if target.main else [(list(figures), None)]
    parts = []
    for names, comparison in groups:
        best, *level_with_it = leaders({name: figures[name].estimate for name in names})
        among = "" if len(names) == len(figures) else f"of {', '.join(names)} "
        verdict = _verdict(comparison, noun, best) if comparison is not None else ""
        highest = f"the highest is {best} with {_value(figures[best])}"
        if level_with_it:
            highest = f"the highest are {listed([best, *level_with_it])}, of which {best} has {_value(figures[best])}"
        parts.append(f"{among}{highest}{chance}.{verdict}")
    alone = [name for name in figures if not any(name in names for names, _ in groups)]
    parts += [
        f"not compared: {', '.join(f'{name} {_value(figures[name])}' for name in alone)}{'' if parts else chance}."
    ] * bool(alone)
    return f"{head}: " + " ".join(part if at == 0 else part[0].upper() + part[1:] for at, part in enumerate(parts))


def _value(figure: Measure) -> str:
    return f"{figure.text} %"


def _verdict(comparison: Comparison, noun: str, best: str = "") -> str:
    """Return sentences about the result of a comparison. If `best` is given, only its differences are described."""
    pairs = [pair for pair in comparison.differences if not best or best in (pair.a, pair.b)]
    apart = [pair for pair in pairs if pair.p_adjusted < 1 - pair.level]
    sentences = []
    if min(recall.num_seeds for recall in comparison.recalls.values()) > 1:
        verdict = comparison.verdict.replace("every other order", f"every other {noun}")
        sentences.append(f"{verdict[0].upper() if verdict.startswith('not ') else verdict[0]}{verdict[1:]}.")
        if comparison.winner is None and apart:
            sentences.append(f"Significant differences: {_pairs(apart)}.")
    else:
        if methods := [pair for pair in apart if is_apart(pair)]:
            sentences.append(f"Significant differences: {_pairs(methods)}.")
        if models := [pair for pair in apart if not is_apart(pair)]:
            sentences.append(f"Significant differences between trained models: {_pairs(models)}.")
        if rest := [pair for pair in pairs if pair not in apart]:
            names = first_of([f"{pair.a} and {pair.b}" for pair in rest], NAMED, "; ")
            sentences.append(f"No significant difference: {names}.")
    return "".join(f" {sentence}" for sentence in sentences)


def _pairs(pairs: Sequence[Difference]) -> str:
    parts = []
    for pair in pairs:
        ahead, behind = (pair.a, pair.b) if pair.estimate > 0 else (pair.b, pair.a)
        parts.append(
            f"{ahead} is ahead of {behind} ({abs(pair.estimate):.1f} points, adjusted p {p_text(pair.p_adjusted)})"
        )
    return first_of(parts, NAMED, "; ")


def warnings(systems: Sequence[System], benches: Sequence[Bench], noun: str) -> list[str]:
    """Return the warnings that concern the figures: few seeds, different settings of scoring, small galleries."""
    lines = [f"{sentence}." for system in systems for sentence in system.left_out]
    alone = [system.name for system in systems if system.num_seeds == 1]
    compared = {name for bench in benches for target in bench.targets for c in target.comparisons for name in c.recalls}
    notes = [(system.name, replication_note(system.num_seeds, len(system.seeds))) for system in systems]
    if compared & set(alone):
        whose = f"Every {noun} has" if len(alone) == len(systems) else f"{', '.join(alone)}:"
        lines.append(
            f"{whose} one seed, so the comparison is between trained models, not between methods. Other seeds of the same method "
            "may give other figures, so no winner is named."
        )
        notes = [(name, "" if note == ONE_SEED else note) for name, note in notes]
    lines += [f"{line}." for line in by_note(notes, "Intervals: {}")]
    for bench in benches:
        lines += [f"{bench.title}: {sentence}." for sentence in bench.apart if " not compared with " in sentence]
        small = [target.name for target in bench.targets if bench.first.kind == "retrieval" and _is_small(target)]
        if small:
            measure = f"{bench.targets[0].shown} in {first_of(small, 3)}"
            lines.append(f"{bench.title}: the gallery is small: chance is above 50 % at {measure}.")
    return lines


def by_note(notes: Iterable[tuple[str, str]], of_all: str = "{}") -> list[str]:
    """Return each note once, preceded by the names that it concerns. Notes that concern all names are formatted with `of_all`."""
    names: dict[str, list[str]] = {}
    every = set()
    for name, note in notes:
        every.add(name)
        if note and name not in names.setdefault(note, []):
            names[note].append(name)
    return [
        of_all.format(f"{note[:1].upper()}{note[1:]}" if of_all == "{}" else note)
        if len(some) == len(every)
        else f"{', '.join(some)}: {note}"
        for note, some in names.items()
    ]


def _is_small(target: Target) -> bool:
    chances = [measures[target.main].chance for measures in target.figures.values() if target.main in measures]
    return any(chance is not None and chance > SMALL_GALLERY for chance in chances)


# ---- comparison


def comparison_section(
    benches: Sequence[Bench], level: float, noun: str, title: str, more: Sequence[Block] = ()
) -> Section:
    """Return the section on which systems differ: verdicts, a figure, the table of all pairs, `more`, and what was not compared."""
    compared = [bench for bench in benches if any(target.comparisons for target in bench.targets)]
    sentences = [f"{bench.title}: {sentence}." for bench in benches for sentence in bench.apart]
    silent = [bench.title for bench in benches if not any(target.main for target in bench.targets)]
    if silent:
        sentences.append(
            f"{', '.join(silent)}: no comparison, since the figures have no main measure that is a mean over units."
        )
    if not compared:
        nothing = Text(tuple(sentences or [f"No two {noun}s can be compared."]), "warning")
        return Section(title, (nothing,), RULES[noun])
    panels = []
    for bench in compared:
        target = next(target for target in bench.targets if target.comparisons)
        pairs = [pair for comparison in target.comparisons for pair in comparison.differences]
        rows = [
            plots.PointRow(f"{d.a} − {d.b}", [plots.Point(d.estimate, d.low, d.high, filled=is_apart(d))])
            for d in pairs
        ]
        panels.append(plots.PointPanel(f"{bench.name}, {target.name}, {target.main}", rows))
    blocks: list[Block] = [
        Text(tuple(_finding(bench, noun) for bench in compared), "finding"),
        Figure(
            "differences", "Differences of the main measures", plots.differences(panels),
            f"Differences in points with {in_percent(level)} intervals, in the first direction or modality of each benchmark. "
            "Filled markers: the difference is significant at that level after Holm's correction, with two seeds or more.",
            f"Differences between pairs of {noun}s with their intervals",
        ),
        differences_table(compared, level, noun),
        *more,
    ]  # fmt: skip
    if sentences:
        blocks.append(Text(tuple(sentences), "warning"))
    return Section(title, tuple(blocks), RULES[noun])


def _finding(bench: Bench, noun: str) -> str:
    """Return the verdict on the first target of a benchmark, and the number of other targets in which each system is highest."""
    first, *others = [target for target in bench.targets if target.comparisons]
    verdicts = "".join(_verdict(comparison, noun) for comparison in first.comparisons)
    sentence_on_first = f"{bench.title}, {first.name}, {first.main}:{verdicts}"
    if not others:
        return sentence_on_first
    pairs = [pair for target in others for comparison in target.comparisons for pair in comparison.differences]
    apart = sum(pair.p_adjusted < 1 - pair.level for pair in pairs)
    highest: dict[str, int] = {}
    for target in others:
        values = {
            name: measures[target.main].estimate for name, measures in target.figures.items() if target.main in measures
        }
        for best in leaders(values):
            highest[best] = highest.get(best, 0) + 1
    rows = f"{len(others)} further rows" if len(others) > 1 else "one further row"
    who = ", ".join(f"{name} in {count}" for name, count in sorted(highest.items(), key=lambda item: -item[1]))
    return (
        f"{sentence_on_first} In {rows}, the highest is {who}; {apart} of {len(pairs)} pairs differ significantly after the "
        "correction."
    )


def of_systems(notes: Mapping[str, Iterable[str]]) -> Text | None:
    """Return the notes on systems as a block, or None if there are none."""
    lines = by_note((name, note) for name, some in notes.items() for note in [*some, ""])
    return Text(tuple(lines)) if lines else None
