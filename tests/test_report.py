from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from report_helpers import ORDERS, write_study_folder
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.recipes import load_recipe
from trichord.report.write import write_comparison, write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study_folder(
        tmp_path_factory.mktemp("report") / "my study",
        orders=[*ORDERS, "vt"],
        benchmarks={"tiny": 60, "youcook2": 90},
        caption='<script>alert("{n}")</script> | cut & "mix"',
    )


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    write_report(folder)
    return folder / "report"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_report_has_all_that_a_reader_looks_for(report: Path) -> None:
    page = (report / "report.html").read_text()
    for text in (
        "Order study: my study", "In short", "The order table", "AV→T", "chance", "What the figures are of", "left out",
        "expected over ties", "Which order is best", "p, Holm", "Is the best order another one elsewhere?",
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
    assert lines[0].startswith("order,Tiny R@1,Tiny R@5,Tiny R@10,Youcook2 R@1") and len(lines) == 1 + 5 + 1
    value = float(lines[1].split(",")[3])
    assert f"{value:.1f} " in markdown and f"{value:.1f} [" in (report / "report.html").read_text()
    assert r"\toprule" in latex and latex.count("{") == latex.count("}")


def test_the_same_runs_give_the_same_bytes(folder: Path, report: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "again")
    assert files(report) == files(tmp_path / "again")


def test_the_recipe_beside_the_page_is_the_studys(folder: Path, report: Path) -> None:
    study = json.loads((folder / "study.json").read_text())
    assert load_recipe(report / "recipe.yaml").to_dict() == study["recipe"]


def test_only_finished_runs_enter_and_the_others_are_said(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "s")
    stages = json.loads((tmp_path / "s" / "study.json").read_text())["orders"][0]["stages"]
    (tmp_path / "s" / "stages" / stages[-1]["folder"] / "diverged.json").write_text('{"message": "step 3: not finite"}')
    summary = write_report(tmp_path / "s")
    assert "1 of 15 runs are not in the figures: AV→T seed 0 (diverged)" in str(summary)
    page = (tmp_path / "s" / "report" / "report.html").read_text()
    assert "step 3: not finite" in page and "2 seeds only" in page


def test_one_seed_names_no_winner(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", seeds=[0], benchmarks={"tiny": 400})
    summary = str(write_report(tmp_path / "s"))
    assert "one seed compares trained models, not orders" in summary and "beats every other" not in summary


def test_one_order_alone_has_a_report(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", orders=["avt"], seeds=[0])
    assert "one order alone: nothing to compare" in str(write_report(tmp_path / "s"))


def test_small_galleries_are_warned_of(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", benchmarks={"tiny": 12})
    assert "the gallery is too small to tell orders apart" in str(write_report(tmp_path / "s"))


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder), "--out", str(tmp_path / "r"), "--direction", "v2a", "--level", "0.9"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "r" / "report.html").read_text()
    assert "(v2a), recall in percent with 90 % intervals" in page
    assert main(["report", "--compare", str(folder), str(folder), "--out", str(tmp_path / "c")]) == 0
    assert "No setting differs." in capsys.readouterr().out and (tmp_path / "c" / "comparison.html").is_file()
    for words, told in (
        (["report"], "give a study folder, or --compare and two of them"),
        (["report", str(folder), "--compare", "a", "b"], "give a study folder, or --compare"),
        (["report", str(tmp_path)], "no study here (no study.json)"),
        (["report", str(folder), "--direction", "a2t"], "choose one of t2v, v2a"),
        (["report", str(folder), "--level", "95"], "level 95.0 must lie between 0 and 1"),
        (["report", "--compare", str(folder), str(tmp_path)], "no study here"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_a_report_of_another_study_replaces_the_parts(folder: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "r")
    write_study_folder(tmp_path / "s", benchmarks={"fresh": 60})
    write_report(tmp_path / "s", tmp_path / "r")
    names = {path.stem for path in (tmp_path / "r" / "figures").iterdir()}
    assert "duel-fresh" in names and "duel-tiny" not in names


def test_comparison_pages(folder: Path, tmp_path: Path) -> None:
    write_study_folder(tmp_path / "other", benchmarks={"tiny": 60}, fingerprint="e" * 64)
    summary = write_comparison(folder, tmp_path / "other")
    assert summary.page == tmp_path / "other" / "compared-with-my-study" / "comparison.html"
    assert "The data differ: fingerprint ffffffffffff in A, eeeeeeeeeeee in B." in str(summary)
    with pytest.raises(TrichordError, match="was scored in t2v, v2a .* not both in a2t"):
        write_comparison(folder, tmp_path / "other", direction="a2t")
