"""Zero-shot classification: the class whose name, as text in the joint space, scores highest with the clip.

C classes, P prompts, D joint width. A class with several prompts has the mean of their embeddings; where scores are cosines
(`mean_normalized`), the mean of unit vectors, of length one (Radford et al. 2021, CLIP). Scores are dot products with the
clip, as in retrieval: under `sum`, a class whose embedding is longer is chosen more often, and the published figures were
made so (MCN's `train_tri_cos_mil.py`: argmax of the products).
"""

from __future__ import annotations

import numpy as np


def class_embeddings(prompts: np.ndarray, owner: np.ndarray, num_classes: int, cosine: bool) -> np.ndarray:
    """Return the mean (C, D) of the prompts (P, D) of each class, of unit length if `cosine`; NaN for a class without a finite
    prompt.

    owner: (P,) the class of each prompt.
    """
    rows = prompts.astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if cosine:
        rows = _unit(rows)
    out = np.full((num_classes, prompts.shape[1]), np.nan)
    for c in range(num_classes):
        mine = np.flatnonzero((owner == c) & finite)
        if len(mine):
            out[c] = rows[mine].mean(axis=0)
    return (_unit(out) if cosine else out).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
