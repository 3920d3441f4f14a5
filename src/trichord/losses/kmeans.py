"""k-means with cosine assignment, computed in blocks.

Neither an N x K matrix nor a normalized copy of the data is ever stored.

Shape letters: N rows, D width, K centroids.

`normalize` selects one of two variants:

- True (default): spherical k-means (Dhillon and Modha, 2001). Rows and centroids have unit length, and a centroid is the
  direction of the sum of its rows. The objective, the mean of 1 - cosine to the nearest centroid, never increases.
- False: the variant of the published MCN code. Rows are assigned by cosine, but a centroid is the plain mean of its rows, so
  longer rows weigh more, and the objective can increase.

`path` selects one of three implementations of the assignment. None selects the fastest one for the machine and the data size:

- plain: matrix products and one-hot sums in PyTorch. This is the only implementation for devices other than the CPU.
- float32: products by oneDNN in full float32, because PyTorch's own products are slow on some processors. The rows of a cluster
  are summed by a weighted `embedding_bag`, which reads each row once. The objective is computed from these sums.
- bfloat16: like float32, but a product in bfloat16 first decides every row whose best centroid leads by more than an error bound
  (see `_decide`), and only the other rows are compared in float32. With AVX512 and a fifth of the rows undecided, a pass took
  12 % less time than with float32, so this implementation pays off in long fits. Both are much faster than plain.

The labels of the three implementations can differ only where two float32 scores are equal up to rounding. Sums differ by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch.nn import functional

Empty = Literal["reseed", "zero"]
Path = Literal["plain", "float32", "bfloat16"]
_TINY = 1e-6  # a row whose misfit is at most this does not become a new centroid
_SHORTEST = 1e-12  # shorter rows are not scaled to unit length, as in functional.normalize
_WORTH = 2**28  # N x D x K above which a fast path is faster than the plain one
_CHUNK_BYTES = 2**22  # size of the float32 rows that stay in the processor cache between two uses


@dataclass(frozen=True)
class KMeans:
    """The result of `fit_kmeans`.

    Attributes:
        centroids: Centroids of shape (K, D), float32.
        labels: Index of the nearest centroid of each row, of shape (N,), int64.
        objective: Mean of 1 - cosine between the rows and their nearest centroids.
        iterations: Number of centroid updates.
        history: Objective before each update, followed by the final objective.

    Example:
        >>> import torch
        >>> from trichord.losses import fit_kmeans
        >>> fit = fit_kmeans(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), 1)
        >>> fit.centroids, fit.labels, fit.objective
        (tensor([[1., 0.]]), tensor([0, 0]), 0.0)
    """

    centroids: torch.Tensor
    labels: torch.Tensor
    objective: float
    iterations: int
    history: tuple[float, ...]


@dataclass(frozen=True)
class _Sweep:
    """The result of one pass over the data.

    Attributes:
        labels: Index of the nearest centroid of each row, of shape (N,).
        objective: Mean of 1 - cosine.
        sums: Sum of the rows of each cluster, of shape (K, D). With `normalize`, the rows are scaled to unit length first.
        counts: Number of rows of each cluster, of shape (K,).
    """

    labels: torch.Tensor
    objective: float
    sums: torch.Tensor
    counts: torch.Tensor


@torch.no_grad()
def assign(data: torch.Tensor, centroids: torch.Tensor, *, block: int = 8192, path: Path | None = None) -> torch.Tensor:
    """Assign each row to the centroid that has the largest cosine with it.

    Scores are computed in float32. A zero centroid has a cosine of 0 with every row.

    Args:
        data: Rows of shape (N, D), of any floating-point type.
        centroids: Centroids of shape (K, D).
        block: Number of rows that are processed at a time.
        path: Implementation; see the module. None selects the fastest one.

    Returns:
        Indices of centroids of shape (N,), int64. The lowest index wins a tie.

    Example:
        >>> import torch
        >>> from trichord.losses import assign
        >>> assign(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.eye(2))
        tensor([0, 1])
    """
    path = path or fastest_path(data, len(centroids))
    with torch.autocast(data.device.type, enabled=False):
        directions = functional.normalize(centroids.float(), dim=1)
        if path == "plain":
            parts = [(functional.normalize(rows.float(), dim=1) @ directions.T).max(1)[1] for rows in data.split(block)]
            return torch.cat(parts)
        return _nearest(data, _extents(data, block) if path == "bfloat16" else None, directions)


def fastest_path(data: torch.Tensor, num_clusters: int) -> Path:
    """Return the implementation that `assign` and `fit_kmeans` use by default.

    Args:
        data: Rows of shape (N, D).
        num_clusters: Number of clusters, K.

    Returns:
        "plain", "float32" or "bfloat16"; see the module.

    Example:
        >>> import torch
        >>> from trichord.losses.kmeans import fastest_path
        >>> fastest_path(torch.zeros(10, 4), num_clusters=2)
        'plain'
    """
    small = data.shape[0] * data.shape[1] * num_clusters < _WORTH
    if small or data.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return "plain"
    return "bfloat16" if _multiplies_bfloat16() else "float32"


@cache
def _multiplies_bfloat16() -> bool:
    """Return whether the processor has bfloat16 instructions. Emulated, bfloat16 would be slower than float32."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _extents(data: torch.Tensor, block: int) -> torch.Tensor:
    """Return the length of each row and the length of its bfloat16 rounding error, of shape (N, 2), float32."""
    parts = [torch.empty(0, 2)]
    for piece in data.split(min(block, _chunk(data))):
        rows = piece.float().contiguous()
        lost = rows - rows.bfloat16().float()
        parts.append(torch.stack([torch.linalg.vector_norm(x, dim=1) for x in (rows, lost)], dim=1))
    return torch.cat(parts)


def _chunk(data: torch.Tensor) -> int:
    """Return the number of rows that fit into the processor cache."""
    return max(64, _CHUNK_BYTES // (4 * data.shape[1]))


def _nearest(data: torch.Tensor, extents: torch.Tensor | None, directions: torch.Tensor) -> torch.Tensor:
    """Return the labels (N,) by float32 products. With `extents` (N, 2), bfloat16 products decide the rows that they can."""
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
    """Label the rows for which bfloat16 scores are accurate enough.

    Float32 scores, summed in any order, give every decided row the same label.

    A row x is compared with d_k = c_k - mean of all c, which lowers all of its scores by the same amount. Let x' and d' be the
    factors rounded to bfloat16. The error of the computed score relative to x . d_k is at most |x - x'| |d_k| + |x'| |d_k - d'_k|
    for the rounded factors (Cauchy-Schwarz), plus |x| |d_k| g for the float32 sum, g = D 2^-24, plus 2^-8 |score| for the rounded
    result. The error of a float32 score of x and c_k is at most |x| g. A row is decided if the score of one centroid minus its
    error bound is above the score plus error bound of every other centroid. Rows that are zero or not finite are never decided.

    Returns:
        The labels (N,) and a mask of the decided rows (N,), bool.
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
        if accumulate:  # a product with the one-hot labels gives the same sums in every run, also on a GPU
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
    """Return new centroids from the sums. An empty cluster becomes one of the rows that fit worst, or zero."""
    sums, counts = sweep.sums, sweep.counts
    if normalize:
        lengths = sums.norm(dim=1, keepdim=True)
        # Rows that sum to zero have no direction, and every unit vector fits them equally, so the old centroid is kept.
        new = torch.where(lengths > _TINY, sums / lengths.clamp(min=_TINY), centroids)
    else:
        new = sums / counts.clamp(min=1)[:, None]
    empty_clusters = (counts == 0).nonzero().squeeze(1)
    if empty == "zero":
        new[empty_clusters] = 0.0
    elif empty_clusters.numel():
        misfit = 1 - _cosines(data, centroids, sweep.labels, block)
        rows = data[_worst_rows(data, misfit, len(empty_clusters), block)].float()
        new[empty_clusters] = centroids[empty_clusters]
        new[empty_clusters[: len(rows)]] = functional.normalize(rows, dim=1) if normalize else rows
    return new


def _cosines(data: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor, block: int) -> torch.Tensor:
    """Return the cosine of each row with its own centroid, of shape (N,)."""
    directions = functional.normalize(centroids, dim=1)
    parts = zip(data.split(block), labels.split(block), strict=True)
    return torch.cat([(functional.normalize(rows.float(), dim=1) * directions[own]).sum(1) for rows, own in parts])


def _worst_rows(data: torch.Tensor, misfit: torch.Tensor, most: int, block: int) -> list[int]:
    """Return up to `most` rows, each the worst fitting row (largest 1 - cosine) after the previous ones became centroids.

    Rows that already fit a centroid are not returned.
    """
    worst: list[int] = []
    while len(worst) < most:
        value, place = misfit.max(0)
        if not float(value) > _TINY:
            break
        worst.append(int(place))
        seed = functional.normalize(data[worst[-1]].float(), dim=0)
        if not bool(seed.any()):  # a zero row cannot become a centroid
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
        data: Rows of shape (N, D), of any floating-point type, N >= 1. If there are fewer distinct rows than clusters, some
            clusters stay empty.
        num_clusters: Number of clusters, K.
        max_iterations: Maximum number of centroid updates.
        tolerance: Stop when the sum of the squared shifts of all centroids is at most this.
        init_centroids: Initial centroids of shape (K, D). None draws rows at random, without replacement if there are enough.
        generator: CPU generator for this draw. None uses the default generator of PyTorch.
        normalize: True for spherical k-means, False for the published variant; see the module.
        empty: Treatment of an empty cluster. "reseed" replaces its centroid by the row that fits its own centroid worst, "zero"
            by the zero vector, as in the published code.
        block: Number of rows that are held in float32 at a time.
        path: Implementation; see the module. None selects the fastest one, and "plain" disables all optimizations.

    Returns:
        The fitted centroids, the labels of the rows, and the objective.

    Raises:
        ValueError: If an argument has a wrong shape or value.

    Example:
        >>> import torch
        >>> from trichord.losses import fit_kmeans
        >>> data = torch.tensor([[5.0, 0.1], [0.1, 5.0], [4.0, 0.1], [0.1, 4.0]])
        >>> fit = fit_kmeans(data, 2, init_centroids=torch.eye(2))
        >>> fit.labels
        tensor([0, 1, 0, 1])
    """
    if not (data.ndim == 2 and len(data) > 0):
        raise ValueError(f"data must have the shape (N, D) with N >= 1, but its shape is {tuple(data.shape)}")
    if not (num_clusters >= 1 and empty in ("reseed", "zero")):
        raise ValueError(
            f"num_clusters is {num_clusters} and empty is '{empty}'; num_clusters must be at least 1, and empty must be 'reseed' "
            "or 'zero'"
        )
    if init_centroids is None:
        indices = torch.randperm(len(data), generator=generator)[:num_clusters]
        if len(indices) < num_clusters:
            repeated = torch.randint(len(data), (num_clusters - len(indices),), generator=generator)
            indices = torch.cat([indices, repeated])
        init_centroids = data[indices.to(data.device)]
    if init_centroids.shape != (num_clusters, data.shape[1]):
        expected = (num_clusters, data.shape[1])
        raise ValueError(
            f"init_centroids must have the shape {expected}, but its shape is {tuple(init_centroids.shape)}"
        )
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
        result = sweep(True)
        history.append(result.objective)
        iterations += 1
        same = labels is not None and torch.equal(labels, result.labels) and bool(result.counts.all())
        labels = result.labels
        if same and extents is not None:  # the same rows have the same means, so an update would change nothing
            history.append(result.objective)
            return KMeans(centroids, labels, history[-1], iterations, tuple(history))
        new = _updated(data, centroids, result, normalize, empty, block)
        shift = float((new - centroids).square().sum())
        centroids = new
        if shift <= tolerance:
            break
    result = sweep(False)
    history.append(result.objective)
    return KMeans(centroids, result.labels, history[-1], iterations, tuple(history))
