"""The tables that `trichord evaluate` prints.

For a single model, these are a table of all retrieval results and a table of each other benchmark. For the orders of a study,
there is a table for each benchmark and scope. Another table lists the benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from trichord.evaluation.printed import in_percent
from trichord.modality import Order
from trichord.study.figures import Measure, notes_of_seeds
from trichord.study.printed_tables import column_width, fitting, measure_heading, num_text, printed_table
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


def results_table(results: Sequence[RetrievalResult]) -> Table:
    """Return a table of retrieval results for a terminal, with a row per benchmark and direction."""
    rows = []
    for r in results:
        fusion = f"{r.fusion} + dual softmax" if r.dual_softmax else r.fusion
        fusion += f", {r.windows}" if r.windows else ""
        missing = f"{r.num_missing} ({r.missing})" if r.num_missing else "0"
        ranks = [f"{r.medr:.1f}", f"{r.meanr:.1f}", str(r.num_queries), missing, f"{r.chance_r10:.2f}"]
        rows.append([r.benchmark, r.direction, fusion, *(f"{recall:.2f}" for recall in (r.r1, r.r5, r.r10)), *ranks])
    names = ["benchmark", "direction", "fusion"]
    measures = ["R@1", "R@5", "R@10", "MedR", "MeanR", "queries", "missing", "chance R@10"]
    return printed_table(names + measures, rows, num_left=3)


def rows_table(title: str, rows: Sequence[Row]) -> Table:
    """Return a table of figures for a terminal, with a row per scope and a column per measure, which includes chance.

    The number of units has its own column. If it differs between the measures of a row, it is printed next to each figure.

    Args:
        title: Title of the table.
        rows: Figures.
    """
    scopes: dict[str, dict[str, Row]] = {}
    for row in rows:
        scopes.setdefault(row.of, {})[row.measure] = row
    alike = all(len({row.num for row in scope.values()}) == 1 for scope in scopes.values())
    headings: list[list[str]] = []
    with_num = {}
    for measure, unit in {row.measure: row.unit for row in rows}.items():
        nums = {row.num for row in rows if row.measure == measure}
        with_num[measure] = not alike and len(nums) > 1
        headings.append([measure_heading(measure, unit), *([] if alike or with_num[measure] else [num_text(nums)])])
    lines = []
    for name, scope in scopes.items():
        cells = [_cell(scope.get(measure), with_num[measure]) for measure in with_num]
        lines.append([name, *cells, *([f"{next(iter(scope.values())).num:,}"] if alike else [])])
    return printed_table(["of", *headings, *(["n"] if alike else [])], lines, title=title)


def _cell(row: Row | None, with_num: bool) -> str:
    if row is None:
        return ""
    value = f"{row.value:.1f}" if row.unit == "rank" else f"{row.value:.2f}"
    notes = [] if row.chance is None else [f"chance {row.chance:.2f}"]
    notes += [num_text([row.num])] if with_num else []
    return f"{value} ({', '.join(notes)})" if notes else value


def order_tables(figures: Sequence[Measure], orders: Sequence[Order]) -> list[Table]:
    """Return a table for each benchmark and scope, with a row per order, a column per measure, and chance in the last row.

    Measures that do not fit 120 columns are moved to another table. `-` means that the order lacks the figure.

    Args:
        figures: Figures of all orders.
        orders: Orders of the rows.
    """
    scopes: dict[tuple[str, str], dict[str, list[Measure]]] = {}
    for f in figures:
        scopes.setdefault((f.benchmark, f.of), {}).setdefault(f.measure, []).append(f)
    return [
        _order_table(f"{name}: {scope}", {measure: columns[measure] for measure in group}, orders)
        for (name, scope), columns in scopes.items()
        for group in fitting({measure: column_width(measure, _texts(column)) for measure, column in columns.items()})
    ]


def _order_table(title: str, columns: Mapping[str, Sequence[Measure]], orders: Sequence[Order]) -> Table:
    nums = {num_text([f.num for f in column]) for column in columns.values()}
    headings, rows = [], []
    for measure, column in columns.items():
        *_, num = texts = _texts(column)
        heading = wrap(measure_heading(measure, column[0].unit), column_width(measure, texts))
        headings.append(heading if len(nums) == 1 else [*heading, num])
    for order in orders:
        cells = [next((f for f in column if f.order == order), None) for column in columns.values()]
        seeds = ", ".join(dict.fromkeys(f.seeds for f in cells if f is not None))
        rows.append([str(order), *("-" if f is None else f.text for f in cells), seeds or "-"])
    chances = [[f.chance for f in column if f.chance is not None] for column in columns.values()]
    if any(chances):
        rows.append(["chance", *(f"{sum(values) / len(values):.2f}" if values else "" for values in chances), ""])
    title = f"{title}, {nums.pop()}" if len(nums) == 1 else title
    return printed_table(["order", *headings, "seeds"], rows, title=title, chance=any(chances))


def _texts(column: Sequence[Measure]) -> list[str]:
    return [*(f.text for f in column), num_text([f.num for f in column])]


def order_caption(figures: Sequence[Measure]) -> str:
    """Return the lines that explain the figures of `order_tables`."""
    levels = sorted({in_percent(f.interval.level) for f in figures if f.interval is not None})
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

    kinds: dict[str, list[tuple[str, str, str]]] = {}
    for protocol in protocols().values():
        kinds.setdefault(protocol.kind, []).append((f"  {protocol.name}", protocol.title, protocol.clips))
    columns = zip(*(line for lines in kinds.values() for line in lines), strict=True)
    num_columns = 3 if sum(max(map(len, column)) + 2 for column in columns) - 2 <= width else 2
    out = Table.grid(padding=(0, 2), pad_edge=False)
    for number in range(num_columns):
        out.add_column(no_wrap=number != 1)
    for number, (kind, lines) in enumerate(kinds.items()):
        out.add_row(Padding(f"[bold]{kind}[/bold]", (min(number, 1), 0, 0, 0)))
        for line in lines:
            out.add_row(*line[:num_columns])
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
