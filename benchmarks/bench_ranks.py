"""Compare retrieval metrics with the published implementation, and rank 100,000 queries among 100,000 items, with two threads.

The published implementation computes the whole similarity matrix, sorts its negative along the gallery (np.sort), subtracts the
diagonal, and finds the zeros (np.where). Embeddings have 512 dimensions; a query is its item plus five times as much noise. The
targets are 20 x the speed, and memory O(N).
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "2"

import numpy as np  # noqa: E402
from results import record  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from trichord.evaluation.ranks import metrics_from_counts, retrieval_metrics, retrieval_ranks  # noqa: E402

WIDTH = 512


def embeddings(n: int, noise: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Return queries and gallery, (N, 512) float32 each."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((n, WIDTH), np.float32)
    queries = np.float32(noise) * rng.standard_normal((n, WIDTH), np.float32)
    queries += gallery
    return queries, gallery


def published(scores: np.ndarray) -> dict[str, float]:
    """Return R@1, R@5, R@10 and MedR of a matrix of scores by sorting it."""
    ordered = np.sort(-scores, axis=1)
    diagonal = np.diag(-scores)[:, np.newaxis]
    places = np.where(ordered - diagonal == 0)[1]
    recalls = {f"r{k}": 100 * float(np.sum(places < k)) / len(places) for k in (1, 5, 10)}
    return {**recalls, "medr": float(np.median(places) + 1)}


def resident_mb(field: str) -> float:
    """Return the resident memory of this process (VmRSS) or its peak (VmHWM), on Linux."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def forget_peak() -> float:
    """Reset VmHWM, and return the resident memory in MB.

    `ru_maxrss` would start with the peak of the parent process.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mb("VmRSS")


def peak_mb(task: str, n: int) -> float:
    """Return the increase of the peak resident memory during one task, in a fresh process."""
    command = [sys.executable, __file__, "--task", task, "--num", str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def one_task(task: str, n: int) -> None:
    """Print the increase of the peak resident memory during one task."""
    queries, gallery = embeddings(n)
    retrieval_metrics(np.eye(8, dtype=np.float32))  # late imports must not count
    scores = queries @ gallery.T if task.endswith("matrix") else queries[:8] @ gallery.T
    before = forget_peak()
    if task == "ours":
        metrics_from_counts(retrieval_ranks(queries, gallery))
    elif task == "ours, from the matrix":
        retrieval_metrics(scores)
    else:
        published(queries @ gallery.T)
    print(resident_mb("VmHWM") - before)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a function takes, and its result."""
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def product_rate() -> float:
    """Return the floating-point operations per second of processor time of NumPy's float32 product.

    It uses one thread; the best of ten runs counts, and a multiply-add is two operations.
    """
    queries, gallery = embeddings(4000)
    seconds = []
    with threadpool_limits(1, "blas"):
        for _ in range(10):
            start = time.process_time()
            queries @ gallery.T  # noqa: B018
            seconds.append(time.process_time() - start)
    return 2 * len(queries) * len(gallery) * WIDTH / min(seconds)


def compare(n: int, runs: int) -> list[tuple[str, str, str]]:
    """Measure all implementations at N = n in turn."""
    queries, gallery = embeddings(n)
    chance, _ = embeddings(n, 1e3)
    scores = queries @ gallery.T
    ways: dict[str, Callable[[], Any]] = {
        "published, given the matrix": lambda: published(scores),
        "ours, given the matrix": lambda: retrieval_metrics(scores),
        "reading the matrix once (maximum, one thread)": lambda: scores.max(),
        "published, from embeddings": lambda: published(queries @ gallery.T),
        "ours, from embeddings": lambda: metrics_from_counts(retrieval_ranks(queries, gallery)),
        "float32 product alone": lambda: queries @ gallery.T,
        "ours, from embeddings, random queries": lambda: metrics_from_counts(retrieval_ranks(chance, gallery)),
        "ours, from embeddings, in float64": lambda: metrics_from_counts(
            retrieval_ranks(queries, gallery, arithmetic="float64")
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    processor: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, Any] = {}
    for _ in range(runs):
        for way, function in ways.items():
            start = time.process_time()
            taken, found[way] = timed(function)
            processor[way].append(time.process_time() - start)
            seconds[way].append(taken)
    theirs, ours = found["published, from embeddings"], found["ours, from embeddings"]
    assert all(abs(theirs[name] - getattr(ours, name)) < 0.1 for name in theirs), (theirs, ours)
    assert ours == found["ours, from embeddings, in float64"]
    median = {way: statistics.median(values) for way, values in seconds.items()}
    rows = [
        (
            f"{way}: s, median (minimum); processor time, median (minimum)",
            f"{median[way]:.3f} ({min(seconds[way]):.3f}); "
            f"{statistics.median(processor[way]):.3f} ({min(processor[way]):.3f})",
            "",
        )
        for way in ways
    ]
    for kind, asked in (("given the matrix", "at least 20 x"), ("from embeddings", "")):
        pairs = zip(seconds[f"published, {kind}"], seconds[f"ours, {kind}"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        least = min(seconds[f"published, {kind}"]) / min(seconds[f"ours, {kind}"])
        rows.append((f"speed-up, {kind}: median of pairs (ratio of minima)", f"{ratio:.1f} ({least:.1f})", asked))
    return rows


def small(n: int, runs: int) -> None:
    rows = compare(n, runs)
    for task in ("published", "ours", "ours, from the matrix"):
        sizes = (n // 2, n, 2 * n)
        figures = " / ".join(f"{peak_mb(task, size):.0f}" for size in sizes)
        what = f"{task}: additional peak memory at N = {' / '.join(f'{size:,}' for size in sizes)}, MB"
        rows.append((what, figures, "O(N)" if task.startswith("ours") else ""))
    remarks = (
        f"{runs} interleaved runs of each implementation, two threads, on two cores that ran up to ten other "
        "processes, so minima and processor times are more reliable than medians. From embeddings, both "
        "implementations need the float32 product, which is a lower bound. Embeddings do not count as additional "
        "memory. The sort itself is fast (AVX-512); most of the time of the published implementation, and its "
        "variation, is the allocation of pages for its matrices. The ratio of minima shows the speed-up if this "
        "costs little. In a process that did nothing else, for which the kernel had free pages, 66 pairs took 0.288 "
        "(0.280) s and 0.0155 (0.0136) s: 18.6 x (20.6 x)."
    )
    record("bench_ranks.py", f"Retrieval metrics of {n:,} x {n:,}, {WIDTH} wide", rows, remarks)


def large(n: int) -> None:
    rate = product_rate()
    queries, gallery = embeddings(n)
    before = forget_peak()
    processor = time.process_time()
    taken, counts = timed(lambda: retrieval_ranks(queries, gallery))
    processor = time.process_time() - processor
    extra = resident_mb("VmHWM") - before
    floor = 2 * n * n * WIDTH / rate
    rows = [
        ("total, s", f"{taken:.1f}", ""),
        ("processor time of both threads, s", f"{processor:.1f}", ""),
        (f"lower bound: 2 N^2 D at {rate / 1e9:.0f} GFLOP/s per core, processor time, s", f"{floor:.1f}", ""),
        ("processor time / lower bound", f"{processor / floor:.2f}", ""),
        ("total on two idle cores, at best: half the processor time, s", f"{processor / 2:.1f}", ""),
        (
            "additional peak memory, MB (the matrix would need)",
            f"{extra:.0f} ({4 * n * n / 1e6:,.0f})",
            "no N x N matrix",
        ),
        ("result", str(metrics_from_counts(counts)), ""),
    ]
    remarks = (
        "One run with two threads, on a machine that ran other long jobs; the lower bound is therefore also "
        "measured in processor time, on one thread."
    )
    record("bench_ranks.py", f"Retrieval ranks of {n:,} x {n:,}, {WIDTH} wide", rows, remarks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["small", "large", "all"], default="all")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--num", type=int, help="N of the part")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        one_task(args.task, args.num)
        return
    if args.part != "large":
        small(args.num or 8000, args.runs)
    if args.part != "small":
        large(args.num or 100_000)


if __name__ == "__main__":
    main()
