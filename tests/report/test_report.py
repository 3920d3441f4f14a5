"""The report of a study."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from report_helpers import ORDERS, targets, write_study_folder
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.evaluation.statistics import chance_interval
from trichord.modality import Direction
from trichord.recipes import load_recipe
from trichord.report import contents, contents_repeat, plots
from trichord.report.analysis import interactions
from trichord.report.contents_repeat import commands
from trichord.report.document import Table
from trichord.report.published import conditional_intervals, published_interval, published_rows
from trichord.report.reading import read_study
from trichord.report.tables import published_table
from trichord.report.tables_training import order_costs, stage_status
from trichord.report.write import write_comparison, write_report

CAPTION = '<script>alert("{n}")</script> | cut & "mix"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study_folder(
        tmp_path_factory.mktemp("report") / "my study",
        orders=[*ORDERS, "vt"],
        benchmarks={"tiny": 60, "youcook2": 90},
        caption=CAPTION,
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

    def check(row: dict[str, Any], heading: str, found: Any) -> None:
        assert [row[heading + end] for end in ("", " low", " high")] == [found.estimate, found.low, found.high], heading

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
    found = [x for both in interactions(groups) for x in both.pairs]
    for row, x in zip(tables["interactions"], found, strict=True):
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


def named(document: Any) -> dict[str, Table]:
    return {table.name: table for table in document.tables()}


def test_one_seed_marks_no_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    draw = plots.differences
    monkeypatch.setattr(plots, "differences", lambda panels: drawn.append(panels) or draw(panels))
    for seeds in ((0,), (0, 1, 2)):
        folder = write_study_folder(
            tmp_path / str(len(seeds)), orders=ORDERS[:3], seeds=seeds, benchmarks={"tiny": 500, "other": 400}
        )
        tables = named(contents.build_study(read_study(folder)))
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
    told = contents._notes(notes, both)
    assert told == [f"AV→T, AT→V: {same}.", f"AV→T on Tiny: {once}."]
    table = contents.order_table(both, notes, Direction.parse("t2v"), 0.95)
    row = next(row for row in table.rows if row[0].text == "AV→T")
    assert [cell.note for cell in row] == ["", *[f"{same}; {once}"] * 3, *[same] * 3]
    summary = json.loads((report / "report.json").read_text())["summary"]
    assert "VT→A: its later stages do not change t2v, so the figure is that of its first pair." in summary


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


def calls(lines: tuple[str, ...] | list[str]) -> list[list[str]]:
    """Return the words of each printed command as a shell splits them, without preceding variables."""
    every = [shlex.split(line) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]
    return [words[next(i for i, word in enumerate(words) if "=" not in word) :] for words in every]


def test_the_printed_commands_give_the_same_table(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "it's a folder"
    shutil.copytree(tiny_store, home / "my store")
    monkeypatch.chdir(home)
    training = ["--training.max_steps", "2", "--training.tensorboard", "false", "--training.device", "cpu"]
    chosen = ["--orders", '["vt>a", "avt"]', "--seeds", "[0, 1]", "--first_stage_seed", "5"]
    first = ["study", "--store", "my store", "--out", "a study", "--recipe", "debug", *training, *chosen]
    assert main([*first, "--evaluation.directions", '["t2v"]']) == 0
    assert main(["report", "a study", "--level", "0.9"]) == 0
    content = json.loads(Path("a study/report/report.json").read_text())
    (lines, _) = (b["lines"] for s in content["sections"] for b in s["blocks"] if b["type"] == "commands")
    if "first_stage_seed" not in json.loads(Path("a study/study.json").read_text())["orders"][0]:
        lines[2] += " --first_stage_seed 5"
    found = calls(lines)
    assert [words[:2] for words in found] == [["trichord", "study"], ["trichord", "report"]]
    assert found[1][2:] == [str(home / "a study-again"), "--direction", "t2v", "--level", "0.9"]
    monkeypatch.chdir(tmp_path)  # the commands work in any folder
    for words in found:
        assert main(words[1:]) == 0
    monkeypatch.chdir(home)
    capsys.readouterr()
    assert Path("a study-again/table.csv").read_bytes() == Path("a study/table.csv").read_bytes()
    again = json.loads(Path("a study-again/report/report.json").read_text())
    assert again["tables"]["orders-t2v"] == content["tables"]["orders-t2v"]


def test_commands_quote_and_tell_the_machine(tmp_path: Path) -> None:
    folder = write_study_folder(
        tmp_path / "-a 'study'; rm", orders=["av>t", "avt"], seeds=[0, 1], benchmarks={"日": 30}
    )
    path = folder / "study.json"
    content = json.loads(path.read_text())
    content["store"]["path"] = "/my $(store)"
    for entry in content["orders"]:
        entry["first_stage_seed"] = 7 if entry["order"] == "av>t" and entry["seed"] == 0 else None
    content["machine"] = {"threads": 3, "device": "cpu", "processes": 2}
    path.write_text(json.dumps(content))
    study = read_study(folder)
    lines = commands(study, Direction.parse("t2v"))
    assert lines[0].startswith("OMP_NUM_THREADS=3 trichord study --store '/my $(store)' --out ")
    assert calls(list(lines))[-1] == ["trichord", "report", f"{folder}-again", "--direction", "t2v"]
    told = []
    for words in calls(list(lines))[:-1]:
        told.append(dict(zip(words[2::2], words[3::2], strict=True)))
        assert told[-1]["--out"] == f"{folder}-again" and told[-1]["--training.device"] == "cpu"
        assert told[-1]["--recipe"] == f"{folder}/report/recipe.yaml" and told[-1]["--benchmarks"] == '["日"]'
    assert [(t["--orders"], t["--seeds"], t.get("--first_stage_seed")) for t in told] == [
        ('["av>t"]', "[0]", "7"),
        ('["avt"]', "[0]", None),
        ('["av>t", "avt"]', "[1]", None),
    ]
    text = contents_repeat.repeat_section(study, Direction.parse("t2v"), 0.95).blocks[0]
    assert "It ran with 3 threads 2 processes on cpu." in text.paragraphs[1]  # type: ignore[union-attr]
    content["machine"] = {"threads": 1, "device": "A GPU", "processes": 1}
    for entry in content["orders"]:
        entry["first_stage_seed"] = 7 if entry["order"] == "av>t" else None
    path.write_text(json.dumps(content))
    (words, _) = calls(list(commands(read_study(folder), Direction.parse("t2v"))))
    assert "--training.device" not in words and words[-2:] == ["--first_stage_seed", "7"]
    assert '["av>t", "avt"]' in words, "an order of one stage needs no call of its own"


def test_the_same_runs_give_the_same_bytes(folder: Path, report: Path, tmp_path: Path) -> None:
    write_report(folder, tmp_path / "again")
    assert files(report) == files(tmp_path / "again")


def test_the_recipe_beside_the_page_is_the_studys(folder: Path, report: Path) -> None:
    study = json.loads((folder / "study.json").read_text())
    assert load_recipe(report / "recipe.yaml").to_dict() == study["recipe"]


def test_unfinished_runs_are_listed_and_left_out(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "s")
    stages = json.loads((tmp_path / "s" / "study.json").read_text())["orders"][0]["stages"]
    (tmp_path / "s" / "stages" / stages[-1]["folder"] / "diverged.json").write_text('{"message": "step 3: not finite"}')
    summary = write_report(tmp_path / "s")
    assert "1 of 15 runs are not in the figures: AV→T seed 0 (diverged)" in str(summary)
    page = (tmp_path / "s" / "report" / "report.html").read_text()
    assert "step 3: not finite" in page and "2 of 3 seeds" in page


def test_one_seed_names_no_winner(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", seeds=[0], benchmarks={"tiny": 400})
    summary = str(write_report(tmp_path / "s"))
    assert (
        "Every order has one seed, so the comparison is between trained models" in summary
        and "beats every other" not in summary
    )


def test_one_order_alone_has_a_report(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", orders=["avt"], seeds=[0])
    summary = str(write_report(tmp_path / "s"))
    assert "Tiny, t2v, R@10: AVT has " in summary and "Intervals: one seed" in summary


def test_small_galleries_are_warned_of(tmp_path: Path) -> None:
    write_study_folder(tmp_path / "s", benchmarks={"tiny": 12})
    assert "the gallery is small: chance is above 50 % at R@10 in t2v" in str(write_report(tmp_path / "s"))


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder), "--out", str(tmp_path / "r"), "--direction", "v2a", "--level", "0.9"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "r" / "report.html").read_text()
    assert "(v2a), recall in percent with 90 % intervals" in page and "--level 0.9" in page
    text = (tmp_path / "r" / "report.md").read_text()
    assert "95 %" not in text and text.count("90 %") >= 7
    assert main(["report", "--compare", str(folder), str(folder), "--out", str(tmp_path / "c")]) == 0
    assert "No setting differs." in capsys.readouterr().out and (tmp_path / "c" / "comparison.html").is_file()
    for words, told in (
        (["report"], "give a study folder, folders of evaluations, or --compare with two studies"),
        (["report", str(folder), "--compare", "a", "b"], "give a study folder, folders of evaluations, or --compare"),
        (["report", str(tmp_path)], "contains neither a study (study.json)"),
        (["report", str(folder), "--direction", "a2t"], "choose one of t2v, v2a"),
        (["report", str(folder), "--level", "95"], "--level is 95.0; it must be above 0, and at most 1"),
        (["report", "--compare", str(folder), str(tmp_path)], "contains neither a study"),
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
    write_study_folder(tmp_path / "other", benchmarks={"tiny": 60}, fingerprint="e" * 64, caption=CAPTION)
    summary = write_comparison(folder, tmp_path / "other")
    assert summary.page == tmp_path / "other" / "compared-with-my-study" / "comparison.html"
    assert "The data differ: fingerprint ffffffffffff in A, eeeeeeeeeeee in B." in str(summary)
    with pytest.raises(TrichordError, match="was scored in t2v, v2a .* not both in a2t"):
        write_comparison(folder, tmp_path / "other", direction="a2t")
