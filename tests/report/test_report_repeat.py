"""The commands in the report of a study, which train and report it again."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from report_helpers import write_study_folder
from trichord.cli import main
from trichord.modality import Direction
from trichord.report import contents_repeat
from trichord.report.contents_repeat import commands
from trichord.report.reading import read_study


def calls(lines: tuple[str, ...] | list[str]) -> list[list[str]]:
    """Return the words of each printed command as a shell splits them, without preceding variables."""
    every = [shlex.split(line) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]
    return [words[next(i for i, word in enumerate(words) if "=" not in word) :] for words in every]


@pytest.mark.usefixtures("undrawn", "without_chart")
def test_the_printed_commands_give_the_same_table(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "it's a folder"
    shutil.copytree(tiny_store, home / "my store")
    monkeypatch.chdir(home)
    training = ["--training.max_steps", "2", "--training.tensorboard", "false", "--training.device", "cpu"]
    chosen = ["--orders", '["vt>a", "avt"]', "--seeds", "[1]", "--first_stage_seed", "5"]
    first = ["study", "--store", "my store", "--out", "a study", "--recipe", "debug", *training, *chosen]
    assert main([*first, "--evaluation.directions", '["t2v"]']) == 0
    assert main(["report", "a study", "--level", "0.9"]) == 0
    content = json.loads(Path("a study/report/report.json").read_text())
    (lines, _) = (b["lines"] for s in content["sections"] for b in s["blocks"] if b["type"] == "commands")
    if "first_stage_seed" not in json.loads(Path("a study/study.json").read_text())["orders"][0]:
        lines[2] += " --first_stage_seed 5"
    printed = calls(lines)
    assert [words[:2] for words in printed] == [["trichord", "study"], ["trichord", "report"]]
    assert printed[1][2:] == [str(home / "a study-again"), "--direction", "t2v", "--level", "0.9"]
    monkeypatch.chdir(tmp_path)  # the commands work in any folder
    for words in printed:
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
    options = []
    for words in calls(list(lines))[:-1]:
        options.append(dict(zip(words[2::2], words[3::2], strict=True)))
        assert options[-1]["--out"] == f"{folder}-again" and options[-1]["--training.device"] == "cpu"
        assert options[-1]["--recipe"] == f"{folder}/report/recipe.yaml" and options[-1]["--benchmarks"] == '["日"]'
    assert [(t["--orders"], t["--seeds"], t.get("--first_stage_seed")) for t in options] == [
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
