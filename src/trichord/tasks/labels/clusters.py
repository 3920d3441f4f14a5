"""Agreement of clusters of embeddings with labels: normalized mutual information, adjusted Rand index and purity.

n items, K clusters. NMI is normalized by the arithmetic mean of the two entropies. ARI is 0 on average for random clusters and may
be negative. Purity, the mean over clusters of the share of the most frequent label weighted by cluster size, grows with K even for
random clusters, and so does NMI to some extent. Each measure is therefore reported with its mean over permutations of the labels.
Clusters and purity are those of `geometry`.

Purity is a mean over items (`purity_hits`). NMI and ARI are not; they exist only for all items together.
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


def agreement(cluster: np.ndarray, label: np.ndarray) -> Agreement:
    """Return the agreement of clusters (n,) with labels (n,), both integers from 0."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    nmi, ari = normalized_mutual_info_score(label, cluster), adjusted_rand_score(label, cluster)
    return Agreement(100.0 * float(nmi), 100.0 * float(ari), 100.0 * purity(cluster, label))


def chance_agreement(cluster: np.ndarray, label: np.ndarray, seed: int = 0) -> Agreement:
    """Return the mean agreement over random permutations of the labels.

    Args:
        cluster: Cluster (n,) of each item, from 0.
        label: Label (n,) of each item, from 0.
        seed: Seed of the permutations.
    """
    rng = np.random.default_rng(seed)
    permuted = [agreement(cluster, rng.permutation(label)) for _ in range(LABEL_PERMUTATIONS)]
    return Agreement(*(float(np.mean([getattr(a, name) for a in permuted])) for name in ("nmi", "ari", "purity")))


def purity_hits(cluster: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the contribution (n,) of each item to the purity, which is their mean.

    The contribution is 1 if the label of the item is the most frequent one of its cluster. If t labels are equally frequent, one of
    them is chosen at random, so an item with any of them contributes the expected value 1/t.
    """
    shape = int(cluster.max()) + 1, int(label.max()) + 1
    table = np.bincount(cluster * shape[1] + label, minlength=shape[0] * shape[1]).reshape(shape)
    is_most_frequent = table == table.max(1, keepdims=True)
    return is_most_frequent[cluster, label] / is_most_frequent.sum(1)[cluster]


def cluster_embeddings(rows: np.ndarray, num_clusters: int, seed: int = 0) -> np.ndarray:
    """Cluster rows by k-means on unit vectors, with the best of STARTS starts.

    The computation uses a single thread, so equal rows have equal clusters.

    Args:
        rows: Rows (n, D).
        num_clusters: Number of clusters. `geometry.measure_geometry` describes the upper limit.
        seed: Seed of the starts.

    Returns:
        Cluster (n,) of each row.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        points = unit_rows(rows)
        centred = points - points.mean(0, dtype=np.float64).astype(np.float32)
        return cluster_points(centred, num_clusters, seed, starts=STARTS)
