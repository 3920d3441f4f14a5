"""Output of `trichord evaluate` around its figures: the list of benchmarks, and the line below the tables."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from trichord.cli import main
from trichord.errors import printable
from trichord.evaluation.embedded import Embedded
from trichord.modality import Order
from trichord.study.evaluate import evaluate
from trichord.study.evaluation_tables import footer, order_tables, protocols_table, results_table, rows_table
from trichord.study.figures import Measure
from trichord.tasks.protocol import Row
from trichord.tasks.registry import protocols
from trichord.tasks.retrieval.measure import RetrievalResult


@pytest.mark.parametrize(("width", "with_clips"), [(80, False), (120, True)])
def test_every_benchmark_has_one_line(width: int, with_clips: bool) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(protocols_table(width))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    for name, protocol in protocols().items():
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        assert cells == [name, protocol.title, *[protocol.clips] * (with_clips and bool(protocol.clips))]
    kinds = list(dict.fromkeys(protocol.kind for protocol in protocols().values()))
    assert [line for line in lines if line and not line.startswith(" ")] == kinds
    assert len(lines) == len(protocols()) + 2 * len(kinds) - 1


def test_a_narrow_terminal_wraps_titles_alone() -> None:
    out = io.StringIO()
    Console(file=out, width=50).print(protocols_table(50))
    assert all(f"  {name} " in out.getvalue() for name in protocols())


def test_the_command_lists_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--list"]) == 0
    printed = capsys.readouterr().out
    assert "zero-shot-classification" in printed and printed.rstrip().endswith("To read the protocol: --explain NAME")
    assert len(printed.rstrip().splitlines()[-1]) <= 80


def file_of(path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = {"class": ["a", "b"] * 6, "split": ["train"] * 6 + ["test"] * 6}
    Embedded.of({"video": rng.normal(size=(12, 3)), "text": rng.normal(size=(12, 3))}, labels=labels).save(path)
    return path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["retrieval"], "Recalls and chance in percent; ranks start at 1."),
        (["linear-probe"], "Figures and chance in percent."),
        (["clustering"], "Figures and chance in percent."),
        (["retrieval", "clustering"], "Figures and chance in percent; ranks start at 1."),
    ],
)
def test_the_footer_lists_the_contents(
    names: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path / "e.npz")
    evaluation = evaluate(None, None, names, embeddings=path)
    assert footer(evaluation) == message
    assert main(["evaluate", "--embeddings", str(path), "--benchmark", *names]) == 0
    assert capsys.readouterr().out.rstrip().endswith(message)


def test_no_figures_give_no_lines(tmp_path: Path) -> None:
    evaluation = evaluate(None, None, ["clustering"], embeddings=file_of(tmp_path / "e.npz"))
    evaluation.benchmarks.clear()
    assert footer(evaluation) == ""


def printed(table: Table, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def test_each_measure_names_its_units() -> None:
    def rows(target: str, videos: int) -> list[Row]:
        segments = [
            Row("mining", target, "IoU, segments", 30.0, 8, 12.0),
            Row("mining", target, "MoF, frames", 40.0, 60),
        ]
        return [Row("mining", target, "recall", 20.0, videos, 10.0), *segments]

    text = printed(rows_table("mining", [*rows("t2v", 2), *rows("t2a", 1)]))
    head, below = text.splitlines()[2:4]
    assert [cell.strip() for cell in head.split("┃")[3:5]] == ["IoU, segments", "MoF, frames"]
    assert [cell.strip() for cell in below.split("┃")[3:5]] == ["n = 8", "n = 60"]
    assert "20.00 (chance 10.00, n = 2)" in text and "20.00 (chance 10.00, n = 1)" in text  # differs between lines too
    assert "30.00 (chance 12.00)" in text and "40.00 │" in text and " n ┃" not in text and "2, 8, 60" not in text
    plain = printed(
        rows_table("mining", [Row("m", "a", "x", 1.0, 5), Row("m", "a", "y", 2.0, 5), Row("m", "b", "x", 1.0, 6)])
    )
    assert " n ┃" in plain and "n =" not in plain and "│ 5 │" in plain and "│ 6 │" in plain


def test_orders_too() -> None:
    def figure(order: str, measure: str, num: int) -> Measure:
        return Measure("mining", "t2v", measure, "%", Order.parse(order), 10.0, None, 1, num, None)

    orders = [Order.parse(code) for code in ("av>t", "avt")]
    some = [figure(order, measure, num) for order in ("av>t", "avt") for measure, num in (("recall", 2), ("MoF", 60))]
    (table,) = order_tables(some, orders)
    text = printed(table)
    assert text.splitlines()[0].strip() == "mining: t2v" and "n = 2 " in text and "n = 60 " in text
    (table,) = order_tables([figure("av>t", "recall", 2), figure("avt", "recall", 3)], orders)
    assert printed(table).splitlines()[0].strip() == "mining: t2v, n = 2 to 3"


@pytest.mark.parametrize("name", ["[/red]", "[bold]", "\x1b[2J", ":smile:", "a\nb"])
def test_names_are_printed_as_text(name: str) -> None:
    figure = Measure(name, name, name, "%", Order.parse("avt"), 10.0, None, 1, 2, None)
    result = RetrievalResult(name, "t2v", 1.0, 2.0, 3.0, 4.0, 5.0, 6, 7, 0, "drop", 1.0, 1.0, 1.0)
    rows = [Row(name, name, name, 1.0, 5)]
    for table in (rows_table(name, rows), *order_tables([figure], [figure.order]), results_table([result])):
        assert printable(name) in printed(table) and "\x1b" not in printed(table)
