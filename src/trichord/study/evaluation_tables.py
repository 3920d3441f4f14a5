"""The tables that `trichord evaluate` prints.

For a single model, these are a table of all retrieval results and a table of each other benchmark. For the orders of a study,
there is a table for each benchmark and scope. Another table lists the benchmarks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from trichord.errors import printable
from trichord.modality import Order
from trichord.study.figures import Measure, notes_of_seeds
from trichord.study.table import results_table
from trichord.tasks.protocol import Row
from trichord.tasks.registry import protocols
from trichord.tasks.retrieval.measure import RetrievalResult

if TYPE_CHECKING:
    from rich.table import Table

    from trichord.study.evaluate import Evaluation


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """Return the tables of an evaluation for a terminal: one of all retrieval results, and one of each other benchmark."""
    tables = []
    results = [RetrievalResult(**r) for done in evaluation.benchmarks for r in done.outcome.details.get("results", ())]
    if results:
        tables.append(results_table(results))
    others = [done for done in evaluation.benchmarks if "results" not in done.outcome.details]
    return tables + [rows_table(done.name, done.outcome.rows) for done in others]


def rows_table(title: str, rows: Sequence[Row]) -> Table:
    """Return a table of figures for a terminal, with a row per scope and a column per measure, which includes chance.

    The number of units has its own column. If it differs between the measures of a row, it is printed next to each figure.

    Args:
        title: Title of the table.
        rows: Figures.
    """
    from rich.table import Table

    measures = list(dict.fromkeys(row.measure for row in rows))
    units = {row.measure: row.unit for row in rows}
    of_each = list(dict.fromkeys(row.of for row in rows))
    alike = all(len({row.num for row in rows if row.of == scope}) == 1 for scope in of_each)
    nums = {measure: {row.num for row in rows if row.measure == measure} for measure in measures}
    in_head = {measure for measure in measures if not alike and len(nums[measure]) == 1}
    out = Table(title=title, title_justify="left")
    out.add_column("of")
    for measure in measures:
        heading = measure if units[measure] in ("%", "rank") else f"{measure} ({units[measure]})"
        out.add_column(f"{heading}\n{_num_text(nums[measure])}" if measure in in_head else heading, justify="right")
    if alike:
        out.add_column("n", justify="right")
    for scope in of_each:
        mine = {row.measure: row for row in rows if row.of == scope}
        cells = [_cell(mine.get(measure), with_num=not alike and measure not in in_head) for measure in measures]
        out.add_row(scope, *cells, *([f"{next(iter(mine.values())).num:,}"] if alike else []))
    return out


def _cell(row: Row | None, with_num: bool = False) -> str:
    if row is None:
        return ""
    value = f"{row.value:.1f}" if row.unit == "rank" else f"{row.value:.2f}"
    notes = [] if row.chance is None else [f"chance {row.chance:.2f}"]
    notes += [_num_text([row.num])] if with_num else []
    return f"{value} ({', '.join(notes)})" if notes else value


def _num_text(nums: Collection[int]) -> str:
    """Return the number of units as text: `n = 8`, or `n = 8 to 60` if it differs."""
    return f"n = {min(nums):,}" if len(set(nums)) == 1 else f"n = {min(nums):,} to {max(nums):,}"


WIDTH = 100  # of the columns of figures; with order, seeds and borders, a table then fits 120 columns


def order_tables(figures: Sequence[Measure], orders: Sequence[Order]) -> list[Table]:
    """Return a table for each benchmark and scope, with a row per order, a column per measure, and chance in the last row.

    Measures that do not fit 120 columns are moved to another table. `-` means that the order lacks the figure.

    Args:
        figures: Figures of all orders.
        orders: Orders of the rows.
    """
    tables = []
    for name, scope in dict.fromkeys((f.benchmark, f.of) for f in figures):
        mine = [f for f in figures if (f.benchmark, f.of) == (name, scope)]
        tables += [_order_table(name, scope, part, orders) for part in _fitting(mine)]
    return tables


def _fitting(figures: Sequence[Measure]) -> Iterator[list[Measure]]:
    """Yield groups of figures whose columns are at most WIDTH wide. The figures of a measure are in the same group."""
    part: list[Measure] = []
    used = 0
    for measure in dict.fromkeys(f.measure for f in figures):
        column = [f for f in figures if f.measure == measure]
        width = 3 + _width(measure, column)
        if part and used + width > WIDTH:
            yield part
            part, used = [], 0
        part, used = [*part, *column], used + width
    yield part


def _order_table(name: str, scope: str, figures: Sequence[Measure], orders: Sequence[Order]) -> Table:
    from rich.table import Table
    from rich.text import Text

    measures = {f.measure: f.unit for f in figures}
    nums = {measure: frozenset(f.num for f in figures if f.measure == measure) for measure in measures}
    alike = len(set(nums.values())) == 1
    title = printable(f"{name}: {scope}, {_num_text(next(iter(nums.values())))}" if alike else f"{name}: {scope}")
    out = Table(title=Text(title), title_justify="left", min_width=min(len(title), WIDTH))
    out.add_column("order")
    for measure, unit in measures.items():
        heading = measure if unit in ("%", "rank") else f"{measure} ({unit})"
        width = _width(heading, [f for f in figures if f.measure == measure])
        lines = wrap(printable(heading), width) + ([] if alike else [_num_text(nums[measure])])
        out.add_column(Text("\n".join(lines)), justify="right")
    out.add_column("seeds", justify="right")
    for order in orders:
        mine = {f.measure: f for f in figures if f.order == order}
        seeds = ", ".join(dict.fromkeys(f.seeds for f in mine.values()))
        out.add_row(str(order), *(_order_cell(mine.get(m)) for m in measures), seeds or "-")
    chances = {m: [f.chance for f in figures if f.measure == m and f.chance is not None] for m in measures}
    if any(chances.values()):
        out.add_section()
        cells = (f"{sum(values) / len(values):.2f}" if values else "" for values in chances.values())
        out.add_row("chance", *cells, "", style="dim")
    return out


def _width(heading: str, column: Sequence[Measure]) -> int:
    """Return the width of a column. Its heading is wrapped between words, and the number of units is below it."""
    return max(len(text) for text in (*map(_order_cell, column), *heading.split(), _num_text([f.num for f in column])))


def _order_cell(figure: Measure | None) -> str:
    if figure is None:
        return "-"
    return figure.text


def order_caption(figures: Sequence[Measure]) -> str:
    """Return the lines that explain the figures of `order_tables`."""
    levels = sorted({f"{f.interval.level:.0%}" for f in figures if f.interval is not None})
    ranked = any(f.unit == "rank" for f in figures)
    sentences = ["Figures and chance are means over seeds, in percent unless another unit is given."]
    sentences += ["MedR is the median over all seeds and queries; ranks start at 1."] if ranked else []
    if levels:
        sentences.append(f"Brackets: {' and '.join(levels)} intervals over units (queries, clips, videos) and seeds.")
    sentences += notes_of_seeds(figures)
    return "\n".join(sentences)


def protocols_table(width: int) -> Table:
    """Return a table of all protocols by kind.

    Args:
        width: Number of columns of the terminal. The clips that each protocol scores are listed if they fit.
    """
    from rich.padding import Padding
    from rich.table import Table

    known = list(protocols().values())
    clips = {protocol.name: protocol.clips for protocol in known}
    columns = [[f"  {p.name}" for p in known], [p.title for p in known], [clips[p.name] for p in known]]
    fits = sum(max(map(len, column)) + 2 for column in columns) - 2 <= width
    out = Table.grid(padding=(0, 2), pad_edge=False)
    for number in range(3 if fits else 2):
        out.add_column(no_wrap=number != 1)
    for kind in dict.fromkeys(protocol.kind for protocol in known):
        out.add_row(Padding(f"[bold]{kind}[/bold]", (0 if kind == known[0].kind else 1, 0, 0, 0)))
        for protocol in known:
            if protocol.kind == kind:
                out.add_row(*(f"  {protocol.name}", protocol.title, protocol.clips)[: 3 if fits else 2])
    return out


def footer(evaluation: Evaluation) -> str:
    """Return a line on the units of the figures in the tables, or ''."""
    rows = [row for done in evaluation.benchmarks for row in done.outcome.rows]
    shares = [row for row in rows if row.unit == "%"]
    parts = []
    if shares:
        what = "Recalls" if all(row.measure.startswith(("R@", "recall")) for row in shares) else "Figures"
        chance = any(row.chance is not None for row in shares)
        parts.append(f"{what} and chance in percent" if chance else f"{what} in percent")
    if any(row.unit == "rank" for row in rows):
        parts.append("ranks start at 1" if parts else "Ranks start at 1")
    return f"{'; '.join(parts)}." if parts else ""
