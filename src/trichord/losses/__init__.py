"""Losses: contrast between modalities, clustering, reconstruction. Plain tensors in, a scalar out, in float32."""

from trichord.losses.clustering import ClusterMemory, cluster_contrast
from trichord.losses.contrast import info_nce, masked_margin_softmax, mil_nce
from trichord.losses.kmeans import KMeans, assign, fit_kmeans
from trichord.losses.reconstruction import reconstruction_loss

__all__ = [
    "ClusterMemory",
    "KMeans",
    "assign",
    "cluster_contrast",
    "fit_kmeans",
    "info_nce",
    "masked_margin_softmax",
    "mil_nce",
    "reconstruction_loss",
]
