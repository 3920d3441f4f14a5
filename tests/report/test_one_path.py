"""A study whose runs share first stages has the same estimate, interval and number of seeds in all outputs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trichord.cli import main
from trichord.modality import Direction
from trichord.recipes import load_recipe
from trichord.report import contents
from trichord.report.document import Cell, Document
from trichord.report.reading import read_study
from trichord.report.systems import read_systems
from trichord.study.run import run_study
from trichord.study.table import StudyTable

pytestmark = pytest.mark.usefixtures("without_chart")

SEEDS = [0, 1, 2]
MEASURES = ("R@1", "R@5", "R@10")
Figures = dict[
    tuple[str, str, str], str
]  # (order, direction, measure) -> `9.0 [4.8, 16.4]`; seeds under measure `seeds`


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyTable]:
    """A study of one order whose seeds share the first stage, and one whose seeds do not."""
    out = tmp_path_factory.mktemp("one_path") / "study"
    recipe = load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 2, "device": "cpu"},
        evaluation={"directions": ["t2v", "a2v"]},
    )
    orders = ["av>t", "avt"]
    return out, run_study(tiny_store, out, orders, SEEDS, recipe, first_stage_seed=7)


def figures_of_tables(markdown: str) -> Figures:
    """Return the figures of `table.md`."""
    figures: Figures = {}
    for part in re.split(r"(?=\n\| order)", markdown):
        if (direction := re.search(r"\((\w2\w)\)", part)) is None:
            continue
        seeds = dict(re.findall(r"(\S+→\S+|AVT) (\d(?: \(\d runs\))?)", part.rpartition("seeds: ")[2]))
        for line in part.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0] in seeds:
                figures |= {(cells[0], direction[1], m): cell for m, cell in zip(MEASURES, cells[1:], strict=True)}
                figures[cells[0], direction[1], "seeds"] = seeds[cells[0]]
    return figures


def figures_of_report(rows: list[dict[str, Cell]], order: str, direction: str = "") -> Figures:
    """Return the figures of a table of a report; `order` is the heading of the orders."""
    figures: Figures = {}
    for row in rows:
        if row[order].text != "chance":
            head = (row[order].text, direction or row["of"].text)
            figures |= {(*head, m): row[m].text for m in (*MEASURES, "seeds")}
    return figures


def rows_of(document: Document, name: str) -> list[dict[str, Cell]]:
    (table,) = [table for table in document.tables() if table.name == name]
    return [dict(zip((c.label for c in table.columns), row, strict=True)) for row in table.rows]


def printed_figures(text: str) -> Figures:
    """Return the figures of the tables that `trichord evaluate STUDY` prints."""
    figures: Figures = {}
    direction = ""
    for line in text.splitlines():
        if head := re.match(r"\s*tiny: (\w2\w), ", line):
            direction = head[1]
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) > 4 and cells[0] != "chance":
            figures |= {(cells[0], direction, m): cell for m, cell in zip(MEASURES, cells[1:], strict=False)}
            figures[cells[0], direction, "seeds"] = cells[-1]
    return figures


@pytest.mark.usefixtures("undrawn")
def test_every_way_prints_the_same_figures(
    study: tuple[Path, StudyTable], tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = study
    by_study = figures_of_tables((folder / "table.md").read_text())
    assert len(by_study) == 2 * 2 * 4, "two orders in two directions: three recalls and the number of seeds"
    seeds = {order: number for (order, _, measure), number in by_study.items() if measure == "seeds"}
    assert seeds == {"AV→T": "1 (3 runs)", "AVT": "3"}
    assert all(re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", text) for key, text in by_study.items() if key[2] in MEASURES)

    by_report: Figures = {}
    for direction in ("t2v", "a2v"):
        document = contents.build_study(read_study(folder), direction=Direction.parse(direction))
        by_report |= figures_of_report(rows_of(document, f"orders-{direction}"), "order", direction)
    assert by_report == by_study

    words = ["evaluate", str(folder), "--store", str(tiny_store), "--benchmark", "tiny", "--out", str(tmp_path / "out")]
    assert main([*words, "--directions", "t2v,a2v"]) == 0
    assert printed_figures(capsys.readouterr().out) == by_study

    document = contents.build_evaluations(read_systems([tmp_path / "out"]))
    assert figures_of_report(rows_of(document, "figures-retrieval-tiny"), "system") == by_study


@pytest.mark.usefixtures("undrawn")
def test_a_note_says_that_the_interval_is_conditional_on_the_first_stage(study: tuple[Path, StudyTable]) -> None:
    folder, table = study
    conditional = "3 runs share 1 first stage: the interval is for this first stage only"
    assert f"AV→T: {conditional}." in table.caption
    summary = " ".join(contents.build_study(read_study(folder)).summary)
    assert f"AV→T: {conditional}." in summary
