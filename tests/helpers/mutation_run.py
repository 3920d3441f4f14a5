"""Run mutations in worker processes with limits of time and memory, so that hangs, bombs and crashes are counted.

A worker creates the targets in a folder of its own, processes the mutations FIRST, FIRST + STEP, ... below COUNT, and writes
one line of JSON before and after each. `run` starts the workers, watches them, and replaces a worker that died, continuing
after the mutation that ended it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 30.0  # per mutation
START_S = 300.0  # for a worker to create its targets
MOST_BYTES = 3 << 30  # that a worker may map in addition, once its targets exist
REPEATS = {"resume": 1, "model": 3, "study": 5, "store": 9, "checkpoints": 6, "recipe": 5}  # shares; other targets 2
SHARE = [name for name, count in REPEATS.items() for _ in range(count)]


@dataclass
class Outcome:
    """Results of mutations: numbers by target and outcome, and the failures with everything needed to repeat them."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    most_rss_mb: float = 0.0

    def add(self, record: dict[str, Any]) -> None:
        key = (record["target"], record["outcome"])
        self.counts[key] = self.counts.get(key, 0) + 1
        self.most_rss_mb = max(self.most_rss_mb, record.get("rss_mb", 0.0))
        if record["outcome"] not in ("refused", "said", "same", "changed content"):
            self.failures.append(record)

    def total(self, outcome: str) -> int:
        return sum(count for (_, what), count in self.counts.items() if what == outcome)


def run(count: int, seed: int, num_workers: int = 2, only: str = "", start: Any = subprocess.Popen) -> Outcome:
    """Run mutations 0 to `count` of a seed; `only` selects one target, and `start` starts a process."""
    outcome, began = Outcome(), time.monotonic()
    workers = [_Worker(first, num_workers, count, seed, only, start) for first in range(num_workers)]
    with selectors.DefaultSelector() as ready:
        for worker in workers:
            worker.start(ready)
        while any(worker.process for worker in workers):
            for key, _ in ready.select(timeout=1.0):
                key.data.take(outcome, ready)
            for worker in workers:
                worker.watch(outcome, ready)
    outcome.seconds = time.monotonic() - began
    return outcome


class _Worker:
    def __init__(self, first: int, step: int, count: int, seed: int, only: str, start: Any) -> None:
        self.open = start
        self.next, self.step, self.count, self.seed, self.only = first, step, count, seed, only
        self.process: subprocess.Popen[bytes] | None = None
        self.now: dict[str, Any] = {}

    def start(self, ready: selectors.BaseSelector) -> None:
        if self.next >= self.count:
            return
        words = [str(n) for n in (self.next, self.step, self.count, self.seed)]
        self.process = self.open(
            [sys.executable, str(Path(__file__)), *words, self.only], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.until, self.now, self.rest = time.monotonic() + START_S, {}, b""
        ready.register(self.process.stdout, selectors.EVENT_READ, self)

    def take(self, outcome: Outcome, ready: selectors.BaseSelector) -> None:
        assert self.process is not None and self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            self._end(outcome, ready, "crashed")
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            record = json.loads(line)
            self.now, self.until = record, time.monotonic() + LIMIT_S
            self.next = record["number"] + self.step
            if "outcome" in record:
                outcome.add(record)
                self.now = {}

    def watch(self, outcome: Outcome, ready: selectors.BaseSelector) -> None:
        if self.process is not None and time.monotonic() > self.until:
            self.process.kill()
            self._end(outcome, ready, "hung")

    def _end(self, outcome: Outcome, ready: selectors.BaseSelector, what: str) -> None:
        assert self.process is not None and self.process.stdout is not None
        ready.unregister(self.process.stdout)
        self.process.stdout.close()
        code, self.process = self.process.wait(), None
        if self.now:
            outcome.add({**self.now, "outcome": what, "detail": f"the process ended with {code}"})
        elif code:
            outcome.add({"target": "a worker", "number": self.next, "outcome": what, "detail": f"ended with {code}"})
            self.next += self.step
        self.start(ready)


def main(first: int, step: int, count: int, seed: int, only: str) -> None:
    """Run the worker."""
    import warnings

    import torch

    sys.path.insert(0, str(Path(__file__).parent))
    from mutation_targets import targets

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory(prefix="trichord-mutations-") as name:
        root = Path(name)
        all_targets = targets(root)
        base = {}
        for key, target in all_targets.items():
            base[key] = target.read(_fresh(target.folder, root))
        names = (
            [only]
            if only
            else [*SHARE, *(n for n in all_targets if n not in REPEATS), *(n for n in all_targets if n not in REPEATS)]
        )
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_BYTES, mapped + MOST_BYTES))
        for number in range(first, count, step):
            rng = random.Random(f"{seed} {number}")
            target = all_targets[rng.choice(names)]
            out.write(json.dumps({"number": number, "target": target.name}) + "\n")
            out.write(json.dumps(one(target, base[target.name], number, rng, root)) + "\n")


def _fresh(folder: Path, root: Path) -> Path:
    work = root / "work" / folder.name
    shutil.rmtree(work.parent, ignore_errors=True)
    return Path(shutil.copytree(folder, work))


def one(target: Any, base: dict[str, str], number: int, rng: random.Random, root: Path) -> dict[str, Any]:
    """Damage a fresh copy of the target, read it, and return the outcome."""
    from mutations import mutate
    from trichord.errors import TrichordError

    work, marker = _fresh(target.folder, root), root / "marker"
    marker.unlink(missing_ok=True)
    files = target.files(work)
    path = rng.choice(files)
    file = str(path.relative_to(work))
    record: dict[str, Any] = {"number": number, "target": target.name, "file": file}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record["kind"] = kind = mutate(path, files, rng, marker)
    try:
        content = target.read(work)
        fault = target.fault(base, content, file, kind, work)
        reported = "problems" in content or content.get("said") == "True"
        unreported = "same" if content == base else "changed content"
        record |= {"outcome": "wrong result" if fault else "said" if reported else unreported, "detail": fault}
    except TrichordError as error:
        text = str(error)
        record |= {"outcome": "refused", "detail": text[:300]}
        if not text.isprintable():
            record["outcome"] = "not one printable line"
    except AssertionError as error:
        record |= {"outcome": "wrong result", "detail": f"{error}\n{traceback.format_exc()[-1500:]}"}
    except Exception:
        record |= {"outcome": "traceback", "detail": traceback.format_exc()[-2500:]}
    if marker.exists():
        record["outcome"] = "executed"
    record["rss_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return record


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]), sys.argv[5] if len(sys.argv) > 5 else "")
