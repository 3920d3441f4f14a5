"""Combine and compare embeddings of one model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trichord.errors import TrichordError
from trichord.tasks.retrieval.measure import fuse, unit


def fused(parts: Sequence[np.ndarray], cosine: bool) -> np.ndarray:
    """Return the sum (N, D) of embeddings of the same items or, with cosines, the mean of the normalized embeddings.

    Raises:
        TrichordError: The shapes differ.

    Example:
        >>> fused([np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]])], cosine=True)
        array([[0.3, 0.9]])
    """
    if not parts or len({part.shape for part in parts}) > 1:
        raise TrichordError(
            f"embeddings of the shapes {[part.shape for part in parts]} cannot be fused; give arrays (N, D) of the same items"
        )
    return fuse(list(parts), "mean_normalized" if cosine else "sum")


def similarity(queries: np.ndarray, gallery: np.ndarray, dim: int, cosine: bool) -> np.ndarray:
    """Return the scores (N, M) of queries (N, D) and gallery items (M, D).

    Raises:
        TrichordError: The width of the embeddings is not `dim`.

    Example:
        >>> similarity(np.array([[3.0, 4.0]]), np.eye(2), dim=2, cosine=True)
        array([[0.6, 0.8]], dtype=float32)
    """
    one, two = (np.atleast_2d(np.asarray(rows, np.float32)) for rows in (queries, gallery))
    if one.shape[1] != dim or two.shape[1] != dim:
        raise TrichordError(
            f"the embeddings have the widths {one.shape[1]} and {two.shape[1]}, but the model has the width {dim}; give "
            "embeddings of this model"
        )
    if cosine:
        one, two = unit(one), unit(two)
    return np.asarray(one @ two.T, np.float32)
