"""Compute measures from embeddings and scores, with their statistics.

Each module takes arrays and returns figures: ranks, intervals, comparisons of orders, geometry of the joint space. What a
benchmark scores, and how, is defined in `trichord.tasks`. The results of a study are collected and saved in `trichord.study`.
"""

from trichord.evaluation.ranks import RetrievalMetrics, retrieval_metrics, retrieval_ranks

__all__ = ["RetrievalMetrics", "retrieval_metrics", "retrieval_ranks"]
