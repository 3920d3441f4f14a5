"""`trichord freeze` computes frozen embeddings in advance, and later stages use them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import forked
from tiny import write_tiny_store
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.recipes import Recipe, load_recipe
from trichord.study import run
from trichord.study.freeze import freeze

pytestmark = pytest.mark.usefixtures("without_chart")


def quick(**more: Any) -> Recipe:
    training = {"tensorboard": False, "device": "cpu", "max_steps": 7, "epochs": 7}
    return load_recipe("debug", training={**training, **more.pop("training", {})}, **more)


def made(store: Path) -> set[str]:
    return {path.name.split("-")[0] for path in (store / "frozen").iterdir() if path.is_dir()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_tiny_store(tmp_path / "store")


def test_a_later_stage_uses_embeddings_computed_ahead(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run.train_order(store, out, "vt", 0, quick())
    assert main(["freeze", str(out), "--store", str(store), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert (
        "frozen video: 96 clips" in printed
        and "frozen text: 96 clips" in printed
        and "ready for later stages: " in printed
    )
    assert made(store) == {"video", "text"}
    before = {path: path.stat().st_mtime_ns for path in (store / "frozen").rglob("*.npy")}
    said: list[str] = []
    with passing_messages(said.append):
        run.train_order(store, out, "vt>a", 0, quick(), resume=True)
    assert not [line for line in said if line.startswith("frozen")], "nothing was left to make"
    assert {path: path.stat().st_mtime_ns for path in (store / "frozen").rglob("*.npy")} == before
    assert [path.name for path in freeze(out, store, order="vt>a")] == sorted(
        (path.parent.name for path in before if path.name == "row.npy"), reverse=True
    )


def test_encoders_that_cannot_be_frozen_are_reported(store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="no finished stage that a later one would freeze; train the first stage"):
        freeze(tmp_path, store)
    out = tmp_path / "out"
    run.train_order(store, out, "vt", 0, quick(training={"max_steps": 1}))
    with pytest.raises(TrichordError, match="no finished stage that AV→T would freeze"):
        freeze(out, store, order="av>t")
    said: list[str] = []
    with passing_messages(said.append):
        assert freeze(out, store) == [] and "read only once" in said[0]
    other = tmp_path / "other"
    run.train_order(store, other, "vt", 0, quick(training={"frozen_cache": "off"}))
    with pytest.raises(TrichordError, match="frozen_cache off, so embeddings are not cached"):
        freeze(other, store)


def test_options_without_effect_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["freeze", str(tmp_path), "--store", str(tmp_path), "--workers", "2"]) == 2
    assert "--workers 2 has no effect without --ray" in capsys.readouterr().err


@pytest.mark.slow
def test_several_commands_share_the_work(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run.train_order(store, out, "av", 0, quick())
    command = [sys.executable, "-m", "trichord", "freeze", str(out), "--store", str(store), "--device", "cpu"]
    processes = [forked.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        output, wrong = process.communicate(timeout=120)
        assert process.returncode == 0 and wrong == "" and "ready for later stages" in output
    assert made(store) == {"audio", "video"}
