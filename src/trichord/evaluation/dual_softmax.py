"""Ranks under the dual softmax (Cheng, Lin, Wu, Yang and Shen, Improving Video-Text Retrieval by Multi-Stream Corpus Alignment
and Dual Softmax Loss, 2021): each score is multiplied by how much of its gallery item's attention the query has,

    S'(q, g) = S(q, g) exp(scale S(q, g)) / sum over queries q' of exp(scale S(q', g)).

It uses the whole set of queries: the score of one query depends on the others, which a search never sees together. Figures
with and without it are not comparable, so rows carry its name. The published form presumes scores like cosines: a share of a
negative score counts against it. Scores are made twice, some rows at a time: memory grows as Q + G.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.counts import BestCounts, RankCounts, as_array, best_of, distinct_rows, matrix_counts

MOST_CELLS = 1 << 22  # of a block of scores, float64: 32 MB
COLUMNS = 4096  # gallery items that are widened at a time


def dual_softmax_ranks(
    queries: Any,
    gallery: Any,
    *,
    scale: float,
    truth: np.ndarray | None = None,
    owner: np.ndarray | None = None,
    block: int = 1024,
) -> RankCounts | BestCounts:
    """Counts of the re-weighted dot products, rounded to float32.

    Args:
        queries: (Q, D).
        gallery: (G, D).
        scale: Multiplies scores in the exponent; 100 is usual with cosines.
        truth: (Q,) gallery item of each query; None: the diagonal.
        owner: (G,) in place of `truth`: the query that each item is a truth of, where queries have several.
        block: Most rows at a time.
    """
    if not 0 < scale < float("inf"):
        raise TrichordError(f"the dual softmax cannot have scale {scale}; give a number above 0, such as 100")
    q, g = as_array(queries), as_array(gallery)
    first, copy_of = distinct_rows(g)  # copies tie, wherever they lie
    distinct = g[first] if len(first) < len(g) else g
    rows = max(1, min(block, MOST_CELLS // max(1, len(g))))
    top, total = np.full(len(distinct), -np.inf), np.zeros(len(distinct))
    with np.errstate(all="ignore"):
        for start in range(0, len(q), rows):
            scores = scale * _products(q[start : start + rows], distinct)
            scores[np.isnan(scores)] = -np.inf  # a query that is not finite takes no attention
            higher = np.maximum(top, scores.max(axis=0))
            total = total * np.exp(np.where(top == higher, 0.0, top - higher)) + np.exp(scores - higher).sum(axis=0)
            top = higher
        parts: list[RankCounts] = []
        tied: list[np.ndarray] = []
        for start in range(0, len(q), rows):
            plain = _products(q[start : start + rows], distinct)
            scores = (plain * (np.exp(scale * plain - top) / total)).astype(np.float32)
            scores = scores[:, copy_of] if len(first) < len(g) else scores
            if owner is not None:
                mine = np.flatnonzero((owner >= start) & (owner < start + len(scores)))
                of = owner[mine] - start
                best, truths = best_of(of, scores[of, mine], len(scores))
                index = mine[best]
                tied.append(truths)
            else:
                index = np.arange(start, start + len(scores)) if truth is None else truth[start : start + rows]
            parts.append(matrix_counts(scores, index))
    greater, equal = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    if owner is None:
        return RankCounts(greater, equal, len(g))
    return BestCounts(greater, equal, np.minimum(np.concatenate(tied), equal), len(g))


def _products(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(R, G) dot products, float64."""
    wide, out = rows.astype(np.float64), np.empty((len(rows), len(items)))
    for start in range(0, len(items), COLUMNS):
        out[:, start : start + COLUMNS] = wide @ items[start : start + COLUMNS].astype(np.float64).T
    return out
