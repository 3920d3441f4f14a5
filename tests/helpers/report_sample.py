"""A report with all kinds of blocks and real plots, for tests of its formats."""

from __future__ import annotations

import io
import math
from functools import cache

from hypothesis import strategies as st

from trichord.report.document import Cell, Column, Commands, Document, Figure, Section, Table, Text, clean

ORDERS = ("AV→T", "AT→V", "VT→A", "AVT")
HOSTILE = '<script>alert(1)</script><img src=x onerror=alert(2)> "a" | b\n$x_1$ & \\ % # {c} ~ ^ \x00\x1b[31m \u202e → `d` </table>'

ANY_TEXT = st.text(st.characters(), max_size=40) | st.text(
    "|\\`*_{}[]<>#$~&:@!'\"-+=1.) \n\t%^→±\x00\u202e", max_size=20
)


@cache
def plot(title: str, legend: tuple[str, ...] = ORDERS) -> str:
    """Return curves as matplotlib writes them: text as text, clip paths, markers used by reference, an image."""
    import matplotlib
    import numpy as np
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Plot

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sample", "font.size": 9}):
        plot = Plot(figsize=(9, 3))
        FigureCanvasSVG(plot)
        left, right = plot.subplots(1, 2)
        steps = np.arange(40)
        for number, order in enumerate(legend):
            left.plot(steps, np.exp(-steps / (8 + 4 * number)) + 0.1 * number, marker="o", markersize=3, label=order)
        left.set(xlabel="step", ylabel="loss")
        left.set_title(title, parse_math=False)
        left.legend(frameon=False)
        right.imshow(np.outer(np.sin(steps / 6), np.cos(steps / 5)), cmap="viridis", aspect="auto")
        right.set(title="similarity", xlabel="clip", ylabel="clip")
        out = io.StringIO()
        plot.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()


def order_table(name: str = "orders") -> Table:
    """Return four orders, chance and a published row, for two benchmarks with four columns each."""
    groups = ("YouCook2", "MSR-VTT")
    columns = [Column("order", numeric=False)]
    columns += [Column(label, group) for group in groups for label in ("R@1", "R@5", "R@10", "MedR")]
    rows = []
    for number, order in enumerate(ORDERS):
        values = [1.61234567 + number, 5.97 + 2 * number, 9.43 + 3 * number, 120.0 - number] * 2
        cells = [Cell(f"{value:.2f}\n± 0.{31 + number}", value, strong=number == 3) for value in values]
        rows.append((Cell(order), *cells))
    rows.append((Cell("chance"), *(Cell(f"{value:.2f}", value) for value in (0.03, 0.15, 0.3, 1675.5) * 2)))
    note = "Ranks of a run that diverged are left out: its recalls are not a number."
    last = [Cell("–", math.nan, note="Not published."), Cell("5.97", 5.97), Cell("9.43", 9.43, note=note), Cell("–")]
    rows.append((Cell("MCN", note="Trained on HowTo100M; another gallery."), *last, *last))
    return Table(
        name,
        "Text to video retrieval by order",
        tuple(columns),
        tuple(rows),
        caption="Mean and standard deviation over three seeds, recalls in percent. Bold: the best of a column.",
        separators=(4, 5),
    )


def examples_table() -> Table:
    columns = (
        Column("query", numeric=False),
        Column("rank, AV→T"),
        Column("rank, AT→V"),
        Column("verdict", numeric=False),
    )
    rows = (
        (
            Cell("add the chopped onions to the pan and stir until they are golden"),
            Cell("3", 3),
            Cell("41", 41),
            Cell("won"),
        ),
        (Cell("now we're gonna | let it rest"), Cell("1,204", 1204.5), Cell("17", 17), Cell("lost")),
    )
    return Table(
        "examples", "Queries with the greatest differences", columns, rows, caption="Ranks are means over seeds."
    )


def sample_document() -> Document:
    """Return all kinds of blocks: tables with and without groups, plots that share ids, texts of three kinds, commands."""
    long = (
        "An order is the sequence in which modalities are added. The first two learn together; then both are frozen and "
        "the third is trained against them. Initial weights and batches depend on the seed alone, so that orders differ "
        "in nothing but the order."
    )
    recall = Section(
        "Recall",
        (
            Text(("AT→V leads on both benchmarks; the interval of its lead over AV→T excludes zero.",), "finding"),
            order_table(),
            Figure(
                "curves", "Loss by step", plot("text meets A and V"), "One line per order, one seed.", "Losses fall."
            ),
            Text(("Three seeds are few: differences under two points cannot be told from chance.",), "warning"),
        ),
        intro="Every query is a caption; the gallery holds every test clip once.",
    )
    space = Section(
        "The joint space",
        (
            Text((long, "The second paragraph is shorter.")),
            Figure("space", "Similarity of clips", plot("another plot"), "Cosines.", "A matrix with waves."),
            examples_table(),
        ),
    )
    again = Section(
        "How to make it again",
        (
            Commands(("trichord study --store my_store --out my_study --recipe small --seeds 0,1,2 --orders 'av>t,at>v,vt>a,avt'",
                      "trichord report my_study"), "Run again"),
            Text(("All settings stand in study.json.",)),
        ),
    )  # fmt: skip
    return Document(
        "In which order should video, audio and text be combined?",
        "Four orders, three seeds, two benchmarks",
        (recall, space, again),
        (
            "AT→V is the best order on both benchmarks (15.3 % R@10).",
            "Its lead over joint training is not significant.",
        ),
    )


def hostile_document() -> Document:
    """Return a document with the same malicious text in every place that takes one."""
    columns = (Column(HOSTILE, numeric=False), Column(HOSTILE, HOSTILE), Column(HOSTILE, HOSTILE))
    cell = Cell(HOSTILE, HOSTILE, strong=True, note=HOSTILE)
    table = Table("hostile", HOSTILE, columns, ((cell, cell, cell), (cell, cell, cell)), HOSTILE, (1,))
    figure = Figure("hostile", HOSTILE, plot(clean(HOSTILE), (clean(HOSTILE),)), HOSTILE, HOSTILE)
    texts = [Text((HOSTILE, HOSTILE), "plain"), Text((HOSTILE,), "finding"), Text((HOSTILE,), "warning")]
    blocks = (table, figure, *texts, Commands((HOSTILE, "```", "</code></pre>"), HOSTILE))
    return Document(HOSTILE, HOSTILE, (Section(HOSTILE, blocks, HOSTILE), Section(HOSTILE, ())), (HOSTILE,))


def one_cell(text: str, **more: object) -> Table:
    return Table(
        "t", text, (Column(text, text, False), Column(text, text)), ((Cell(text, **more), Cell("1", 1)),), text
    )  # type: ignore[arg-type]


def one_table(text: str) -> Document:
    blocks = (one_cell(text, note=text, strong=True), Text((text,), "finding"), Text((text,)), Commands((text,), text))
    return Document(text, text, (Section(text, blocks, text),), (text,))
