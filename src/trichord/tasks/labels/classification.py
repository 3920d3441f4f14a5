"""Zero-shot classification: each clip is assigned the class whose name, embedded as text, scores highest.

C classes, P prompts, D joint width. A class with several prompts is represented by the mean of their embeddings. If scores are
cosines (`mean_normalized`), it is the normalized mean of the normalized embeddings (Radford et al. 2021, CLIP). As in retrieval,
scores are dot products with the clip. Under `sum`, classes with a longer embedding are therefore chosen more often; the published
figures were computed in this way (`train_tri_cos_mil.py` of MCN takes the argmax of the products).
"""

from __future__ import annotations

import numpy as np


def class_embeddings(prompts: np.ndarray, owner: np.ndarray, num_classes: int, cosine: bool) -> np.ndarray:
    """Return the mean embedding (C, D) of the prompts of each class, and NaN for a class without a finite prompt.

    Args:
        prompts: (P, D) embeddings of the prompts.
        owner: (P,) class of each prompt.
        num_classes: Number C of classes.
        cosine: Whether to normalize the embeddings before and after averaging.
    """
    rows = prompts.astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if cosine:
        rows = _unit(rows)
    means = np.full((num_classes, prompts.shape[1]), np.nan)
    for c in range(num_classes):
        own_prompts = np.flatnonzero((owner == c) & finite)
        if len(own_prompts):
            means[c] = rows[own_prompts].mean(axis=0)
    return (_unit(means) if cosine else means).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
