"""Evaluation: retrieval metrics and benchmarks."""

from trichord.evaluation.ranks import RetrievalMetrics, retrieval_metrics, retrieval_ranks

__all__ = ["RetrievalMetrics", "retrieval_metrics", "retrieval_ranks"]
