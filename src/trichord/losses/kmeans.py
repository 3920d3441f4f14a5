"""k-means with cosine assignment, in blocks: no N x K matrix and no normalised copy of the data is ever held.

N rows, D width, K centroids. Two variants, by `normalize`:

True (default): spherical k-means (Dhillon and Modha, 2001). Rows and centroids have unit length, a centroid is the
direction of its rows' sum. The objective, the mean of 1 - cosine to the nearest centroid, never rises.
False: as the published MCN code did. Rows are assigned by cosine, but a centroid is the plain mean of its rows,
so long rows weigh more, and the objective may rise.

Three ways to the same labels, by `path`; None takes the fastest that the machine has and the size is worth:

plain: products and one-hot sums as torch does them; the only one off the CPU.
float32: products by oneDNN, in full float32 (torch's own are slow on some processors); a cluster's rows are summed by a
weighted `embedding_bag`, which reads each row once. The objective comes from these sums.
bfloat16: besides, a product in bfloat16 decides every row whose best centroid leads by more than an error bound, and only
the other rows are looked at in float32. See `_decide` for the bound. With AVX512 and a fifth of the rows undecided a pass
took an eighth less time than by float32, so it pays in long fits; both are far ahead of plain.

Labels of the three can differ only where two float32 scores are equal up to their own rounding; sums differ by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch.nn import functional

Empty = Literal["reseed", "zero"]
Path = Literal["plain", "float32", "bfloat16"]
_TINY = 1e-6  # rows that fit better than this are not worth a centroid of their own
_SHORTEST = 1e-12  # as functional.normalize: shorter rows are not brought to length one
_WORTH = 2**28  # N x D x K from which a fast path gains
_CHUNK_BYTES = 2**22  # of float32 rows that stay in the cache between two uses


@dataclass(frozen=True)
class KMeans:
    """A fit. centroids (K, D) float32; labels (N,) int64, the nearest of these centroids; objective: mean of 1 - cosine
    for these labels; iterations: centroid updates made; history: the objective before each update, then the final."""

    centroids: torch.Tensor
    labels: torch.Tensor
    objective: float
    iterations: int
    history: tuple[float, ...]


@dataclass(frozen=True)
class _Sweep:
    """One pass over the data: labels (N,), the mean of 1 - cosine, sums (K, D) of the rows of each cluster (of unit rows
    if `normalize`), counts (K,)."""

    labels: torch.Tensor
    objective: float
    sums: torch.Tensor
    counts: torch.Tensor


@torch.no_grad()
def assign(data: torch.Tensor, centroids: torch.Tensor, *, block: int = 8192, path: Path | None = None) -> torch.Tensor:
    """The centroid (K, D) with the largest cosine to each row of `data` (N, D): (N,) int64; the first one on ties.

    A zero centroid has cosine 0 to everything. In float32, `block` rows at a time. `path`: see the module.
    """
    path = path or fastest_path(data, len(centroids))
    with torch.autocast(data.device.type, enabled=False):
        directions = functional.normalize(centroids.float(), dim=1)
        if path == "plain":
            parts = [(functional.normalize(rows.float(), dim=1) @ directions.T).max(1)[1] for rows in data.split(block)]
            return torch.cat(parts)
        return _nearest(data, _extents(data, block) if path == "bfloat16" else None, directions)


def fastest_path(data: torch.Tensor, num_clusters: int) -> Path:
    """The path that `assign` and `fit_kmeans` take for this data (N, D) unless they are told one."""
    small = data.shape[0] * data.shape[1] * num_clusters < _WORTH
    if small or data.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return "plain"
    return "bfloat16" if _multiplies_bfloat16() else "float32"


@cache
def _multiplies_bfloat16() -> bool:
    """The processor has instructions for it; emulated it would be slower than float32."""
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _extents(data: torch.Tensor, block: int) -> torch.Tensor:
    """Of each row its length and the length of what bfloat16 loses of it, (N, 2) float32."""
    parts = [torch.empty(0, 2)]
    for piece in data.split(min(block, _chunk(data))):
        rows = piece.float().contiguous()
        lost = rows - rows.bfloat16().float()
        parts.append(torch.stack([torch.linalg.vector_norm(x, dim=1) for x in (rows, lost)], dim=1))
    return torch.cat(parts)


def _chunk(data: torch.Tensor) -> int:
    """Rows that stay in the cache."""
    return max(64, _CHUNK_BYTES // (4 * data.shape[1]))


def _nearest(data: torch.Tensor, extents: torch.Tensor | None, directions: torch.Tensor) -> torch.Tensor:
    """Labels (N,) by float32 products. With `extents` (N, 2), those rows that bfloat16 can decide are left out."""
    chunk = _chunk(data)
    weight = directions.to_mkldnn()

    def look(rows: torch.Tensor) -> torch.Tensor:
        return functional.linear(rows.float().contiguous().to_mkldnn(), weight).to_dense().max(1)[1]

    if extents is None or not len(data):
        return torch.cat([torch.empty(0, dtype=torch.int64), *(look(rows) for rows in data.split(chunk) if len(rows))])
    labels, decided = _decide(data, extents, directions, chunk)
    for places in (~decided).nonzero().squeeze(1).split(chunk):
        if len(places):
            labels[places] = look(data[places])
    return labels


def _decide(
    data: torch.Tensor, extents: torch.Tensor, directions: torch.Tensor, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(labels (N,), decided (N,) bool): float32 scores, summed in any order, give every decided row the same label.

    A row x is compared with d_k = c_k - mean of all c: this takes the same amount from all its scores. With x' and d' for
    the factors rounded to bfloat16, the score found here is off from x . d_k by at most |x - x'| |d_k| + |x'| |d_k - d'_k|
    for the rounded factors (Cauchy-Schwarz), |x| |d_k| g for a float32 sum, g = D 2^-24, and 2^-8 |score| for the rounded
    result; a float32 score of x and c_k is off by |x| g. A row is decided when one centroid's score less all this is above
    every other's plus all this. Not finite and vanishing rows are never decided.
    """
    offsets = directions - directions.mean(0)
    low = offsets.bfloat16()
    lengths, lost = offsets.norm(dim=1), (offsets - low.float()).norm(dim=1)
    rounding = (data.shape[1] + 16) * 2.0**-24
    # x' is at most 1 + 2^-8 times as long as x; 1.01 covers that and the rounding of the bound itself
    radius = 1.01 * torch.stack([lost + (lengths + 1) * rounding, lengths])
    labels = torch.empty(len(data), dtype=torch.int64)
    decided = torch.empty(len(data), dtype=torch.bool)
    for start in range(0, len(data), chunk):
        part = slice(start, start + chunk)
        scores = (data[part].float().bfloat16() @ low.T).float()
        slack = (extents[part] @ radius).add_(scores.abs(), alpha=1.01 * 2.0**-8)
        least, labels[part] = (scores - slack).max(1)
        rivals = (scores.add_(slack) >= least[:, None]).sum(1)
        decided[part] = (rivals == 1) & (extents[part, 0] > _SHORTEST)
    return labels, decided


def _plain_sweep(
    data: torch.Tensor, centroids: torch.Tensor, *, normalize: bool, block: int, accumulate: bool
) -> _Sweep:
    num_clusters = len(centroids)
    sums = torch.zeros_like(centroids, dtype=torch.float32)
    counts = torch.zeros(num_clusters, device=data.device)
    labels = torch.empty(len(data), dtype=torch.int64, device=data.device)
    cosines = torch.empty(len(data), device=data.device)
    directions = functional.normalize(centroids.float(), dim=1)
    for start in range(0, len(data), block):
        rows = data[start : start + block].float()
        units = functional.normalize(rows, dim=1)
        best, label = (units @ directions.T).max(1)
        labels[start : start + block], cosines[start : start + block] = label, best
        if accumulate:  # a product with the one-hot labels: the same on every run, on a GPU too
            members = functional.one_hot(label, num_clusters).to(torch.float32)
            sums += members.T @ (units if normalize else rows)
            counts += members.sum(0)
    return _Sweep(labels, float((1 - cosines).mean()), sums, counts)


def _fast_sweep(
    data: torch.Tensor, centroids: torch.Tensor, extents: torch.Tensor, *, normalize: bool, block: int, path: Path
) -> _Sweep:
    directions = functional.normalize(centroids, dim=1)
    labels = _nearest(data, extents if path == "bfloat16" else None, directions)
    unit_sums, plain_sums = torch.zeros_like(centroids), torch.zeros_like(centroids)
    for start in range(0, len(data), block):
        part = slice(start, start + block)
        rows, order = data[part].float().contiguous(), labels[part].argsort(stable=True)
        sizes = torch.bincount(labels[part], minlength=len(centroids))
        starts = sizes.cumsum(0) - sizes
        weights = 1 / extents[part, 0].clamp(min=_SHORTEST)[order]
        unit_sums += functional.embedding_bag(order, rows, starts, mode="sum", per_sample_weights=weights)
        if not normalize:
            plain_sums += functional.embedding_bag(order, rows, starts, mode="sum")
    cosine = float((unit_sums.double() * directions.double()).sum()) / len(data)
    counts = torch.bincount(labels, minlength=len(centroids)).float()
    return _Sweep(labels, 1 - cosine, unit_sums if normalize else plain_sums, counts)


def _updated(
    data: torch.Tensor, centroids: torch.Tensor, sweep: _Sweep, normalize: bool, empty: Empty, block: int
) -> torch.Tensor:
    """New centroids from the sums; an empty cluster gets a worst-fitting row, or zeros."""
    sums, counts = sweep.sums, sweep.counts
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
        misfit = 1 - _cosines(data, centroids, sweep.labels, block)
        rows = data[_worst_rows(data, misfit, len(hollow), block)].float()
        new[hollow] = centroids[hollow]
        new[hollow[: len(rows)]] = functional.normalize(rows, dim=1) if normalize else rows
    return new


def _cosines(data: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor, block: int) -> torch.Tensor:
    """Of each row with its own centroid, (N,)."""
    directions = functional.normalize(centroids, dim=1)
    parts = zip(data.split(block), labels.split(block), strict=True)
    return torch.cat([(functional.normalize(rows.float(), dim=1) * directions[own]).sum(1) for rows, own in parts])


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
    path: Path | None = None,
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
        block: rows that are held in float32 at a time.
        path: None for the fastest, or one of them; `plain` turns all that is done for speed off. See the module.
    """
    if not (data.ndim == 2 and len(data) > 0):
        raise ValueError(f"data must be (N, D) with N >= 1, not {tuple(data.shape)}")
    if not (num_clusters >= 1 and empty in ("reseed", "zero")):
        raise ValueError(f"num_clusters is {num_clusters} and empty '{empty}'; give 1 or more, and reseed or zero")
    if init_centroids is None:
        picked = torch.randperm(len(data), generator=generator)[:num_clusters]
        if len(picked) < num_clusters:
            again = torch.randint(len(data), (num_clusters - len(picked),), generator=generator)
            picked = torch.cat([picked, again])
        init_centroids = data[picked.to(data.device)]
    if init_centroids.shape != (num_clusters, data.shape[1]):
        raise ValueError("init_centroids must be (K, D)")
    centroids = init_centroids.to(data.device, torch.float32).clone()
    if normalize:
        centroids = functional.normalize(centroids, dim=1)
    path = path or fastest_path(data, num_clusters)
    with torch.autocast(data.device.type, enabled=False):
        extents = None if path == "plain" else _extents(data, block)
        return _fit(data, extents, centroids, max_iterations, tolerance, normalize, empty, block, path)


def _fit(
    data: torch.Tensor,
    extents: torch.Tensor | None,
    centroids: torch.Tensor,
    max_iterations: int,
    tolerance: float,
    normalize: bool,
    empty: Empty,
    block: int,
    path: Path,
) -> KMeans:
    def sweep(accumulate: bool) -> _Sweep:
        if extents is None:
            return _plain_sweep(data, centroids, normalize=normalize, block=block, accumulate=accumulate)
        return _fast_sweep(data, centroids, extents, normalize=normalize, block=block, path=path)

    history: list[float] = []
    iterations = 0
    labels = None
    for _ in range(max_iterations):
        found = sweep(True)
        history.append(found.objective)
        iterations += 1
        same = labels is not None and torch.equal(labels, found.labels) and bool(found.counts.all())
        labels = found.labels
        if same and extents is not None:  # the same rows have the same means: an update would change nothing
            history.append(found.objective)
            return KMeans(centroids, labels, history[-1], iterations, tuple(history))
        new = _updated(data, centroids, found, normalize, empty, block)
        shift = float((new - centroids).square().sum())
        centroids = new
        if shift <= tolerance:
            break
    found = sweep(False)
    history.append(found.objective)
    return KMeans(centroids, found.labels, history[-1], iterations, tuple(history))
