"""Kill training: SIGKILLs at random moments of a study of three orders, and kills while a checkpoint is written.

The study is killed and restarted until it is finished, and then another one is started. At the end, all weights, lines of the
logs (except for their times), ranks and the table must equal those of an undisturbed study, and no finished stage may have been
trained again. Checkpoints are written by a process that ends at various points: by SIGKILL once a number of bytes is on the
disk, or by the kernel at an exact byte of a file (a limit of the file size, whose signal ends the process). Afterwards, the
next process must load the old or the new checkpoint, bit by bit, without a message.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from results import record
from torch import nn

from trichord.extraction.extract import extract
from trichord.losses.clustering import ClusterMemory
from trichord.study.files import read_arrays
from trichord.training.checkpoint import Position, load_newest, save_checkpoint
from trichord.training.training_state import TrainingState
from trichord.world import write_world

Rows = list[tuple[str, str, str]]


# ---- a study


def command(store: Path, out: Path) -> list[str]:
    settings = {"checkpoint_every_steps": "2", "device": "cpu", "keep_best": "1"}
    options = [word for name, value in settings.items() for word in (f"--training.{name}", value)]
    return [
        sys.executable, "-m", "trichord", "study", "--store", str(store), "--out", str(out), "--recipe", "debug",
        "--orders", "[av>t,at>v,vt>a]", *options,
    ]  # fmt: skip


def content(out: Path) -> dict[str, Any]:
    """Return everything that a study writes, bit for bit, without times."""
    found: dict[str, Any] = {name: (out / name).read_bytes() for name in ("table.md", "table.csv", "table.tex")}
    for path in sorted(out.rglob("*.safetensors")):
        found[str(path.relative_to(out))] = path.read_bytes()
    for path in sorted(out.glob("stages/*/model.json")):  # without the time and duration of training, and their digest
        described = json.loads(path.read_text())
        found[str(path.relative_to(out))] = {k: v for k, v in described.items() if k not in ("calls", "sha256")}
    for path in sorted(out.glob("stages/*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[str(path.relative_to(out))] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    for path in sorted(out.glob("orders/*/*/queries.npz")):
        found[str(path.relative_to(out))] = {k: a.tobytes() for k, a in read_arrays(path).items()}
    found["results"] = json.loads((out / "study.json").read_text())["results"]
    found["hidden"] = sorted(str(path.relative_to(out)) for path in out.rglob(".*"))
    return found


def finished(out: Path) -> dict[str, int]:
    """Return the finished stages, and when their weights were written."""
    return {
        path.parent.name: (path.parent / "model.safetensors").stat().st_mtime_ns
        for path in out.glob("stages/*/model.json")
    }


def start(store: Path, out: Path, log: Path) -> tuple[subprocess.Popen[str], float]:
    """Start a study; return its process after its first line of output, and the seconds until then."""
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command(store, out), stdout=file, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not log.stat().st_size:
        time.sleep(0.01)
    return process, time.monotonic() - began


def kill_studies(root: Path, num_kills: int, seed: int) -> Rows:
    """Kill and restart studies; return the rows of the results."""
    rng = random.Random(seed)
    write_world(root / "world", num_train=12, num_test=6, width=96, height=64, steps_per_video=4)
    extract(root / "world", root / "store", collection="world")
    store, log = root / "store", root / "log"
    process, _ = start(store, root / "whole", log)
    began = time.monotonic()
    assert process.wait() == 0, log.read_text()
    seconds, expected = time.monotonic() - began, content(root / "whole")
    kills = starts = rounds = lost = twice = refused = equal = 0
    resumed: Counter[str] = Counter()
    out, known = root / "killed", dict[str, int]()
    while kills < num_kills or out.exists():
        if not out.exists():
            shutil.rmtree(store / "frozen", ignore_errors=True)  # computed again, under kills
            known = {}
        process, _ = start(store, out, log)
        starts += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, seconds) if kills < num_kills else None)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        now = finished(out)
        lost += len(set(known) - set(now))
        twice += sum(now.get(name, when) != when for name, when in known.items())
        known |= now
        said = log.read_text()
        resumed["damaged"] += said.count("is not used (")
        if process.returncode > 0:
            refused += 1
            print(said)
        if process.returncode == 0:
            rounds += 1
            same = content(out) == expected
            equal += same
            shutil.rmtree(out) if same else out.rename(root / f"differs{rounds}")
    return [
        ("SIGKILLs of studies of three orders at random moments; starts", f"{kills}; {starts}", "50"),
        ("finished stages that were lost; that were trained again", f"{lost}; {twice}", "0; 0"),
        ("starts that failed with an error", str(refused), "0"),
        ("damaged checkpoints", str(resumed["damaged"]), "0"),
        ("finished studies; bit-equal to the undisturbed study", f"{rounds}; {equal}", "all"),
    ]


# ---- a checkpoint


def training(seed: int) -> TrainingState:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(512, 1024), nn.BatchNorm1d(1024), nn.Linear(1024, 512))
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return TrainingState(model, optimizer, schedule, ClusterMemory(8, 1024))


def train(state: TrainingState) -> None:
    rows = state.model(torch.randn(16, 512))
    state.optimizer.zero_grad()
    rows.square().mean().backward()
    state.optimizer.step()
    state.schedule.step()
    assert state.memory is not None
    state.memory.update(rows)


def held(state: TrainingState) -> dict[str, bytes]:
    """Return the complete state, bit for bit."""
    named = {f"{part}/{name}": t for part, tensors in state.tensors().items() for name, t in tensors.items()}
    found = {name: t.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for name, t in named.items()}
    return {**found, "numbers": repr(state.numbers()).encode(), "random": torch.get_rng_state().numpy().tobytes()}


def kill_writes(root: Path, num_kills: int, seed: int, *, by_limit: bool) -> Rows:
    """Kill processes that write checkpoints; return the rows of the results."""
    rng, folder = random.Random(seed), root / "stage" / "checkpoints"
    accelerator, state = Accelerator(cpu=True), training(0)
    train(state)
    last, step = save_checkpoint(accelerator, state, folder, Position(0)), 0
    files = {path.name: path.stat().st_size for path in last.iterdir()}
    total = sum(files.values())
    old, where = held(state), Counter[str]()
    kills = late = unreadable = wrong = said = 0
    while kills < num_kills:
        step += 1
        train(state)
        new, at = held(state), int(total * (kills + rng.random()) / num_kills)
        child = os.fork()
        if not child:
            try:
                if by_limit:
                    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                    largest = int(max(files.values()) * (kills + rng.random()) / num_kills)
                    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
                save_checkpoint(accelerator, state, folder, Position(step))
            finally:
                os._exit(0)
        if not by_limit:
            watch(
                child, folder / f".step-{step:08d}.partial", at, after=rng.uniform(0, 0.15) if kills % 5 == 4 else None
            )
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status)
        kills, late = kills + died, late + (not died)
        left = [path for path in folder.glob(".*.partial") if path.is_dir()]
        share = sum(path.stat().st_size for path in left[0].iterdir()) / total if left else 0.0
        where[
            "nothing, or already renamed" if not left else f"{int(share * 4) * 25} % and more" if share < 1 else "all"
        ] += died
        fresh, messages = training(1), list[str]()
        try:
            position = load_newest(accelerator, fresh, folder, messages.append)
        except Exception as error:
            unreadable += 1
            print(error)
            continue
        said += len(messages)
        unreadable += position is None
        mine = held(fresh)
        wrong += mine != (new if position is not None and position.step == step else old)
        state, old = fresh, mine
    kind = "the kernel at an exact byte of a file" if by_limit else "SIGKILL after a number of bytes on the disk"
    spread = ", ".join(f"{name}: {count}" for name, count in sorted(where.items()))
    return [
        (
            f"checkpoints of {total / 1e6:.0f} MB killed while written, by {kind}",
            f"{kills} ({late} not reached)",
            "200",
        ),
        ("written part of the checkpoint", spread, ""),
        (
            "unreadable folders; neither the old nor the new state; messages",
            f"{unreadable}; {wrong}; {said}",
            "0; 0; 0",
        ),
    ]


def watch(child: int, partial: Path, at: int, after: float | None) -> None:
    """Send SIGKILL when `partial` holds `at` bytes or, with `after`, that many seconds after its first byte."""
    seen = None
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = sum(entry.stat().st_size for entry in os.scandir(partial))
        if size and seen is None:
            seen = time.monotonic()
        if (size >= max(1, at)) if after is None else (seen is not None and time.monotonic() - seen > after):
            os.kill(child, signal.SIGKILL)
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="number of kills of studies")
    parser.add_argument(
        "--writes",
        type=int,
        default=200,
        help="number of kills while checkpoints are written, for each of the two methods",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    np.random.seed(0)
    rows: Rows = []
    with tempfile.TemporaryDirectory(prefix="trichord-kill-") as name:
        for by_limit in (False, True):
            if arguments.writes:
                rows += kill_writes(
                    Path(name) / f"writes{by_limit}", arguments.writes, arguments.seed, by_limit=by_limit
                )
        if arguments.kills:
            rows += kill_studies(Path(name), arguments.kills, arguments.seed)
    if arguments.no_record:
        print("\n".join(" | ".join(row) for row in rows))
        return
    record("bench_kill.py", "Training killed at random moments, and while checkpoints are written", rows)


if __name__ == "__main__":
    main()
