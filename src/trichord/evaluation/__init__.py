"""Evaluation: measures from embeddings and scores, and the statistics of what they give. What is scored, and how a benchmark
has it, is in `protocols`."""

from trichord.evaluation.ranks import RetrievalMetrics, retrieval_metrics, retrieval_ranks

__all__ = ["RetrievalMetrics", "retrieval_metrics", "retrieval_ranks"]
