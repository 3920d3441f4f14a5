"""The clips of a store and their batches for training and evaluation.

This package decides which clips exist and which of them form a batch, reads them into tensors, and caches the outputs of frozen
encoders. The store format lives in `trichord.store`, and the way in which one modality is read in `trichord.modalities`.
"""

from trichord.data.clips import clip_spans, clip_windows, words_published_order

__all__ = ["clip_spans", "clip_windows", "words_published_order"]
