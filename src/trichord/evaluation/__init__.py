"""Compute measures from embeddings and scores, with their statistics.

Each module takes arrays and returns figures: retrieval ranks, classification accuracy, probes, clusters, step localization,
intervals and comparisons of orders. Which clips and texts a benchmark scores, and with which protocol, is defined in
`trichord.protocols`. The results of a study are collected and saved in `trichord.study`.
"""

from trichord.evaluation.ranks import RetrievalMetrics, retrieval_metrics, retrieval_ranks

__all__ = ["RetrievalMetrics", "retrieval_metrics", "retrieval_ranks"]
