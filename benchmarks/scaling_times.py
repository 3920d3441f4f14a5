"""Measure the stage times for `scaling_model.py` on one core.

`seconds_of` returns the wall-clock time of a job minus the time that its thread waited for a core. Disk accesses are therefore
included, and the load of the machine is not.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from trichord.captions import Captions

SECONDS = 390  # average length of a HowTo100M video: 134,472 hours, 1.24 M videos
WIDTHS = {"visual_2d": (1280, 1), "spectrogram": (40, 100)}  # of the default encoders: width, rows per second


def waited_s(path: str = "/proc/thread-self/schedstat") -> float:
    """Return the seconds that a thread was ready to run and had no core."""
    return int(Path(path).read_text().split()[1]) / 1e9


def seconds_of(job: Callable[[], object]) -> float:
    begin, waited = time.perf_counter(), waited_s()
    job()
    return time.perf_counter() - begin - (waited_s() - waited)


def median_of(job: Callable[[], object], times: int = 5) -> float:
    return median(seconds_of(job) for _ in range(times))


def command_s(*arguments: str) -> float:
    """Return the processor seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Load:
    """Measures how much longer the threads of this process's children took because they waited for a core.

    Use it as `with Load() as load`; then `load.stretch` is the factor.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def stretch(self) -> float:
        ran, waited = (sum(column) for column in zip(*self._seen.values(), strict=True))
        return (ran + waited) / ran

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for pid in descendants(os.getpid()):
                for task in Path(f"/proc/{pid}/task").glob("*"):
                    try:
                        ran, waited, _ = (task / "schedstat").read_text().split()
                        self._seen[task.name] = int(ran), int(waited)
                    except (OSError, ValueError):
                        continue


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
        except OSError:
            continue
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


# ---- extraction


def worker_times(videos: Sequence[Path], store: Path) -> list[dict[str, float]]:
    """Return, for each video, the seconds of one worker with one core, its length, and the seconds of hashing its content."""
    from trichord.extraction.choice import EncoderChoice, load
    from trichord.extraction.plan import content_of
    from trichord.extraction.sources import Source
    from trichord.extraction.work import Task, run_task
    from trichord.features.hashes import FileHashes

    encoders, found = load(EncoderChoice(), "cpu"), []
    hashes = FileHashes(store, keep=False)
    for number, path in enumerate([videos[0], *videos]):  # the first one twice, as warm-up
        source = Source(video_id=f"{number}", name=path.name, video=path)
        hash_s = seconds_of(lambda source=source: content_of(source, hashes))
        begin = time.process_time()
        outcome = run_task(Task(source, "train", f"{number:040d}:x", "bench", store), encoders, 1)
        assert not outcome.kind, outcome.reason
        worker_s = time.process_time() - begin
        found.append({"worker_s": worker_s, "video_s": outcome.duration_s, "hash_s": hash_s,
                      "item_bytes": outcome.num_bytes, "file_bytes": path.stat().st_size})  # fmt: skip
    return found[1:]


def spool(store: Path, count: int, first: int) -> list[float]:
    """Write items of 390 s to the spool; return the seconds of each."""
    from trichord.store.spool import SpoolWriter

    starts = np.arange(0, SECONDS, 4.0)
    captions = Captions(starts, starts + 4, ("now we put the onion into the pan and stir it",) * len(starts))
    rows = {
        name: np.random.default_rng(0).random((SECONDS * hz, dim)).astype(np.float16)
        for name, (dim, hz) in WIDTHS.items()
    }

    def one(number: int) -> None:
        writer = SpoolWriter(store, f"{number:040d}:x", "bench")
        for name, values in rows.items():
            writer.append(name, values)
        rates_hz = {name: float(hz) for name, (_, hz) in WIDTHS.items()}
        writer.commit(video_id=f"{number}", split="train", duration_s=SECONDS, rates_hz=rates_hz, captions=captions)

    return [seconds_of(lambda k=k: one(k)) for k in range(first, first + count)]


def commit_times(root: Path) -> dict[str, float]:
    """Measure commits of n items into a new store with the driver's own steps; return intercept and slope over n."""
    from trichord.store import StoreWriter
    from trichord.store.spool import read_spooled, remove_spooled, spooled
    from trichord.store.words import word_vectors_for

    def commit(store: Path) -> None:
        folders = spooled(store)
        items = [read_spooled(path) for path in folders]
        vectors = word_vectors_for(text for item in items if item for text in item.captions.text)
        with StoreWriter(store, vectors) as writer:
            for item in items:
                assert item is not None
                writer.add(item, copy=False)
        for path in folders:
            remove_spooled(path)

    found, writes = {}, []
    for count in (4, 48, 4, 48, 4):
        store = root / f"commit{len(writes)}"
        writes += spool(store, count, 0)
        found.setdefault(count, []).append(seconds_of(lambda store=store: commit(store)))
    few, many = median(found[4]), median(found[48])
    item_s = (many - few) / 44
    return {"spool_s": median(writes), "commit_s": max(few - 4 * item_s, 0.0), "commit_item_s": item_s}


def reopen_times(root: Path) -> dict[str, float]:
    """Measure what a commit and the following lease read of a store whose index is in memory.

    Returns:
        Seconds for each item and for each part of the store, and the time of a lease by the number of parts.
    """
    import bench_million

    from trichord.extraction.plan import Known
    from trichord.store import Store, StoreWriter, WordVectors
    from trichord.store.committed import Committed
    from trichord.store.leases import Leases

    rows, seconds, leases_s = [], [], []
    for per_part, parts in ((64, 10), (64, 150), (64, 600), (1000, 10), (1000, 100)):
        folder = root / f"reopen{per_part}-{parts}"
        folder.mkdir()
        if (root / "seed").exists():
            (root / "seed").rename(folder / "seed")
        bench_million.PER_PART = per_part
        path = bench_million.write_store(folder, parts)
        (folder / "seed").rename(root / "seed")
        opened = Store(path)
        words = WordVectors(list(opened.words), np.asarray(opened.word_vectors), opened.word_source, opened.lowercase)
        del opened

        kept, known = Committed(), Known(path, "bench")
        kept.renew(path)
        known.renew()

        def commit(path: Path = path, words: WordVectors = words, kept: Committed = kept) -> None:
            with StoreWriter(path, words, committed=kept) as writer:
                writer.has_source("bench", "")

        rows.append((1.0, per_part * parts, parts))
        seconds.append(median_of(commit, 3) + median_of(known.renew, 3))
        with Leases(path) as leases:

            def lease(leases: Leases = leases, known: Known = known) -> None:
                for number in range(100):
                    leases.acquire(f"{number}")
                    known.renew()

            leases_s.append(median_of(lease, 3) / 100)
    words_s, item_s, part_s = np.linalg.lstsq(np.array(rows), np.array(seconds), rcond=None)[0]
    lease_part_s, lease_s = np.polyfit([row[2] for row in rows], leases_s, 1)
    print(
        "reopen", list(zip(rows, seconds, leases_s, strict=True)), f"constant {words_s:.3f} s (a table of 10,000 words)"
    )
    return {"reopen_item_s": max(item_s, 0.0), "reopen_part_s": max(part_s, 0.0),
            "lease_s": max(lease_s, 0.0), "lease_part_s": max(lease_part_s, 0.0)}  # fmt: skip


def _nothing(task: Any) -> Any:
    return task


def outcome_s(count: int = 400) -> float:
    """Return the processor time of all threads of the driver for giving a task to a process and receiving its result."""
    import multiprocessing

    from pebble import ProcessPool

    from trichord.extraction.pool import first_done
    from trichord.extraction.task import Outcome

    with ProcessPool(1, context=multiprocessing.get_context("spawn")) as pool:
        pool.schedule(_nothing, args=(0,)).result()
        begin = time.process_time()
        waiting = {pool.schedule(_nothing, args=(Outcome(),)) for _ in range(count)}
        while waiting:
            waiting -= first_done(waiting)
        return (time.process_time() - begin) / count


class RayNothing:
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return row


def ray_times() -> dict[str, float]:
    """Return the seconds of a map on a local cluster with one actor that does nothing, and the additional time of each task."""
    from trichord.cluster import Cluster, RayOptions

    os.environ |= {
        "PYTHONPATH": str(Path(__file__).parent),
        "RAY_USAGE_STATS_ENABLED": "0",
    }  # where actors find modules
    found = {}
    cluster = Cluster(RayOptions("local", 1, None), "cpu")
    rows = [{"task": bytes(1000)}] * 1024
    try:
        for count in (64, 64, 1024):
            begin = time.perf_counter()
            assert len(list(cluster.mapped(RayNothing, (), rows[:count], 1))) == count
            found[count] = time.perf_counter() - begin
    finally:
        cluster.close()
    task_s = (found[1024] - found[64]) / 960
    return {"task_s": task_s, "map_s": found[64] - 64 * task_s}


def extraction_times(root: Path, videos: Sequence[Path]) -> dict[str, Any]:
    (root / "one").mkdir()
    load = "from trichord.extraction.choice import *; import trichord.extraction.pool; load(EncoderChoice(), 'cpu')"
    each = worker_times(videos, root / "one")
    return {"videos": each, "start_s": median(command_s("-c", load) for _ in range(3)), "outcome_s": outcome_s(),
            **commit_times(root), **reopen_times(root), **ray_times()}  # fmt: skip


def as_dict(of: object) -> dict[str, Any]:
    return asdict(of)  # type: ignore[call-overload,no-any-return]


torch.set_num_threads(1)
