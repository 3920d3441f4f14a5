"""Clips and batches from a store."""

from trichord.data.clips import clip_spans, clip_windows, words_published_order

__all__ = ["clip_spans", "clip_windows", "words_published_order"]
