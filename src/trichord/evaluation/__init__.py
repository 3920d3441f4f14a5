"""Embeddings, ranks, and the statistics of figures. The tasks that are scored are in `trichord.tasks`."""

from trichord.evaluation.ranks import RetrievalMetrics, retrieval_metrics, retrieval_ranks

__all__ = ["RetrievalMetrics", "retrieval_metrics", "retrieval_ranks"]
