"""How well clusters of embeddings follow labels: normalised mutual information, adjusted Rand index, purity.

n items, K clusters. NMI is normalised by the arithmetic mean of the two entropies. ARI is 0 on average at random and may be
below. Purity, the mean share of a cluster's most frequent label weighted by size, rises with K by itself; NMI does somewhat. So
each stands beside its mean over permutations of the labels. Clusters and purity are those of `geometry`.

Purity is a mean over items (`purity_hits`), NMI and ARI are not: they are of all items together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.evaluation.geometry import LABEL_PERMUTATIONS, cluster_points, purity, unit_rows

STARTS = 10


@dataclass(frozen=True)
class Agreement:
    """Agreement of two groupings of the same items, in percent."""

    nmi: float
    ari: float
    purity: float


def agreement(cluster: np.ndarray, kind: np.ndarray) -> Agreement:
    """Return the agreement of clusters (n,) with labels (n,), both integers from 0."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    nmi, ari = normalized_mutual_info_score(kind, cluster), adjusted_rand_score(kind, cluster)
    return Agreement(100.0 * float(nmi), 100.0 * float(ari), 100.0 * purity(cluster, kind))


def chance_agreement(cluster: np.ndarray, kind: np.ndarray, seed: int = 0) -> Agreement:
    """Return the mean agreement over permutations of the labels."""
    rng = np.random.default_rng(seed)
    drawn = [agreement(cluster, rng.permutation(kind)) for _ in range(LABEL_PERMUTATIONS)]
    return Agreement(*(float(np.mean([getattr(a, name) for a in drawn])) for name in ("nmi", "ari", "purity")))


def purity_hits(cluster: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Return what each item (n,) contributes to the purity, which is their mean: 1 if the label of the item is the most frequent
    one of its cluster. If t labels are equally frequent, an item with one of them contributes 1/t."""
    shape = int(cluster.max()) + 1, int(kind.max()) + 1
    table = np.bincount(cluster * shape[1] + kind, minlength=shape[0] * shape[1]).reshape(shape)
    most = table == table.max(1, keepdims=True)
    return most[cluster, kind] / most.sum(1)[cluster]


def cluster_embeddings(rows: np.ndarray, num_clusters: int, seed: int = 0) -> np.ndarray:
    """Return the k-means clusters (n,) of unit vectors (n, D), the best of STARTS starts; `geometry.measure_geometry` describes
    the largest number of clusters. One thread: the same rows give the same clusters."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        points = unit_rows(rows)
        centred = points - points.mean(0, dtype=np.float64).astype(np.float32)
        return cluster_points(centred, num_clusters, seed, starts=STARTS)
