"""The order table, with a row for each order and for chance, and columns for R@1, R@5 and R@10 of each benchmark."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.errors import printable
from trichord.evaluation.ranks import RECALLS
from trichord.files.writing import replacing, write_text
from trichord.modality import Direction, Order
from trichord.study.drawing import drawing
from trichord.study.figures import Measure, ScoredRun, notes_of_seeds, order_figures
from trichord.study.printed_tables import printed_table
from trichord.study.scores import target_of

if TYPE_CHECKING:
    from rich.table import Table

TABLE_FILES = ("table.md", "table.csv", "table.tex", "orders.png")
MAX_TITLE = 60  # largest number of characters of the title of a panel


@dataclass(frozen=True)
class StudyTable:
    """The figures of the orders of a study, with their intervals.

    Attributes:
        direction: Retrieval direction of the cells.
        orders: Orders of the rows.
        benchmarks: Names of the benchmarks, in the order of the columns.
        titles: Headings of the benchmarks.
        figures: Recalls of every order, benchmark and direction.
        queries: Number of queries and size of the gallery of each benchmark.
        results: All result rows from which the table was made, in every direction.
    """

    direction: Direction
    orders: tuple[Order, ...]
    benchmarks: tuple[str, ...]
    titles: tuple[str, ...]
    figures: tuple[Measure, ...]
    queries: dict[str, tuple[int, int]]
    results: tuple[dict[str, Any], ...]

    @classmethod
    def from_results(
        cls,
        results: list[dict[str, Any]],
        titles: list[str],
        benchmarks: list[str],
        direction: Direction,
        runs: Sequence[ScoredRun],
    ) -> StudyTable:
        """Make a table of a direction from result rows.

        Args:
            results: Rows of all runs: the fields of `RetrievalResult`, `order` and `seed`.
            titles: Headings of the benchmarks.
            benchmarks: Names of the benchmarks.
            direction: Retrieval direction of the cells.
            runs: The same runs with the results of their queries.
        """
        orders = tuple(dict.fromkeys(run.run.order for run in runs if run.scores.benchmarks))
        recalls = tuple(figure for figure in order_figures(runs) if figure.unit == "%")
        table = cls(direction, orders, tuple(benchmarks), tuple(titles), recalls, {}, tuple(results))
        return table.for_direction(direction)

    @property
    def cells(self) -> dict[tuple[Order, str], tuple[Measure, ...]]:
        """R@1, R@5 and R@10 by order and benchmark, in the direction of the table. Pairs without results are missing."""
        cells: dict[tuple[Order, str], tuple[Measure, ...]] = {}
        for figure in self.figures:
            if figure.order is not None and target_of("retrieval", figure.of) == self.direction.code:
                key = figure.order, figure.benchmark
                cells[key] = (*cells.get(key, ()), figure)
        return cells

    @property
    def chance(self) -> dict[str, tuple[float, ...]]:
        """Chance of R@1, R@5 and R@10 by benchmark."""
        first: dict[str, tuple[Measure, ...]] = {}
        for (_, name), cells in self.cells.items():
            first.setdefault(name, cells)
        return {name: tuple(cell.chance or 0.0 for cell in cells) for name, cells in first.items()}

    def lines(self) -> list[list[str]]:
        """Return the rows as text: the label, then three recalls per benchmark. The last row is chance."""
        texts = {(str(order), name): [cell.text for cell in cells] for (order, name), cells in self.cells.items()}
        texts |= {("chance", name): [f"{value:.2f}" for value in values] for name, values in self.chance.items()}
        return [
            [label, *(text for name in self.benchmarks for text in texts.get((label, name), ["-"] * 3))]
            for label in (*map(str, self.orders), "chance")
        ]

    @property
    def caption(self) -> str:
        """Sentences that describe the figures and their numbers of seeds."""
        sizes = "; ".join(
            f"{title} {self.queries[name][0]} queries, {self.queries[name][1]} clips"
            for name, title in zip(self.benchmarks, self.titles, strict=True)
            if name in self.queries
        )
        small = [name for name, chances in self.chance.items() if chances[2] > 50]
        warning = " The gallery is too small to tell orders apart: chance is above 50 % at R@10." if small else ""
        direction = f"{self.direction} ({self.direction.code})"
        figures = [figure for cells in self.cells.values() for figure in cells]
        level = "with 95 % intervals over queries and seeds" if any(f.interval for f in figures) else "means over seeds"
        sentence = f"Zero-shot retrieval {direction}, recall in percent, {level}; {sizes}; {self._seeds(figures)}."
        return " ".join([sentence, *notes_of_seeds(figures)]) + warning

    def _seeds(self, figures: Sequence[Measure]) -> str:
        """Return the number of seeds, such as `seeds: 3`. If orders differ, it is given for each order."""
        seeds = {figure.order: figure.seeds for figure in figures}
        if len(set(seeds.values())) < 2:
            return f"seeds: {next(iter(seeds.values()), '0')}"
        return "seeds: " + ", ".join(f"{order} {number}" for order, number in seeds.items())

    def for_direction(self, direction: str | Direction) -> StudyTable:
        """Return the table of the same results in another direction."""
        direction = Direction.parse(direction)
        first: dict[str, tuple[int, int]] = {}
        for row in self.results:
            if row["direction"] == direction.code:
                first.setdefault(row["benchmark"], (row["num_queries"], row["num_gallery"]))
        queries = {name: first[name] for name in self.benchmarks if name in first}
        return replace(self, direction=direction, queries=queries)

    @property
    def directions(self) -> tuple[str, ...]:
        """Codes of all directions with results."""
        return tuple(dict.fromkeys(r["direction"] for r in self.results))


def to_markdown(table: StudyTable) -> str:
    """Return the table in Markdown, with its caption."""
    head = ["order"] + [f"{_cell_text(title)} {k}" for title in table.titles for k in ("R@1", "R@5", "R@10")]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *table.lines()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{_cell_text(table.caption)}\n"


def _cell_text(text: str) -> str:
    """Return the text of a Markdown cell, escaped so that a name from a file cannot add a cell, a line or a tag."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def to_csv(table: StudyTable) -> str:
    """Return all results as CSV, with a line per order, seed, benchmark and direction, and unrounded figures."""
    fields = ["order", "seed", "benchmark", "direction", *(recall.field for recall in RECALLS), "medr", "meanr"]
    fields += ["num_queries", "num_gallery", "num_missing", "missing"]
    fields += [f"chance_{recall.field}" for recall in RECALLS]
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: inert(v) if isinstance(v, str) else v for k, v in row.items()} for row in table.results)
    return out.getvalue()


def inert(text: str) -> str:
    """Return the text of a CSV cell. An apostrophe is added before text that a spreadsheet would run as a formula.

    An id such as `-abc_d` is not changed, so that tables can be joined by ids. It cannot call a function or refer to a file.
    """
    start = text.lstrip()
    is_id = text.startswith("-") and not re.search(r"[\s(|!\[\]'\"=+*/,;<>^{}]", text)
    formula = start.startswith(("=", "@")) or (
        start.startswith(("+", "-")) and re.search(r"[A-Za-z|!]", start) and not is_id
    )
    return f"'{text}" if formula else text


def to_latex(table: StudyTable) -> str:
    """Return the table in LaTeX, for the package booktabs."""
    groups = " & ".join(rf"\multicolumn{{3}}{{c}}{{{_escape(title)}}}" for title in table.titles)
    rules = "".join(rf"\cmidrule(lr){{{2 + 3 * i}-{4 + 3 * i}}}" for i in range(len(table.titles)))
    body = [" & ".join([label.replace("→", r"$\rightarrow$"), *figures]) + r" \\" for label, *figures in table.lines()]
    recalls = " & ".join(["R@1 & R@5 & R@10"] * len(table.titles))
    return "\n".join(
        [
            rf"% {printable(table.caption)}".replace("→", "->"),
            rf"\begin{{tabular}}{{l{'rrr' * len(table.titles)}}}",
            r"\toprule",
            rf" & {groups} \\",
            rules,
            rf"order & {recalls} \\",
            r"\midrule",
            *body[:-1],
            r"\midrule",
            body[-1],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _escape(text: str) -> str:
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join("\\" + c if c in "&%$#_{}" else words.get(c, c) for c in printable(text))


def to_rich(table: StudyTable) -> Table:
    """Return the table for a terminal."""
    headings = [(title, recall) for title in table.titles for recall in ("R@1", "R@5", "R@10")]
    rows = [[cell.replace(" [", "\n[").split("\n") for cell in row] for row in table.lines()]
    return printed_table(["order", *headings], rows, chance=True)


def write_table(table: StudyTable, folder: Path) -> None:
    """Write `table.md` (all directions, the main one first), `table.csv`, `table.tex` and `orders.png`."""
    parts = ["# Order study", "", to_markdown(table), "![R@10 by order](orders.png)", ""]
    others = [table.for_direction(d) for d in table.directions if d != table.direction.code]
    if others:
        parts += ["## Other directions", ""]
        parts += [to_markdown(other) for other in others]
    write_text(folder / "table.md", "\n".join(parts))
    write_text(folder / "table.csv", to_csv(table))
    write_text(folder / "table.tex", to_latex(table))
    with replacing(folder / "orders.png") as partial:
        draw_orders(table, partial)


@drawing()
def draw_orders(table: StudyTable, path: Path) -> None:
    """Draw R@10 of every order as bars, with a panel per benchmark and chance as a line.

    Args:
        table: Table.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.6, 3.2 * len(table.benchmarks)), 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(table.benchmarks), squeeze=False)[0]
    for axes, name, title in zip(panels, table.benchmarks, table.titles, strict=True):
        shown = [order for order in table.orders if (order, name) in table.cells]
        ten = [table.cells[order, name][2] for order in shown]
        labels = [str(order) for order in shown]
        ends = [(f.interval.low, f.interval.high) if f.interval else (f.estimate, f.estimate) for f in ten]
        reach = [[f.estimate - low for f, (low, _) in zip(ten, ends, strict=True)],
                 [high - f.estimate for f, (_, high) in zip(ten, ends, strict=True)]]  # fmt: skip
        axes.bar(labels, [f.estimate for f in ten], yerr=reach, color="#4c72b0", width=0.6, capsize=3)
        if name in table.chance:
            axes.axhline(table.chance[name][2], color="#c44e52", linewidth=1.2, label="chance")
            axes.legend(frameon=False, fontsize=8)
        axes.set_title(_shortened(title), fontsize=10)
        axes.set_ylabel(f"{table.direction} R@10 (%)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, format="png", metadata={"Software": None})


def _shortened(title: str) -> str:
    text = printable(title)
    return text if len(text) <= MAX_TITLE else text[: MAX_TITLE - 1] + "…"
