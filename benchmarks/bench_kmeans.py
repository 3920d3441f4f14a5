"""Compare a k-means refit of 45,056 x 6,144 rows with 256 centroids with fast-pytorch-kmeans.

OMP_NUM_THREADS=1 python benchmarks/bench_kmeans.py          # needs 5 GB

Both start from the same centroids and make the same number of iterations. The baseline is the package `fast_pytorch_kmeans` if
it is installed, and otherwise an implementation of what it computes: each iteration normalises rows and centroids to unit
length, computes all cosines, and multiplies the one-hot labels with the rows. The implementations are measured in turn, so that
other load affects both; ratios compare neighbouring measurements.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from results import record
from torch.nn import functional

from trichord.losses.kmeans import Path, assign, fastest_path, fit_kmeans

NUM_ROWS, DIM, NUM_CLUSTERS, ITERATIONS, RUNS = 45_056, 6_144, 256, 5, 3
Fit = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(rows (N, D), first centroids (K, D)) -> centroids (K, D) after ITERATIONS updates"""


def rows_like_embeddings(generator: torch.Generator) -> torch.Tensor:
    """Return (N, D) rows along 256 directions of decreasing strength around a common mean, with lengths from 0.5 to 2."""
    strength = torch.arange(1, 257) ** -0.5
    basis = torch.linalg.qr(torch.randn(DIM, 256, generator=generator))[0].T.contiguous()
    mean = functional.normalize(torch.randn(DIM, generator=generator), dim=0)
    rows = functional.normalize(torch.randn(NUM_ROWS, 256, generator=generator) * strength, dim=1) @ basis
    return rows.add_(mean).mul_(0.5 + 1.5 * torch.rand(NUM_ROWS, 1, generator=generator))


def rows_without_structure(generator: torch.Generator) -> torch.Tensor:
    """Return (N, D) normally distributed rows."""
    return torch.randn(NUM_ROWS, DIM, generator=generator)


def restated(data: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Compute the published arithmetic in plain torch."""
    centroids, numbers = start, torch.arange(NUM_CLUSTERS)
    for _ in range(ITERATIONS):
        cosines = functional.normalize(data, dim=1) @ functional.normalize(centroids, dim=1).T
        mask = (cosines.max(1).indices == numbers[:, None]).to(data.dtype)
        centroids = torch.nan_to_num((mask @ data) / mask.sum(1, keepdim=True))
    return centroids


def baseline() -> tuple[str, Fit]:
    """Return the name of the baseline, and its function."""
    try:
        from fast_pytorch_kmeans import KMeans
    except ImportError:
        return "a restatement of the published arithmetic", restated

    def packaged(data: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        fitted = KMeans(NUM_CLUSTERS, max_iter=ITERATIONS, tol=0.0, mode="cosine")
        fitted.fit_predict(data, centroids=start.clone())
        return fitted.centroids

    return "fast-pytorch-kmeans", packaged


def ours(path: Path | None, *, normalize: bool = False) -> Fit:
    """Return our function. It uses the published variant, as the baseline does, unless `normalize` is set."""

    def fit(data: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        options = {"max_iterations": ITERATIONS, "tolerance": 0.0, "empty": "zero"}
        return fit_kmeans(data, NUM_CLUSTERS, init_centroids=start, normalize=normalize, path=path, **options).centroids

    return fit


def objective(data: torch.Tensor, centroids: torch.Tensor) -> float:
    """Return the mean of 1 - cosine to the nearest centroid, summed in float64."""
    nearest = functional.normalize(centroids, dim=1)[assign(data, centroids, path="plain")]
    pairs = zip(data.split(4096), nearest.split(4096), strict=True)
    cosines = [functional.cosine_similarity(a.double(), b.double(), dim=1) for a, b in pairs]
    return 1 - float(torch.cat(cosines).mean())


def seconds_of(job: Callable[[], object]) -> float:
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def floor_s(data: torch.Tensor) -> tuple[float, float, float, float]:
    """Return lower bounds in seconds, the best of several tries.

    Returns:
        The products of one iteration in float32 and in bfloat16, in float32 by torch's own implementation, and two reads of the
        data.
    """
    rows, centroids = data[:256].contiguous(), data[:NUM_CLUSTERS].contiguous()
    laid, low = centroids.to_mkldnn(), centroids.bfloat16()
    blocks = NUM_ROWS / len(rows)
    jobs: tuple[Callable[[], object], ...] = (
        lambda: functional.linear(rows.to_mkldnn(), laid),
        lambda: low @ low.T,
        lambda: rows @ centroids.T,
    )
    one, half, own = (blocks * min(seconds_of(job) for _ in range(50)) for job in jobs)
    return one, half, own, 2 * min(seconds_of(data.sum) for _ in range(5))


@dataclass(frozen=True)
class Figures:
    """CPU seconds and wall-clock seconds of a fit, and the ratios of the first fit of the same round to it (medians)."""

    cpu_s: float
    wall_s: float
    cpu_ratio: float
    wall_ratio: float
    objective: float


def compare(data: torch.Tensor, fits: dict[str, Fit], runs: int, generator: torch.Generator) -> dict[str, Figures]:
    """Return the figures of each fit by name. Every round runs all fits in turn."""
    start = data[torch.randperm(NUM_ROWS, generator=generator)[:NUM_CLUSTERS]]
    cpu: dict[str, list[float]] = {name: [] for name in fits}
    wall: dict[str, list[float]] = {name: [] for name in fits}
    centroids: dict[str, torch.Tensor] = {}
    for _ in range(runs):
        for name, fit in fits.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            centroids[name] = fit(data, start)
            cpu[name].append(time.process_time() - begin_cpu)
            wall[name].append(time.perf_counter() - begin)
    first = next(iter(fits))

    def ratio(seconds: dict[str, list[float]], name: str) -> float:
        return median(a / b for a, b in zip(seconds[first], seconds[name], strict=True))

    return {
        name: Figures(
            median(cpu[name]), median(wall[name]), ratio(cpu, name), ratio(wall, name), objective(data, centroids[name])
        )
        for name in fits
    }


@torch.no_grad()
def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    generator = torch.Generator().manual_seed(0)
    name, fit = baseline()
    data = rows_like_embeddings(generator)
    best = fastest_path(data, NUM_CLUSTERS)
    fits = {name: fit, "ours": ours(None), "float32": ours("float32"), "spherical": ours(None, normalize=True)}
    found = compare(data, fits, RUNS, generator)
    one, half, own, read = floor_s(data)
    theirs, mine = found[name], found["ours"]
    rows = [
        (f"{name}: CPU s, wall s", f"{theirs.cpu_s:.1f}, {theirs.wall_s:.1f}", ""),
        (f"ours ({best}): CPU s, wall s", f"{mine.cpu_s:.2f}, {mine.wall_s:.2f}", ""),
        ("ratio: CPU, wall", f"{mine.cpu_ratio:.1f}, {mine.wall_ratio:.1f}", "at least 3"),
        ("objective, baseline / ours", f"{theirs.objective:.6f} / {mine.objective:.6f}", ""),
        ("difference of objectives, %", f"{100 * abs(mine.objective / theirs.objective - 1):.4f}", "at most 0.1"),
    ]
    for label, other in (("path float32", found["float32"]), ("spherical variant", found["spherical"])):
        rows.append((f"ratio, {label}: CPU, wall", f"{other.cpu_ratio:.1f}, {other.wall_ratio:.1f}", ""))
    rows += [
        ("one pass of ours, CPU ms", f"{1000 * mine.cpu_s / (ITERATIONS + 1):.0f}", ""),
        ("its lower bound, ms: product in bfloat16 + two reads", f"{1000 * half:.0f} + {1000 * read:.0f}", ""),
        ("product in float32, ms: oneDNN; torch's own", f"{1000 * one:.0f}; {1000 * own:.0f}", ""),
    ]
    del data
    data = rows_without_structure(generator)
    found = compare(data, {name: fit, "ours": ours(None)}, 1, generator)
    theirs, mine = found[name], found["ours"]
    apart = 100 * abs(mine.objective / theirs.objective - 1)
    figures = f"{mine.cpu_ratio:.1f}, {mine.wall_ratio:.1f}; {apart:.4f}"
    rows.append(("rows without structure, ratio: CPU, wall; difference of objectives, %", figures, ""))
    remark = (
        f"{NUM_ROWS:,} x {DIM:,} float32, K = {NUM_CLUSTERS}, {ITERATIONS} iterations, {torch.get_num_threads()} thread(s), "
        f"medians of {RUNS} rounds in turn; other programs ran on the machine. Ours makes one more pass, for the labels of the "
        "last centroids, and uses the published variant (the same arithmetic as the baseline) except in the spherical variant. "
        "The time above the lower bound is spent on rows that bfloat16 cannot decide, which are computed again in float32, on "
        "the conversion of the rows, on the error bounds, and on sums of unit rows in addition to plain rows."
    )
    record("bench_kmeans.py", f"k-means, {NUM_ROWS:,} x {DIM:,}, K = {NUM_CLUSTERS}", rows, remark)


if __name__ == "__main__":
    main()
