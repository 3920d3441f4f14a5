"""Reports of studies with lost runs, one seed or one order, of small galleries, and in place of another report; comparisons."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from report_helpers import HOSTILE_CAPTION, ORDERS, write_study_folder
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.report import contents, plots
from trichord.report.document import Table
from trichord.report.reading import read_study
from trichord.report.tables_training import stage_status
from trichord.report.write import write_comparison, write_report


def tables_by_name(document: Any) -> dict[str, Table]:
    return {table.name: table for table in document.tables()}


@pytest.mark.usefixtures("undrawn")
def test_one_seed_marks_no_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    draw = plots.differences
    monkeypatch.setattr(plots, "differences", lambda panels: drawn.append(panels) or draw(panels))
    for seeds in ((0,), (0, 1, 2)):
        folder = write_study_folder(
            tmp_path / str(len(seeds)), orders=ORDERS[:2], seeds=seeds, benchmarks={"tiny": 500, "other": 400}
        )
        tables = tables_by_name(contents.build_study(read_study(folder)))
        bold = [
            cell for name in ("differences", "interactions", "orders-t2v") for row in tables[name].rows for cell in row
        ]
        apart = [point.filled for panel in drawn[-1] for row in panel.rows for point in row.points]
        several = len(seeds) > 1
        assert any(cell.strong for cell in bold) == any(apart) == several
        assert any(float(row[5].value or 0) < 0.05 for row in tables["differences"].rows), (
            "p is small with one seed too"
        )


def lose(study: Path) -> tuple[str, str]:
    """Let the last stages of seeds 0 and 1 of the first order be diverged and unfinished; return their folders."""
    entries = json.loads((study / "study.json").read_text())["orders"]
    first = [entry["stages"][-1]["folder"] for entry in entries if entry["order"] == entries[0]["order"]][:2]
    for name in first:
        (study / "stages" / name / "model.json").unlink()
    (study / "stages" / first[0] / "diverged.json").write_text('{"message": "step 3: not finite"}')
    return first[0], first[1]


@pytest.mark.usefixtures("undrawn")
def test_lost_stages_are_dashed_and_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "s")
    gone = lose(tmp_path / "s")
    study = read_study(tmp_path / "s")
    assert [stage_status(study)[name] for name in gone] == ["diverged", "unfinished"]
    assert list(stage_status(study).values()).count("done") == len(study.stages) - 2
    drawn: list[Any] = []
    draw = plots.learning_curves
    monkeypatch.setattr(plots, "learning_curves", lambda panels: drawn.append(panels) or draw(panels))
    figure = next(f for f in contents.build_study(study).figures() if f.name == "curves")
    assert "Dashed lines, not part of the median: AV→T seed 0 (diverged), AV→T seed 1 (unfinished)." in figure.caption
    counts = {p.title: (len(p.terms["loss"]), len(p.lost.get("loss", ()))) for p in drawn[0]}
    assert counts.pop("AV→T") == (1, 2) and set(counts.values()) == {(3, 0)}


@pytest.mark.usefixtures("undrawn")
def test_benchmarks_whose_names_make_one_slug(tmp_path: Path) -> None:
    sizes = {"a_b": 30, "a-b": 36, "日本": 33, "中国": 39}
    folder = write_study_folder(tmp_path / "s", benchmarks=sizes, orders=["av>t", "avt"], seeds=[0, 1])
    content = json.loads((folder / "study.json").read_text())
    for benchmark in content["benchmarks"]:
        benchmark["title"] = "The same"
    (folder / "study.json").write_text(json.dumps(content))
    write_report(folder)
    names = {path.stem for path in (folder / "report" / "figures").iterdir()}
    slugs = {"a-b", "a-b-2", "unnamed", "unnamed-2"}
    assert {f"{kind}-{s}" for kind in ("duel", "plane", "gap", "purity", "similarity") for s in slugs} <= names
    assert {f"{kind}-{s}" for kind in ("queries", "space") for s in slugs} <= {
        path.stem for path in (folder / "report" / "tables").iterdir()
    }
    rows = json.loads((folder / "report" / "report.json").read_text())["tables"]["directions"]
    assert len(rows) == 4 * (2 + 1) and len({row["t2v"] for row in rows if row["order"] == "chance"}) == 4


@pytest.mark.usefixtures("undrawn")
def test_unfinished_runs_are_listed_and_left_out(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "s")
    stages = json.loads((tmp_path / "s" / "study.json").read_text())["orders"][0]["stages"]
    (tmp_path / "s" / "stages" / stages[-1]["folder"] / "diverged.json").write_text('{"message": "step 3: not finite"}')
    summary = write_report(tmp_path / "s")
    assert "1 of 15 runs are not in the figures: AV→T seed 0 (diverged)" in str(summary)
    page = (tmp_path / "s" / "report" / "report.html").read_text()
    assert "step 3: not finite" in page and "2 of 3 seeds" in page


@pytest.mark.usefixtures("undrawn")
def test_one_seed_names_no_winner(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", seeds=[0], benchmarks={"tiny": 400})
    summary = str(write_report(tmp_path / "s"))
    assert (
        "Every order has one seed, so the comparison is between trained models" in summary
        and "beats every other" not in summary
    )


@pytest.mark.usefixtures("undrawn")
def test_one_order_alone_has_a_report(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", orders=["avt"], seeds=[0])
    summary = str(write_report(tmp_path / "s"))
    assert "Tiny, t2v, R@10: AVT has " in summary and "Intervals: one seed" in summary


@pytest.mark.usefixtures("undrawn")
def test_small_galleries_are_warned_of(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", orders=["avt"], seeds=[0, 1], benchmarks={"tiny": 12})
    assert "the gallery is small: chance is above 50 % at R@10 in t2v" in str(write_report(tmp_path / "s"))


@pytest.mark.usefixtures("undrawn")
def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder), "--out", str(tmp_path / "r"), "--direction", "v2a", "--level", "0.9"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "r" / "report.html").read_text()
    assert "(v2a), recall in percent with 90 % intervals" in page and "--level 0.9" in page
    text = (tmp_path / "r" / "report.md").read_text()
    assert "95 %" not in text and text.count("90 %") >= 7
    assert main(["report", "--compare", str(folder), str(folder), "--out", str(tmp_path / "c")]) == 0
    assert "No setting differs." in capsys.readouterr().out and (tmp_path / "c" / "comparison.html").is_file()
    for words, message in (
        (["report"], "give a study folder, folders of evaluations, or --compare with two studies"),
        (["report", str(folder), "--compare", "a", "b"], "give a study folder, folders of evaluations, or --compare"),
        (["report", str(tmp_path)], "contains neither a study (study.json)"),
        (["report", str(folder), "--direction", "a2t"], "choose one of t2v, v2a"),
        (["report", str(folder), "--level", "95"], "--level is 95.0; it must be above 0, and at most 1"),
        (["report", "--compare", str(folder), str(tmp_path)], "contains neither a study"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_another_study_replaces_the_parts(folder: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "r")
    write_study_folder(tmp_path / "s", orders=["av>t", "avt"], seeds=[0], benchmarks={"fresh": 60})
    write_report(tmp_path / "s", tmp_path / "r")
    names = {path.stem for path in (tmp_path / "r" / "figures").iterdir()}
    assert "duel-fresh" in names and "duel-tiny" not in names


@pytest.mark.usefixtures("undrawn")
def test_comparison_pages(folder: Path, tmp_path: Path) -> None:
    write_study_folder(tmp_path / "other", benchmarks={"tiny": 60}, fingerprint="e" * 64, caption=HOSTILE_CAPTION)
    summary = write_comparison(folder, tmp_path / "other")
    assert summary.page == tmp_path / "other" / "compared-with-my-study" / "comparison.html"
    assert "The data differ: fingerprint ffffffffffff in A, eeeeeeeeeeee in B." in str(summary)
    with pytest.raises(TrichordError, match="was scored in t2v, v2a .* not both in a2t"):
        write_comparison(folder, tmp_path / "other", direction="a2t")
