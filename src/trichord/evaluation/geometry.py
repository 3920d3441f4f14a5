"""Geometry of a joint space: modality gap, clusters, principal plane and similarity matrices.

The result is small enough to be saved with every run.

n clips in the sample, M modalities, P = n M points, D joint width, K clusters, m clips in the matrices. All measures are computed
from unit vectors; zero vectors stay zero. The modality gap is that of Liang et al., "Mind the Gap", NeurIPS 2022.

Clips that lack a modality or have an embedding that is not finite are excluded, so that all modalities are compared on the same
clips. K-means and the principal plane use all modalities together. Everything is computed by one thread, so that the same
embeddings give bit-equal results with any number of cores. This costs a few seconds per evaluation at most.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError
from trichord.modality import Pair, letter_of, pairs_of

if TYPE_CHECKING:
    from torch import Tensor

COLLAPSED = 1e-10  # mean squared distance from the mean below which float32 unit vectors differ only by rounding
KMEANS_STARTS = (
    1  # greedy k-means++; a second start takes 0.7 s for 3,000 x 6,144 and improved the result by at most 0.002 %
)
KMEANS_STEPS = 50
PLANE_WIDTH = 16  # number of vectors in the subspace iteration, of which two are kept
PLANE_STEPS = 30
LABEL_PERMUTATIONS = 20


@dataclass(frozen=True, eq=False)
class Geometry:
    """Result of `measure_geometry`. Pairs are written with their letters, video before audio before text: "VT".

    Attributes:
        clip: (n,) int64, indices of the clips of the benchmark in the sample, in increasing order.
        coordinates: By modality (n, 2) float32: the first two principal components of all P unit vectors together. The sign of
            each axis is chosen so that the point farthest out on it is positive.
        explained: (2,) share of the variance on each axis; zeros if all points are equal.
        cluster: By modality (n,) int16: cluster of each embedding; 0 is the largest.
        num_clusters: Number of clusters that are not empty.
        gap: By pair, distance between the mean unit vectors, from 0 to 2.
        cosine_true: By pair, mean cosine of the two embeddings of a clip.
        cosine_other: By pair, mean cosine of embeddings of different clips.
        agreement: By pair, share of clips whose two embeddings lie in the same cluster.
        agreement_chance: By pair, expected share if the clips of both modalities were paired at random.
        modality_purity: Mean share of the most frequent modality of a cluster, weighted by size. It is 1 / M if the modalities are
            well mixed, and 1 if the clusters separate them.
        label_purity: Mean share of the most frequent label of a cluster, weighted by size. None without labels.
        label_purity_chance: Mean label purity over permutations of the labels of the clips. None without labels.
        label_nmi: Normalized mutual information of clusters and labels (arithmetic mean of the entropies). None without labels.
        num_labels: Number of different labels in the sample; 0 without labels.
        similarity: By pair (m, m) float16: cosines of the first modality (rows) with the second (columns).
        matrix_clip: (m,) int64, indices of the clips of the benchmark in the matrices.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> video = rng.standard_normal((40, 8))
        >>> embeddings = {"video": video, "text": video + 0.1 * rng.standard_normal((40, 8))}
        >>> geometry = measure_geometry(embeddings, {"video": np.ones(40), "text": np.ones(40)}, num_clusters=2)
        >>> round(geometry.cosine_true["VT"], 2), round(geometry.agreement["VT"], 2)
        (0.99, 1.0)
        >>> geometry.coordinates["video"].shape, geometry.similarity["VT"].shape
        ((40, 2), (40, 40))
    """

    clip: np.ndarray
    coordinates: dict[str, np.ndarray]
    explained: np.ndarray
    cluster: dict[str, np.ndarray]
    num_clusters: int
    gap: dict[str, float]
    cosine_true: dict[str, float]
    cosine_other: dict[str, float]
    agreement: dict[str, float]
    agreement_chance: dict[str, float]
    modality_purity: float
    label_purity: float | None
    label_purity_chance: float | None
    label_nmi: float | None
    num_labels: int
    similarity: dict[str, np.ndarray]
    matrix_clip: np.ndarray

    def to_arrays(self, head: str) -> dict[str, np.ndarray]:
        """Return arrays by their names in an .npz file: `HEAD/clip`, `HEAD/coordinates/video`, `HEAD/gap/VT`, ...

        Measures of labels are absent if there are no labels.

        Example:
            >>> embeddings = {"video": np.eye(8), "text": np.eye(8)}
            >>> geometry = measure_geometry(embeddings, {"video": np.ones(8), "text": np.ones(8)})
            >>> list(geometry.to_arrays("msrvtt"))[:4]
            ['msrvtt/clip', 'msrvtt/coordinates/video', 'msrvtt/coordinates/text', 'msrvtt/explained']
        """
        arrays: dict[str, np.ndarray] = {}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, dict):
                arrays.update({f"{head}/{name}/{key}": np.asarray(part) for key, part in value.items()})
            elif value is not None:
                arrays[f"{head}/{name}"] = np.asarray(value)
        for name in ("clip", "matrix_clip"):
            arrays[f"{head}/{name}"] = arrays[f"{head}/{name}"].astype(np.int32)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], head: str) -> Geometry | None:
        """Return the geometry that `to_arrays` wrote, or None if there is none under `head`.

        Args:
            arrays: A mapping of arrays, or an open .npz file.
            head: Beginning of the names.

        Raises:
            TrichordError: An array is missing.

        Example:
            >>> embeddings = {"video": np.eye(8), "text": np.eye(8)}
            >>> geometry = measure_geometry(embeddings, {"video": np.ones(8), "text": np.ones(8)})
            >>> np.savez("geometry.npz", **geometry.to_arrays("msrvtt"))
            >>> Geometry.from_arrays(np.load("geometry.npz"), "msrvtt").gap == geometry.gap
            True
            >>> Geometry.from_arrays({}, "msrvtt") is None
            True
        """
        if f"{head}/clip" not in arrays:
            return None

        def one(name: str) -> np.ndarray:
            if f"{head}/{name}" not in arrays:
                raise TrichordError(f"{head}: the array '{name}' of the geometry is missing; evaluate the model again")
            return arrays[f"{head}/{name}"]

        def each(name: str) -> dict[str, np.ndarray]:
            start = f"{head}/{name}/"
            return {key.removeprefix(start): arrays[key] for key in arrays if key.startswith(start)}

        def numbers(name: str) -> dict[str, float]:
            return {key: float(value) for key, value in each(name).items()}

        def number_or_none(name: str) -> float | None:
            return float(one(name)) if f"{head}/{name}" in arrays else None

        return cls(
            clip=one("clip").astype(np.int64),
            coordinates=each("coordinates"),
            explained=one("explained"),
            cluster=each("cluster"),
            num_clusters=int(one("num_clusters")),
            gap=numbers("gap"),
            cosine_true=numbers("cosine_true"),
            cosine_other=numbers("cosine_other"),
            agreement=numbers("agreement"),
            agreement_chance=numbers("agreement_chance"),
            modality_purity=float(one("modality_purity")),
            label_purity=number_or_none("label_purity"),
            label_purity_chance=number_or_none("label_purity_chance"),
            label_nmi=number_or_none("label_nmi"),
            num_labels=int(one("num_labels")),
            similarity=each("similarity"),
            matrix_clip=one("matrix_clip").astype(np.int64),
        )


def measure_geometry(
    embeddings: Mapping[str, Tensor | np.ndarray],
    valid: Mapping[str, Tensor | np.ndarray],
    *,
    labels: Sequence[Any] | np.ndarray | None = None,
    num_clusters: int = 32,
    max_clips: int = 1000,
    matrix_clips: int = 48,
    seed: int = 0,
) -> Geometry | None:
    """Measure the joint space on the clips that have all modalities of `embeddings`.

    Args:
        embeddings: By modality (N, D), of any length; tensors or arrays.
        valid: By modality (N,) bool, whether the clip has it. A row that is not finite counts as missing.
        labels: (N,) class of each clip, numbers or strings.
        num_clusters: Largest number K of clusters. There are at most a quarter as many as points, but at least 2, and not more
            than different points; there is one if all points are equal up to rounding.
        max_clips: Largest number of clips in the sample, evenly spaced over those that have all modalities.
        matrix_clips: Largest number of clips in the similarity matrices, evenly spaced over the sample.
        seed: Random seed of k-means, of the start of the principal plane, and of the permutations of the labels.

    Returns:
        The geometry, or None if fewer than 2 clips have all modalities.

    Raises:
        TrichordError: The shapes do not fit together, or an argument is out of range.

    Example:
        >>> embeddings = {"video": np.eye(8), "text": np.eye(8)}
        >>> valid = {"video": np.ones(8), "text": np.array([1, 1, 1, 1, 1, 1, 1, 0])}  # the last clip has no text
        >>> geometry = measure_geometry(embeddings, valid)
        >>> len(geometry.clip), geometry.gap, round(geometry.cosine_true["VT"], 3)
        (7, {'VT': 0.0}, 1.0)
    """
    from threadpoolctl import threadpool_limits

    if not 2 <= num_clusters <= np.iinfo(np.int16).max or max_clips < 2 or matrix_clips < 0:
        raise TrichordError(
            f"num_clusters={num_clusters}, max_clips={max_clips}, matrix_clips={matrix_clips}: give 2 to 32,767 clusters, "
            "at least 2 clips, and a matrix of at least 0 clips"
        )
    pairs = pairs_of(embeddings)
    modalities = tuple(dict.fromkeys(chain.from_iterable(pairs))) or tuple(embeddings)
    raw = {m: _as_array(embeddings[m]) for m in modalities}
    complete = _complete(raw, valid, labels)
    clip = _evenly(np.flatnonzero(complete), max_clips)
    if len(clip) < 2:
        return None
    with threadpool_limits(1):
        points = np.concatenate([unit_rows(raw[m][clip]) for m in modalities])
        centred = points - points.mean(0, dtype=np.float64).astype(np.float32)
        coordinates, explained = principal_plane(centred, seed)
        cluster = cluster_points(centred, num_clusters, seed)
        n = len(clip)
        rows_of = {m: slice(i * n, (i + 1) * n) for i, m in enumerate(modalities)}
        return Geometry(
            clip=clip,
            coordinates={m: coordinates[rows_of[m]] for m in modalities},
            explained=explained,
            cluster={m: cluster[rows_of[m]].astype(np.int16) for m in modalities},
            num_clusters=int(cluster.max()) + 1,
            modality_purity=purity(cluster, np.repeat(np.arange(len(modalities)), n)),
            matrix_clip=_evenly(clip, matrix_clips),
            **_pair_measures(
                {m: points[rows_of[m]] for m in modalities}, {m: cluster[rows_of[m]] for m in modalities}, pairs
            ),
            **_label_measures(cluster, labels, clip, seed),
            similarity=_similarity({m: points[rows_of[m]] for m in modalities}, pairs, matrix_clips),
        )


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return finite rows (n, D) as float32 unit vectors; zero rows stay zero.

    Very large or small rows do not overflow.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """
    largest = np.abs(rows).max(1, initial=0.0, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1)
    length = np.sqrt(np.einsum("nd,nd->n", scaled, scaled, dtype=np.float64))[:, None]
    return (scaled / np.where(length > 0, length, 1).astype(scaled.dtype)).astype(np.float32, copy=False)


def principal_plane(centred: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates (P, 2) float32 of centred points (P, D) on their first two principal axes.

    The second result is the share (2,) of the variance on each axis.

    The subspace iteration starts from fixed random vectors over points, not over axes, so that rotating the space does not change
    the result. It stops when both variances have converged to 1e-7 of the first, or after PLANE_STEPS. If variances are nearly
    equal, the axes within their subspace are arbitrary but deterministic.

    Example:
        >>> points = np.array([[-2, 0, 0], [2, 0, 0], [0, -1, 0], [0, 1, 0]], np.float32)
        >>> coordinates, explained = principal_plane(points)
        >>> coordinates.shape, explained.round(3)
        ((4, 2), array([0.8, 0.2]))
    """
    num_points, dim = centred.shape
    coordinates, explained = np.zeros((num_points, 2), np.float32), np.zeros(2)
    total = _sum_of_squares(centred)
    if total <= COLLAPSED * num_points:
        return coordinates, explained
    width = min(num_points, dim, PLANE_WIDTH)
    start = np.random.default_rng(seed).standard_normal((num_points, width), dtype=np.float32)
    basis, before = np.linalg.qr(centred @ (centred.T @ start))[0], np.zeros(2)
    for _ in range(PLANE_STEPS):
        mapped = (centred.T @ basis).astype(np.float64)
        variance, vectors = np.linalg.eigh(mapped.T @ mapped)  # in increasing order
        top = np.maximum(variance[::-1][:2], 0)
        if np.abs(top - before[: len(top)]).max() <= 1e-7 * top[0]:
            break
        before = top
        basis = np.linalg.qr(centred @ mapped.astype(np.float32))[0]
    scores = (basis.astype(np.float64) @ vectors[:, ::-1][:, :2]) * np.sqrt(top)
    farthest = scores[np.abs(scores).argmax(0), np.arange(len(top))]
    coordinates[:, : len(top)] = scores * np.where(farthest < 0, -1, 1)
    explained[: len(top)] = np.minimum(top / total, 1)
    return coordinates, explained


def cluster_points(centred: np.ndarray, num_clusters: int, seed: int = 0, *, starts: int = KMEANS_STARTS) -> np.ndarray:
    """Return the k-means cluster (P,) int64 of each centred point (P, D), using the best of `starts` starts.

    Clusters are numbered by decreasing size, and by first point if sizes tie. `measure_geometry` describes how many there are.

    Example:
        >>> points = np.array([[1, 0], [1, 0.1], [1, -0.1], [-1, 0], [-1, 0.1]], np.float32)
        >>> cluster_points(points - points.mean(0), num_clusters=2)
        array([0, 0, 0, 1, 1])
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    num_points = len(centred)
    if _sum_of_squares(centred) <= COLLAPSED * num_points:
        return np.zeros(num_points, np.int64)
    num_distinct = len({row.tobytes() for row in centred})
    num_used = min(num_clusters, max(2, num_points // 4), num_distinct)
    if num_used < 2:
        return np.zeros(num_points, np.int64)
    kmeans = KMeans(num_used, n_init=starts, max_iter=KMEANS_STEPS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # points that differ only by rounding give fewer clusters
        labels = kmeans.fit(centred).labels_
    _, first, cluster, size = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return rank[cluster]


def purity(cluster: np.ndarray, kind: np.ndarray) -> float:
    """Return the mean share of the most frequent kind of a cluster, weighted by cluster size.

    Args:
        cluster: (P,) cluster of each point, integers from 0.
        kind: (P,) kind of each point, integers from 0.

    Example:
        >>> purity(cluster=np.array([0, 0, 0, 1]), kind=np.array([0, 0, 1, 1]))
        0.75
    """
    return float(_table(cluster, kind).max(1).sum() / len(cluster))


def _pair_measures(
    units: Mapping[str, np.ndarray], cluster: Mapping[str, np.ndarray], pairs: Sequence[Pair]
) -> dict[str, Any]:
    """Return gap, cosine_true, cosine_other, agreement and agreement_chance of all pairs."""
    names = ("gap", "cosine_true", "cosine_other", "agreement", "agreement_chance")
    measures: dict[str, dict[str, float]] = {name: {} for name in names}
    total = {m: unit.sum(0, dtype=np.float64) for m, unit in units.items()}
    num_clusters = max(int(c.max()) for c in cluster.values()) + 1
    share = {m: np.bincount(c, minlength=num_clusters) / len(c) for m, c in cluster.items()}
    for a, b in pairs:
        n = len(units[a])
        true = float(np.einsum("nd,nd->", units[a], units[b], dtype=np.float64))
        values = (
            np.linalg.norm(total[a] - total[b]) / n,
            true / n,
            (total[a] @ total[b] - true)
            / (n * (n - 1)),  # the sum over all pairs is the product of the sums over clips
            (cluster[a] == cluster[b]).mean(),
            share[a] @ share[b],
        )
        for name, value in zip(names, values, strict=True):
            measures[name][_code(a, b)] = float(value)
    return measures


def _label_measures(
    cluster: np.ndarray, labels: Sequence[Any] | np.ndarray | None, clip: np.ndarray, seed: int
) -> dict[str, Any]:
    """Return label_purity, label_purity_chance, label_nmi and num_labels.

    Labels are permuted over clips instead of points, so that all embeddings of a clip keep the same label.
    """
    if labels is None:
        return {"label_purity": None, "label_purity_chance": None, "label_nmi": None, "num_labels": 0}
    from sklearn.metrics import normalized_mutual_info_score

    names, kind = np.unique(_label_array(labels)[clip], return_inverse=True)
    copies = len(cluster) // len(clip)
    rng = np.random.default_rng(seed)
    permuted = [purity(cluster, np.tile(rng.permutation(kind), copies)) for _ in range(LABEL_PERMUTATIONS)]
    kinds = np.tile(kind, copies)
    return {
        "label_purity": purity(cluster, kinds),
        "label_purity_chance": float(np.mean(permuted)),
        "label_nmi": float(normalized_mutual_info_score(kinds, cluster)),
        "num_labels": len(names),
    }


def _similarity(units: Mapping[str, np.ndarray], pairs: Sequence[Pair], matrix_clips: int) -> dict[str, np.ndarray]:
    rows = {m: _evenly(unit, matrix_clips) for m, unit in units.items()}
    return {_code(a, b): (rows[a] @ rows[b].T).astype(np.float16) for a, b in pairs}


def _code(a: str, b: str) -> str:
    return letter_of(a) + letter_of(b)


def _table(cluster: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Return the counts (K, kinds) of kinds in clusters."""
    shape = int(cluster.max()) + 1, int(kind.max()) + 1
    return np.bincount(cluster * shape[1] + kind, minlength=shape[0] * shape[1]).reshape(shape)


def _sum_of_squares(points: np.ndarray) -> float:
    return float(np.einsum("pd,pd->", points, points, dtype=np.float64))


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` of the rows, evenly spaced from the first."""
    num = min(len(rows), most)
    return rows[np.arange(num) * len(rows) // max(num, 1)]


def _as_array(values: Any) -> np.ndarray:
    """Return tensors (any device, any floating-point type) or arrays as arrays; integers and half precision become float32."""
    if not isinstance(values, np.ndarray):
        import torch

        tensor = torch.as_tensor(values).detach().cpu()
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def _label_array(labels: Sequence[Any] | np.ndarray) -> np.ndarray:
    array = np.asarray(labels)
    return array.astype(np.str_) if array.dtype == object else array


def _complete(
    raw: Mapping[str, np.ndarray], valid: Mapping[str, Any], labels: Sequence[Any] | np.ndarray | None
) -> np.ndarray:
    """Return whether each of the N clips has every modality with finite values.

    Raises:
        TrichordError: The shapes do not fit together.
    """
    if not raw:
        raise TrichordError("there are no embeddings to measure; give embeddings of at least two modalities")
    shapes = {m: rows.shape for m, rows in raw.items()}
    shape = next(iter(shapes.values()))
    if len(shape) != 2 or any(s != shape for s in shapes.values()):
        listed = ", ".join(f"{m} {s}" for m, s in shapes.items())
        raise TrichordError(
            f"the embeddings of all modalities must have the same shape (clips, width), but the shapes are {listed}"
        )
    present = {m: np.asarray(valid[m], dtype=bool) for m in raw if m in valid}
    if invalid := [m for m in raw if m not in present or present[m].shape != shape[:1]]:
        raise TrichordError(
            f"valid['{invalid[0]}'] must have one Boolean per clip, {shape[0]} in all; it states whether the clip has {invalid[0]}"
        )
    if labels is not None and _label_array(labels).shape != shape[:1]:
        raise TrichordError(
            f"labels have the shape {np.shape(labels)}, but there are {shape[0]} clips; give one label per clip"
        )
    return np.logical_and.reduce([present[m] & np.isfinite(rows).all(1) for m, rows in raw.items()])
