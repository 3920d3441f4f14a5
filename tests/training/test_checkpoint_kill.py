"""A process that dies at any moment leaves folders from which the next one continues with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forked
from checkpoint_helpers import digest, killed_at, load, save, small_state, train
from trichord.recipes import load_recipe
from trichord.study.files import read_arrays
from trichord.study.run import run_study
from trichord.training.checkpoint import checkpoints_of


def steps_of(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in checkpoints_of(folder)]


def test_a_save_killed_at_every_change_of_the_disk(tmp_path: Path) -> None:
    """Before the rename, the previous checkpoint is the newest; after it, the new one. A kill is not damage, so there is no
    message. The last kill point is past the end.
    """
    loaded_steps, at, finished = [], 0, False
    while not finished:
        at += 1
        folder = tmp_path / str(at) / "checkpoints"
        state = small_state()
        for step in (1, 2):
            train(state, 1)
            save(state, folder, step)
        before = digest(state)
        train(state, 1)
        after = digest(state)
        with killed_at(at) as killer:
            save(state, folder, 3)
        finished = killer.calls < at
        fresh, messages = small_state(seed=4), []
        position = load(fresh, folder, messages)
        assert position is not None and messages == []
        assert digest(fresh) == {2: before, 3: after}[position.step]
        assert not [path for path in folder.iterdir() if path.name.startswith(".")], "remains are cleared"
        loaded_steps.append(position.step)
        save(fresh, folder, 4)
        assert steps_of(folder) == [position.step, 4]
    assert (
        loaded_steps == sorted(loaded_steps)
        and loaded_steps[0] == 2
        and loaded_steps[-1] == 3
        and len(loaded_steps) > 20
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(1, 45), min_size=1, max_size=6), keep_best=st.integers(0, 2))
def test_kill_after_kill(kills: list[int], keep_best: int) -> None:
    """Each process continues from the state of the previous one and is killed as well; the end equals that of an undisturbed
    run.
    """
    whole = small_state()
    random.seed(0), np.random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoints"
        save(whole, folder, 0)
        train(whole, 8)
        expected, at = digest(whole), 0
        for kill in [*kills, 10**6]:
            state, messages = small_state(seed=3), []
            position = load(state, folder, messages)
            assert position is not None and messages == [] and position.step >= at
            at = position.step
            with killed_at(kill):
                for step in range(at + 1, 9):
                    train(state, 1)
                    save(state, folder, step, mean_loss=1 / step, keep_best=keep_best)
        assert digest(state) == expected
        assert {7, 8} <= set(steps_of(folder)) and len(steps_of(folder)) <= 2 + keep_best


def recipe() -> Any:
    return load_recipe(
        "debug",
        training={"tensorboard": False, "device": "cpu", "max_steps": 2, "checkpoint_every_steps": 1},
        evaluation={"directions": ["t2v"]},
        data={"videos_per_batch": 3, "clips_per_video": 2},
    )


def left(out: Path) -> dict[str, Any]:
    """Return everything that a study writes, except for times."""
    content: dict[str, Any] = {name: (out / name).read_bytes() for name in ("table.md", "table.csv", "table.tex")}
    content |= {path.name: path.read_bytes() for path in sorted(out.glob("orders.png"))}
    for path in sorted(out.glob("stages/*/model.safetensors")):
        content[str(path.relative_to(out))] = path.read_bytes()
    for path in sorted(out.glob("stages/*/model.json")):  # without times of training and the digest over them
        described = json.loads(path.read_text())
        content[str(path.relative_to(out))] = {k: v for k, v in described.items() if k not in ("calls", "sha256")}
    for path in sorted(out.glob("stages/*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        content[str(path.relative_to(out))] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    for path in sorted(out.glob("orders/*/*.npz")):
        content[str(path.relative_to(out))] = {k: a.tobytes() for k, a in read_arrays(path).items()}
    content["results"] = json.loads((out / "study.json").read_text())["results"]
    content["odd"] = sorted(str(path.relative_to(out)) for path in out.rglob(".*"))
    return content


@pytest.fixture(scope="module")
def whole(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """The files of an undisturbed study, and the number of its changes of the disk."""
    out = tmp_path_factory.mktemp("whole") / "study"
    with killed_at(10**6) as killer:
        run_study(tiny_store, out, ["vt"], [0], recipe())
    return left(out), killer.calls


@pytest.mark.parametrize("part", [0.02, 0.4, 0.75, 0.95])
def test_a_study_killed_within_a_write(part: float, whole: tuple[dict[str, Any], int], tiny_store: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "study"
        with killed_at(int(part * whole[1])):
            run_study(tiny_store, out, ["vt"], [0], recipe())
        run_study(tiny_store, out, ["vt"], [0], recipe())
        assert left(out) == whole[0]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_study_killed_again_and_again(data: Any, whole: tuple[dict[str, Any], int], tiny_store: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "study"
        for _ in range(data.draw(st.integers(1, 3))):
            with killed_at(data.draw(st.integers(1, whole[1]))):
                run_study(tiny_store, out, ["vt"], [0], recipe())
        run_study(tiny_store, out, ["vt"], [0], recipe())
        assert left(out) == whole[0]


@pytest.mark.slow
def test_a_study_killed_for_real(tiny_store: Path, tmp_path: Path) -> None:
    """Sends SIGKILL four times, at moments spread over the time of an undisturbed study."""
    out, rng = tmp_path / "killed", random.Random(0)
    began = time.monotonic()
    forked.run(command(tiny_store, tmp_path / "whole"), check=True, capture_output=True)
    seconds = time.monotonic() - began
    for _ in range(4):
        process = forked.Popen(command(tiny_store, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    last = forked.run(command(tiny_store, out), capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert left(out) == left(tmp_path / "whole")


def command(store: Path, out: Path) -> list[str]:
    settings = ["--training.checkpoint_every_steps", "2", "--training.device", "cpu", "--training.tensorboard", "false"]
    settings += ["--data.videos_per_batch", "3", "--data.clips_per_video", "2", "--data.audio_frames", "100"]
    orders = ["--orders", "[av>t]"]
    return [
        sys.executable, "-m", "trichord", "study", "--store", str(store), "--out", str(out), *orders, "--recipe", "debug",
        *settings,
    ]  # fmt: skip
