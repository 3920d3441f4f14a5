"""The tables of a report of evaluations: systems and figures.

A cell with an interval also contains its ends and chance with full precision, for CSV and JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trichord.evaluation.printed import in_percent, percent
from trichord.evaluation.replication import ONE_SEED, TWO_SEEDS
from trichord.report.analysis import Bench, Target, rule_of
from trichord.report.document import Cell, Column, Table
from trichord.report.tables import DASH, measure_cell
from trichord.study.figures import Measure, System
from trichord.study.units import gallery_of

SYSTEM = Column("system", numeric=False)
OF = Column("of", numeric=False)
TAIL = ("units", "gallery", "seeds")


def systems_table(systems: Sequence[System]) -> Table:
    """Return the table of the systems: their models, seeds and stores."""
    rows = []
    for system in systems:
        subjects = list(dict.fromkeys(scores.subject for scores in system.scores))
        shown = system.study if system.study and len(subjects) > 1 else subjects[0]
        stores = [scores.store for scores in system.scores if scores.store is not None]
        places = "\n".join(dict.fromkeys(f"{store['path']} ({store['fingerprint'][:12]})" for store in stores))
        seeds = ", ".join(map(str, system.seeds)) if system.order is not None else "one model"
        rows.append((
            Cell(system.name), Cell(shown), Cell(places or "none: embeddings from a file"), Cell(seeds), Cell(str(system.folder)),
        ))  # fmt: skip
    labels = ("system", "models of", "store (fingerprint begins with)", "seeds", "evaluated in")
    columns = tuple(Column(label, numeric=False) for label in labels)
    return Table(
        "systems", "What was scored", columns, tuple(rows), "Paths are shown as they were given to trichord evaluate."
    )


def figure_cell(figure: Measure | None, *, strong: bool = False, chance: bool = False, note: str = "") -> Cell:
    """Return the cell of a figure with its interval.

    Args:
        figure: Figure. None gives an empty cell.
        strong: Whether the text is bold.
        chance: Whether to add a line with the chance level.
        note: Footnote.
    """
    cell = measure_cell(figure, strong=strong, note=note)
    if figure is None or figure.chance is None:
        return cell
    text = f"{cell.text}\nchance {percent(figure.chance)}" if chance else cell.text
    return replace(cell, text=text, values=(*cell.values, ("chance", figure.chance)))


def figures_table(bench: Bench, slug: str, several: bool, level: float) -> Table:
    """Return the table of all figures of a benchmark.

    With one system, it has a row for each target, and chance is printed below each figure. With several, it has a row for each
    system and target, and one for chance.
    """
    measures = bench.measures
    units = {m: f.unit for target in bench.targets for measures in target.figures.values() for m, f in measures.items()}
    heads = [Column(m if units[m] in ("%", "rank") else f"{m} ({units[m]})") for m in measures]
    num_runs = max(f.num_runs for t in bench.targets for measures in t.figures.values() for f in measures.values())
    tails = {(t.name, system): _tail(bench, t, system) for t in bench.targets for system in t.figures}
    varying = [what for what in TAIL if len({tail[what].text for tail in tails.values()}) > 1]
    every_column = [OF, *([SYSTEM] if several else []), *heads, *map(Column, varying)]
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for target in bench.targets:
        rules.append(len(rows))
        for system, figures in target.figures.items():
            cells = [figure_cell(figures.get(m), strong=_wins(target, system, m), chance=not several,
                                 note=_note(figures.get(m))) for m in measures]  # fmt: skip
            name = Cell(
                system,
                note=""
                if len({target.of(name) for name in target.figures}) == 1
                else f"fusion rule {rule_of(target, system)}",
            )
            head = [Cell(target.name), name] if several else [Cell(target.name)]
            rows.append((*head, *cells, *(tails[target.name, system][what] for what in varying)))
        if several and (chance := _chance(bench, target, measures)):
            rows.append((Cell(target.name), Cell("chance"), *chance, *([DASH] * len(varying))))
    parts = [
        f"Shares are in percent, ranks start at 1. In brackets: {in_percent(level)} intervals over units{_and_seeds(num_runs)}."
    ]
    one = next(iter(tails.values()))
    if same := [
        f"{what} {one[what].text}"
        for what in TAIL
        if what not in varying and one[what] is not DASH and (what, one[what].text) != ("seeds", "1")
    ]:
        parts.append(f"The same in all rows: {', '.join(same)}.")
    if several and any(target.winner for target in bench.targets):
        parts.append(f"Bold: better in {bench.targets[0].main} than every other system after Holm's correction.")
    if "MeanR" in measures or any(
        f.low is None for t in bench.targets for measures in t.figures.values() for f in measures.values()
    ):
        parts.append("Without brackets: the measure has no interval, or the results of its units were not saved.")
    separators = tuple(rules[1:]) if several else ()
    return Table(f"figures-{slug}", bench.title, tuple(every_column), tuple(rows), " ".join(parts), separators)


def _and_seeds(num_runs: int) -> str:
    return " and seeds" if num_runs > 1 else ", which do not cover other seeds"


def _wins(target: Target, system: str, measure: str) -> bool:
    return measure == target.main and target.winner == system


def _note(figure: Measure | None) -> str:
    """Return the note of a figure, or '' for notes on one or two seeds, which the page contains once for all figures."""
    return "" if figure is None or figure.note in (ONE_SEED, TWO_SEEDS) else figure.note


def _tail(bench: Bench, target: Target, system: str) -> dict[str, Cell]:
    """Return the cells of the columns `TAIL` for a row: units, gallery and seeds of its figures."""
    figures = target.figures[system].values()
    nums = sorted({figure.num for figure in figures})
    seeds = sorted({(figure.num_seeds, figure.seeds) for figure in figures})
    models = bench.models[system]
    row = next((row for row in models.scored[0].rows if row.of == target.of(system)), None)
    size = (
        gallery_of(models.scores[0], models.scored[0], row)
        if row is not None and bench.first.kind == "retrieval"
        else None
    )
    gallery = DASH if size is None else Cell(f"{size:,}", size)
    num_seeds = Cell(" to ".join(dict.fromkeys(text for _, text in (seeds[0], seeds[-1]))), seeds[-1][0])
    return {"units": _span(nums), "gallery": gallery, "seeds": num_seeds}


def _span(nums: Sequence[int]) -> Cell:
    least, most = nums[0], nums[-1]
    return Cell(f"{least:,}" if least == most else f"{least:,} to {most:,}", most)


def _chance(bench: Bench, target: Target, measures: Sequence[str]) -> list[Cell]:
    """Return the cell of chance for each measure, as a range if systems differ. [] if it is unknown for all measures."""
    cells = []
    for measure in measures:
        known = [
            f.chance
            for measures in target.figures.values()
            if (f := measures.get(measure)) is not None and f.chance is not None
        ]
        if not known:
            cells.append(DASH)
        elif percent(min(known)) == percent(max(known)):
            cells.append(Cell(percent(known[0]), known[0]))
        else:
            cells.append(
                Cell(f"{percent(min(known))} to {percent(max(known))}", min(known), values=(("most", max(known)),))
            )
    return [] if all(cell is DASH for cell in cells) else cells
