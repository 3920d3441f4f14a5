"""torchrun and accelerate launch: their results, and the messages when one process fails.

One launch starts new interpreters, as for a user. The others run the same launchers and commands in processes that are forked
from a server, which has imported the libraries.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import forked
from paths import HELPERS, ROOT
from process_helpers import free_port

TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "PORT"]
# `--cpu --num_processes 2` starts one process, since accelerate requires mpirun for several processes on CPUs. `--multi_gpu`
# starts two, which communicate through gloo if there is no GPU.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "PORT"]  # fmt: skip
pytestmark = pytest.mark.slow


def run(*words: str | Path, run: Any = forked.run) -> subprocess.CompletedProcess[str]:
    """Run a command; `run` is `subprocess.run` for new interpreters, as a user starts them."""
    port = str(free_port())
    line = [sys.executable, *(port if word == "PORT" else str(word) for word in words)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done: subprocess.CompletedProcess[str] = run(line, capture_output=True, text=True, timeout=240, cwd=ROOT, env=env)
    return done


def losses(folder: Path) -> dict[str, list[float]]:
    """Return the loss of each step, by stage."""
    by_step = {}
    for path in sorted(folder.glob("stages/*/metrics.jsonl")):
        by_step[path.parent.name] = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    return by_step


@pytest.fixture(scope="module")
def alone(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "study"
    done = run("-m", "trichord", "study", "--store", tiny_store, "--out", out, *STUDY)
    assert done.returncode == 0, done.stderr
    return out


STUDY = ["--recipe", "debug", "--orders", "[av>t,avt]", "--training.learning_rate", "1e-5"]


@pytest.mark.parametrize(
    ("launcher", "first"), [(TORCHRUN, subprocess.run), (ACCELERATE, forked.run)], ids=["torchrun", "accelerate"]
)
def test_a_study_of_two_processes_is_that_of_one(
    launcher: list[str], first: Any, alone: Path, tiny_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    done = run(*launcher, "-m", "trichord", "study", "--store", tiny_store, "--out", out, *STUDY, run=first)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("order ") == done.stdout.count("next: trichord report") == 1  # only one process prints
    assert [len(steps) for steps in losses(out).values()] == [10, 10, 10]
    for stage, steps in losses(alone).items():
        described = json.loads((out / "stages" / stage / "model.json").read_text())
        assert [call["machine"]["processes"] for call in described["calls"]] == [2]
        assert losses(out)[stage] == pytest.approx(steps, rel=1e-4)
        a, b = (load_file(folder / "stages" / stage / "model.safetensors") for folder in (alone, out))
        # The first steps of Adam have the size of the learning rate, even where a gradient is only rounding of either sign.
        assert max(float((a[name] - b[name]).abs().max()) for name in a if "running" not in name) < 2 * 10 * 1e-5
    rows, expected = (list(csv.DictReader((f / "table.csv").read_text().splitlines())) for f in (out, alone))
    assert len(rows) == len(expected) > 10
    for row, wanted in zip(rows, expected, strict=True):
        for name in row:
            if name in ("r1", "r5", "r10", "R@1", "R@5", "R@10"):
                # at most one query differs
                assert abs(float(row[name]) - float(wanted[name])) <= 100 / 32 + 1e-9, (row, name)
    again = run(*launcher, "-m", "trichord", "study", "--store", tiny_store, "--out", out, *STUDY)
    assert again.returncode == 0 and "step" not in again.stdout


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall("^trichord: error: (.*)$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [("error", "shard 7 cannot be read; copy it again"), ("defect", "KeyError: 'nobody thought of it'"),
     ("kill", "another process of this launch has ended .this is process 0 of 2."),
     ("sleep", "another process of this launch did not answer within training.process_timeout_s"),
     ("queue", "stage av, step 4: process 1 of 2 differs from process 0 in its cluster queue, so")],
)  # fmt: skip
def test_one_process_that_fails_ends_all_with_one_line(wrong: str, line: str, tiny_store: Path, tmp_path: Path) -> None:
    started, out = time.monotonic(), tmp_path / "run"
    words = ["train", "--store", tiny_store, "--out", out, "--recipe", "debug", "--training.process_timeout_s", "5"]
    done = run(*TORCHRUN, HELPERS / "launched.py", wrong, *words)
    assert done.returncode != 0 and time.monotonic() - started < 120
    (only,) = errors_of(done)
    assert re.search(line, only), only
    if wrong == "error":
        resumed = run(*TORCHRUN, HELPERS / "launched.py", "nothing", *words, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert [len(steps) for steps in losses(out).values()] == [10, 10]


def test_a_mistake_of_the_user_is_reported_once(tiny_store: Path, tmp_path: Path) -> None:
    for words in (["--order", "av>x"], ["--training.epoch", "3"], ["--training.sync_batch_norm", "true"]):
        done = run(*TORCHRUN, "-m", "trichord", "train", "--store", tiny_store, "--out", tmp_path / "run", *words)
        assert done.returncode != 0 and len(errors_of(done)) == 1, done.stderr


def test_a_run_continues_with_another_number_of_processes(tiny_store: Path, tmp_path: Path) -> None:
    """The batches are the same; a note says that sums and random states may differ."""
    out = tmp_path / "run"
    words = [
        "train",
        "--store",
        tiny_store,
        "--out",
        out,
        "--recipe",
        "debug",
        "--training.checkpoint_every_steps",
        "2",
    ]
    assert run(*TORCHRUN, HELPERS / "launched.py", "error", *words).returncode != 0
    done = run("-m", "trichord", *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "written by 2 processes and continued by 1" in done.stdout
    assert [len(steps) for steps in losses(out).values()] == [10, 10]
