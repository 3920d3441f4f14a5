"""The report of a study."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from report_helpers import targets, write_study_folder
from trichord.evaluation.statistics import chance_interval
from trichord.modality import Direction
from trichord.recipes import load_recipe
from trichord.report import contents
from trichord.report.analysis import interactions
from trichord.report.published import conditional_intervals, published_interval, published_rows
from trichord.report.reading import read_study
from trichord.report.tables import published_table
from trichord.report.tables_training import order_costs
from trichord.report.write import write_report


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    write_report(folder)
    return folder / "report"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_report_has_all_that_a_reader_looks_for(report: Path) -> None:
    page = (report / "report.html").read_text()
    for text in (
        "Order study: my study", "In short", "The order table", "AV→T", "chance", "Queries, gallery and seeds", "left out",
        "expected over ties", "Which order is best", "p, Holm", "Does the best order depend on the benchmark?",
        "Every direction", "Query by query", "The joint space", "modality gap", "cluster purity", "Learning curves",
        "trained parameters", "clips seen", "Every run", "To repeat this", "my_store", "torch 2.13.0",
        "VideoCLIP", "The order study, Table 1", "Published figures",
    ):  # fmt: skip
        assert text in page, text
    assert "<script>alert" not in page and "&lt;script&gt;" in page
    figures = {path.stem for path in (report / "figures").iterdir()}
    assert figures >= {
        "recalls", "differences", "curves", "parameters", "costs", "duel-tiny", "plane-tiny", "gap-tiny", "purity-tiny",
        "similarity-tiny", "duel-youcook2",
    }  # fmt: skip


def test_all_forms_say_the_same(report: Path) -> None:
    content = json.loads((report / "report.json").read_text())
    markdown, latex = (report / "report.md").read_text(), (report / "report.tex").read_text()
    tables = {b["name"]: b for s in content["sections"] for b in s["blocks"] if b["type"] == "table"}
    assert set(tables) == {path.stem for path in (report / "tables").glob("*.csv")}
    lines = (report / "tables" / "orders-t2v.csv").read_text().splitlines()
    assert lines[0].startswith("order,Tiny R@1,Tiny R@1 low,Tiny R@1 high,Tiny R@5,") and len(lines) == 1 + 5 + 1
    value = float(lines[1].split(",")[7])
    assert f"{value:.1f} " in markdown and f"{value:.1f} [" in (report / "report.html").read_text()
    assert r"\toprule" in latex and latex.count("{") == latex.count("}")


def test_every_interval_is_there_in_full(folder: Path, report: Path) -> None:
    study = read_study(folder)
    tables = json.loads((report / "report.json").read_text())["tables"]
    groups = targets(study)

    def check(row: dict[str, Any], heading: str, expected: Any) -> None:
        assert [row[heading + end] for end in ("", " low", " high")] == [
            expected.estimate,
            expected.low,
            expected.high,
        ], heading

    orders = {row["order"]: row for row in tables["orders-t2v"]}
    sizes = {row["benchmark"]: row for row in tables["benchmarks"]}
    for group in groups:
        for k in (1, 5, 10):
            chance = chance_interval(k, group.result["num_gallery"], group.result["num_queries"])
            check(orders["chance"], f"{group.title} R@{k}", chance)
            for order, figures in group.figures.items():
                check(orders[order], f"{group.title} R@{k}", figures[f"R@{k}"])
        for order, figures in group.figures.items():
            check(sizes[group.title], f"median rank of the orders {order}", figures["MedR"])
        assert sizes[group.title]["missing clips policy"] == "left out"
    for code in (direction.code for direction in study.directions):
        for group in targets(study, code, compare=False):
            rows = {r["order"]: r for r in tables["directions"] if r["benchmark"] == group.title}
            check(rows["chance"], code, chance_interval(10, group.result["num_gallery"], group.result["num_queries"]))
            for order, figures in group.figures.items():
                check(rows[order], code, figures["R@10"])
    every = [c for g in groups for c in (g.comparisons[0], g.further["R@5"], g.further["R@1"])]
    pairs = [pair for comparison in every for pair in comparison.differences]
    assert len(pairs) == len(tables["differences"]) == 2 * 3 * 6
    for row, pair in zip(tables["differences"], pairs, strict=True):
        check(row, "difference", pair)
        assert (row["p"], row["seeds paired"]) == (pair.p, "yes")
    expected = [x for both in interactions(groups) for x in both.pairs]
    for row, x in zip(tables["interactions"], expected, strict=True):
        check(row, "difference of differences", x)
        assert row["change of places, p, Holm before correction"] == x.p_crossing
    lines = list(csv.DictReader((report / "tables" / "orders-t2v.csv").read_text().splitlines()))
    assert float(lines[0]["Tiny R@10 low"]) == orders[lines[0]["order"]]["Tiny R@10 low"]
    space = tables["space-tiny"][0]
    assert 0 < space["cluster purity video chance"] < 1


def test_published_intervals_are_there_in_full_and_at_the_level() -> None:
    for level in (0.95, 0.5):
        table = published_table("youcook2", "YouCook2", level)
        assert table is not None and f"binomial {100 * level:g} % interval" in table.caption
        for cells, row in zip(table.rows, published_rows("youcook2"), strict=True):
            sure = published_interval(row, "r10", level)
            possible = conditional_intervals(row, "r10", level)
            want = {"low": sure.low, "high": sure.high} if sure else {}
            for i in possible:
                want |= {f"low if {i.num_queries} queries": i.low, f"high if {i.num_queries} queries": i.high}
            assert dict(cells[5].values) == want and cells[5].value == row.r10


def test_an_order_costs_what_all_of_its_stages_cost(folder: Path, report: Path) -> None:
    study = read_study(folder)
    costs = {cost.order.code: cost for cost in order_costs(study)}
    assert (costs["vt>a"].steps, costs["vt"].steps) == (80, 40), "the first stage that both share counts for both"
    assert costs["vt>a"].seconds == pytest.approx(2 * costs["vt"].seconds) == pytest.approx(8.0)
    rows = json.loads((report / "report.json").read_text())["tables"]["costs"]
    assert {row["order"]: row["clips seen"] for row in rows}["AV→T"] == 2 * 40 * 32
    assert "AV→T total" in re.sub("<[^>]*>", "", (report / "figures" / "costs.svg").read_text()).replace("  ", " ")


def test_notes_of_orders_are_footnotes_and_sentences(folder: Path, report: Path) -> None:
    study = read_study(folder)
    both = targets(study)
    same, once = "all seeds share one first stage", "2 seeds only"
    notes = {"tiny": {"AV→T": (same, once), "AT→V": (same,)}, "youcook2": {"AV→T": (same,), "AT→V": (same,)}}
    sentences = contents._notes(notes, both)
    assert sentences == [f"AV→T, AT→V: {same}.", f"AV→T on Tiny: {once}."]
    table = contents.order_table(both, notes, Direction.parse("t2v"), 0.95)
    row = next(row for row in table.rows if row[0].text == "AV→T")
    assert [cell.note for cell in row] == ["", *[f"{same}; {once}"] * 3, *[same] * 3]
    summary = json.loads((report / "report.json").read_text())["summary"]
    assert "VT→A: its later stages do not change t2v, so the figure is that of its first pair." in summary


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(folder: Path, report: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "again")
    assert files(report) == files(tmp_path / "again")


def test_the_same_small_study_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["av>t", "avt"], seeds=[0], benchmarks={"tiny": 30})
    for name in "ab":
        write_report(folder, tmp_path / name)
    assert len(files(tmp_path / "a")) > 20 and files(tmp_path / "a") == files(tmp_path / "b")


def test_the_recipe_beside_the_page_is_the_studys(folder: Path, report: Path) -> None:
    study = json.loads((folder / "study.json").read_text())
    assert load_recipe(report / "recipe.yaml").to_dict() == study["recipe"]
