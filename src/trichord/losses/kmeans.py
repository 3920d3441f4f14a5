"""k-means with cosine assignment, in blocks: no N x K matrix and no normalised copy of the data is ever held.

N rows, D width, K centroids. Two variants, by `normalize`:

True (default): spherical k-means (Dhillon and Modha, 2001). Rows and centroids have unit length, a centroid is the
direction of its rows' sum. The objective, the mean of 1 - cosine to the nearest centroid, never rises.
False: as the published MCN code did. Rows are assigned by cosine, but a centroid is the plain mean of its rows,
so long rows weigh more, and the objective may rise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

Empty = Literal["reseed", "zero"]
_TINY = 1e-6  # rows that fit better than this are not worth a centroid of their own


@dataclass(frozen=True)
class KMeans:
    """A fit. centroids (K, D) float32; labels (N,) int64, the nearest of these centroids; objective: mean of 1 - cosine
    for these labels; iterations: centroid updates made; history: the objective before each update, then the final."""

    centroids: torch.Tensor
    labels: torch.Tensor
    objective: float
    iterations: int
    history: tuple[float, ...]


@torch.no_grad()
def assign(data: torch.Tensor, centroids: torch.Tensor, *, block: int = 8192) -> torch.Tensor:
    """The centroid (K, D) with the largest cosine to each row of `data` (N, D): (N,) int64; the first one on ties.

    A zero centroid has cosine 0 to everything. In float32, `block` rows at a time.
    """
    return _sweep(data, centroids, normalize=True, block=block, accumulate=False)[0]


def _sweep(
    data: torch.Tensor, centroids: torch.Tensor, *, normalize: bool, block: int, accumulate: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One pass over the data: (labels (N,), cosines (N,), sums (K, D) of the rows of each cluster, counts (K,)).

    Sums are of unit rows if `normalize`; a matrix product with the one-hot labels, so the same on every run.
    """
    num_clusters = len(centroids)
    sums = torch.zeros_like(centroids, dtype=torch.float32)
    counts = torch.zeros(num_clusters, device=data.device)
    labels = torch.empty(len(data), dtype=torch.int64, device=data.device)
    cosines = torch.empty(len(data), device=data.device)
    with torch.autocast(data.device.type, enabled=False):
        directions = functional.normalize(centroids.float(), dim=1)
        for start in range(0, len(data), block):
            rows = data[start : start + block].float()
            units = functional.normalize(rows, dim=1)
            best, label = (units @ directions.T).max(1)
            labels[start : start + block], cosines[start : start + block] = label, best
            if accumulate:
                members = functional.one_hot(label, num_clusters).to(torch.float32)
                sums += members.T @ (units if normalize else rows)
                counts += members.sum(0)
    return labels, cosines, sums, counts


def _updated(
    data: torch.Tensor,
    centroids: torch.Tensor,
    cosines: torch.Tensor,
    sums: torch.Tensor,
    counts: torch.Tensor,
    normalize: bool,
    empty: Empty,
    block: int,
) -> torch.Tensor:
    """New centroids from the sums; an empty cluster gets a worst-fitting row, or zeros."""
    if normalize:
        lengths = sums.norm(dim=1, keepdim=True)
        # Rows that cancel have no direction: every unit vector serves them equally, so the old centroid stays.
        new = torch.where(lengths > _TINY, sums / lengths.clamp(min=_TINY), centroids)
    else:
        new = sums / counts.clamp(min=1)[:, None]
    hollow = (counts == 0).nonzero().squeeze(1)
    if empty == "zero":
        new[hollow] = 0.0
    elif hollow.numel():
        rows = data[_worst_rows(data, 1 - cosines, len(hollow), block)].float()
        new[hollow] = centroids[hollow]
        new[hollow[: len(rows)]] = functional.normalize(rows, dim=1) if normalize else rows
    return new


def _worst_rows(data: torch.Tensor, misfit: torch.Tensor, most: int, block: int) -> list[int]:
    """Up to `most` rows, each the one that fits worst (1 - cosine) given those before it; none that fit already."""
    worst: list[int] = []
    while len(worst) < most:
        value, place = misfit.max(0)
        if not float(value) > _TINY:
            break
        worst.append(int(place))
        seed = functional.normalize(data[worst[-1]].float(), dim=0)
        if not bool(seed.any()):  # a zero row fits nothing
            misfit = misfit.index_fill(0, place, 0.0)
            worst.pop()
            continue
        parts = [functional.normalize(part.float(), dim=1) @ seed for part in data.split(block)]
        misfit = torch.minimum(misfit, 1 - torch.cat(parts))
    return worst


@torch.no_grad()
def fit_kmeans(
    data: torch.Tensor,
    num_clusters: int,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
    init_centroids: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    normalize: bool = True,
    empty: Empty = "reseed",
    block: int = 8192,
) -> KMeans:
    """Fit K centroids to the rows of `data`.

    Args:
        data: (N, D), any floating type, N >= 1. Fewer (distinct) rows than clusters is fine: some clusters stay empty.
        num_clusters: K.
        max_iterations: at most so many centroid updates.
        tolerance: stop when the squared shifts of all centroids sum to no more.
        init_centroids: (K, D) to start from; None: rows drawn at random, without replacement if there are enough.
        generator: CPU generator of that draw; None: torch's own.
        normalize: spherical k-means; False: the published variant (see the module).
        empty: what an empty cluster becomes. `reseed`: the row that fits its centroid worst; `zero`: the zero vector,
            as published.
        block: rows per pass.
    """
    assert data.ndim == 2 and len(data) > 0, f"data must be (N, D) with N >= 1, not {tuple(data.shape)}"
    assert num_clusters >= 1 and empty in ("reseed", "zero")
    if init_centroids is None:
        picked = torch.randperm(len(data), generator=generator)[:num_clusters]
        if len(picked) < num_clusters:
            again = torch.randint(len(data), (num_clusters - len(picked),), generator=generator)
            picked = torch.cat([picked, again])
        init_centroids = data[picked.to(data.device)]
    assert init_centroids.shape == (num_clusters, data.shape[1]), "init_centroids must be (K, D)"
    centroids = init_centroids.to(data.device, torch.float32).clone()
    if normalize:
        centroids = functional.normalize(centroids, dim=1)
    history: list[float] = []
    iterations = 0
    for _ in range(max_iterations):
        _, cosines, sums, counts = _sweep(data, centroids, normalize=normalize, block=block, accumulate=True)
        history.append(float((1 - cosines).mean()))
        new = _updated(data, centroids, cosines, sums, counts, normalize, empty, block)
        iterations += 1
        shift = float((new - centroids).square().sum())
        centroids = new
        if shift <= tolerance:
            break
    labels, cosines, _, _ = _sweep(data, centroids, normalize=normalize, block=block, accumulate=False)
    history.append(float((1 - cosines).mean()))
    return KMeans(centroids, labels, history[-1], iterations, tuple(history))
