"""Every stage records the calls that trained it, and the report shows where they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from report_helpers import write_study_folder
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.modality import Direction
from trichord.recipes import Recipe, load_recipe
from trichord.report.contents_repeat import places_table, repeat_section
from trichord.report.document import Table, Text
from trichord.report.reading import read_study
from trichord.report.write import write_report
from trichord.study import run
from trichord.study.calls import CALLS, begin_call, calls_of
from trichord.study.folder import machine, versions

pytestmark = pytest.mark.usefixtures("without_chart")


def quick(**training: Any) -> Recipe:
    settings = {
        "tensorboard": False,
        "device": "cpu",
        "max_steps": 4,
        "checkpoint_every_steps": 1,
        "log_every_steps": 1,
    }
    return load_recipe("debug", training={**settings, **training})


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def stop(line: str) -> None:
    if "  step 2/4  " in line:
        raise KeyboardInterrupt


def test_a_stage_keeps_the_calls_that_trained_it(tiny_store: Path, tmp_path: Path, two_threads: None) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), passing_messages(stop):
        run.run_study(tiny_store, out, ["vt"], [0], quick())
    (waiting,) = out.glob(f"stages/*/{CALLS}")
    assert [set(call) for call in json.loads(waiting.read_text())] == [{"begun", "versions", "machine"}]
    torch.set_num_threads(1)
    run.run_study(tiny_store, out, ["vt"], [0], quick())
    assert not list(out.glob(f"stages/*/{CALLS}"))
    (stage,) = read_study(out).stages.values()
    before, after = stage.calls
    assert (before["machine"]["threads"], after["machine"]["threads"]) == (2, 1)
    assert before["versions"] == after["versions"] == versions() and after["machine"] == machine(quick())
    assert "steps" not in before and 0 < after["steps"] < 4 and after["seconds"] > 0
    assert before["begun"] <= after["begun"] <= after["ended"]
    table = places_table(read_study(out))
    assert table is not None
    assert [row[1].text.split(" on ")[0] for row in table.rows] == ["1 thread", "2 threads"]
    assert table.rows[0][0].text.startswith("the last call, ") and "none" in table.rows[1][2].text
    summary = write_report(out)
    assert "Where it ran" in (out / "report" / "report.html").read_text() and str(summary)


def test_a_damaged_record_stops_no_training(tiny_store: Path, tmp_path: Path) -> None:
    (tmp_path / CALLS).write_text('[{"begun": 3}]')
    assert calls_of(tmp_path) == []
    (tmp_path / CALLS).write_text("[torn")
    begin_call(tmp_path, quick())
    begin_call(tmp_path, quick())
    assert [call["machine"] for call in calls_of(tmp_path)] == [machine(quick())] * 2


def with_calls(folder: Path, number: int, *calls: dict[str, Any]) -> str:
    path = sorted(folder.glob("stages/*/model.json"))[number]
    path.write_text(json.dumps({**json.loads(path.read_text()), "calls": calls}))
    return path.parent.name


def test_the_report_shows_stages_that_were_trained_differently(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["av>t", "vt>a"], seeds=[0, 1])
    assert places_table(read_study(folder)) is None, "nothing was recorded"
    path = folder / "study.json"
    here = {"threads": 4, "device": "cpu", "processes": 1, "processor": "x86_64 AVX2"}
    there = {"threads": 1, "device": "A GPU", "processes": 2}
    content = {**json.loads(path.read_text()), "machine": here}
    path.write_text(json.dumps(content))
    own = {"begun": "2026-03-01T10:00:00+00:00", "versions": content["versions"], "machine": here}
    named = [with_calls(folder, number, own) for number in range(6)]
    assert places_table(read_study(folder)) is None, "all alike"
    older = {**own, "begun": "2026-02-03T10:00:00+00:00", "versions": {**content["versions"], "torch": "2.12.0"}}
    moved = with_calls(folder, 7, older, {**older, "begun": "2026-02-02T00:00:00+00:00", "machine": there}, own)
    table = places_table(read_study(folder))
    assert table is not None and [[cell.text for cell in row] for row in table.rows] == [
        [
            ", ".join(["the last call", *sorted([*named, moved], key=list(read_study(folder).stages).index)]),
            "4 threads on cpu (x86_64 AVX2)", "torch 2.13.0", "2026-03-01",
        ],
        [moved, "4 threads on cpu (x86_64 AVX2)", "torch 2.12.0", "2026-02-03"],
        [moved, "1 thread 2 processes on A GPU", "torch 2.12.0", "2026-02-02"],
    ]  # fmt: skip
    text, note, *_ = repeat_section(read_study(folder), Direction.parse("t2v"), 0.95).blocks
    assert isinstance(text, Text) and "The table lists the versions and machines of other calls" in text.paragraphs[1]
    assert isinstance(note, Table) and note.name == "places"


@pytest.mark.parametrize("calls", [3, [3], [{"begun": "x"}], [{"begun": 1, "versions": {}, "machine": {}}]])
def test_a_record_of_another_form_is_reported(calls: Any, tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["vt"], seeds=[0])
    (path,) = folder.glob("stages/*/model.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "calls": calls}))
    with pytest.raises(TrichordError, match="its calls lack the time, versions or machine.*delete the folder"):
        read_study(folder).stages  # noqa: B018
