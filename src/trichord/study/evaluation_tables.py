"""What `trichord evaluate` prints: retrieval in one table, each other benchmark in its own, and the list of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trichord.evaluation.retrieval import RetrievalResult
from trichord.protocols.protocol import Row
from trichord.protocols.registry import protocols
from trichord.study.table import results_table

if TYPE_CHECKING:
    from rich.table import Table

    from trichord.study.evaluate import Evaluation


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """Retrieval in one table; each other benchmark in its own, for a terminal."""
    tables = []
    results = [RetrievalResult(**r) for done in evaluation.benchmarks for r in done.outcome.details.get("results", ())]
    if results:
        tables.append(results_table(results))
    others = [done for done in evaluation.benchmarks if "results" not in done.outcome.details]
    return tables + [rows_table(done.name, done.outcome.rows) for done in others]


def rows_table(title: str, rows: Sequence[Row]) -> Table:
    """A line for each thing that figures are of, a column for each measure, with chance behind it; for a terminal."""
    from rich.table import Table

    measures = list(dict.fromkeys(row.measure for row in rows))
    units = {row.measure: row.unit for row in rows}
    out = Table(title=title, title_justify="left")
    out.add_column("of")
    for measure in measures:
        out.add_column(measure if units[measure] in ("%", "rank") else f"{measure} ({units[measure]})", justify="right")
    out.add_column("n", justify="right")
    for of in dict.fromkeys(row.of for row in rows):
        mine = {row.measure: row for row in rows if row.of == of}
        cells = [_cell(mine.get(measure)) for measure in measures]
        out.add_row(of, *cells, ", ".join(dict.fromkeys(f"{row.num:,}" for row in mine.values())))
    return out


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    value = f"{row.value:.1f}" if row.unit == "rank" else f"{row.value:.2f}"
    return value if row.chance is None else f"{value} (chance {row.chance:.2f})"


def protocols_table() -> Table:
    """Every protocol, for a terminal."""
    from rich.table import Table

    out = Table()
    for name in ("benchmark", "kind", "title", "clips of a store", "published sizes"):
        out.add_column(name)
    for protocol in protocols().values():
        sizes = ", ".join(f"{size:,} {what}" for what, size in protocol.sizes.items())
        out.add_row(protocol.name, protocol.kind, protocol.title, protocol.clips or "any", sizes)
    return out
