"""Ranks under the dual softmax.

Source: Cheng, Lin, Wu, Yang and Shen, Improving Video-Text Retrieval by Multi-Stream Corpus Alignment and Dual Softmax Loss, 2021.
Each score is multiplied by the softmax over queries of the scores of its gallery item:

    S'(q, g) = S(q, g) exp(scale S(q, g)) / sum over queries q' of exp(scale S(q', g)).

The score of a query depends on all other queries, which are not available together in a search. Figures with and without the dual
softmax are not comparable, so the rows of results are labelled with it. The published form assumes scores like cosines: if a score
is negative, a larger softmax weight lowers it.

A weight can be as small as exp(-scale * difference of two scores), far below the range of float64. Items are therefore compared
without computing it: first by the sign of S, then among positive scores by

    log |S'| = log |S| + scale (S - top) - log sum over q' of exp(scale (S(q', g) - top)),    top = max over q' of S(q', g),

where larger is better, and among negative scores where smaller is better; all items with a score of 0 tie. Scores are float64. The
last term is rounded to multiples of 2^-44, which is above the rounding error of a sum of thousands of terms, so that items with
the same score and the same scores for other queries tie regardless of the summation order. A score that is NaN or infinite
contributes nothing to the sums and is treated as NaN.

Scores are computed twice in blocks of rows, so memory grows as Q + G.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.counts import BestCounts, RankCounts, as_array, best_of, distinct_rows

MOST_CELLS = 1 << 22  # largest size of a block of float64 scores: 32 MB
COLUMNS = 4096  # number of gallery items that are converted to float64 at a time
GRID = 2.0**44  # logarithms of the sums are rounded to multiples of 1 / GRID
LOST = np.int8(-2)  # sign that marks a score that is not finite, below all others


def dual_softmax_ranks(
    queries: Any,
    gallery: Any,
    *,
    scale: float,
    truth: np.ndarray | None = None,
    owner: np.ndarray | None = None,
    block: int = 1024,
) -> RankCounts | BestCounts:
    """Return the counts of re-weighted dot products, computed without underflow.

    Args:
        queries: Embeddings (Q, D).
        gallery: Embeddings (G, D).
        scale: Factor of the scores in the exponent. 100 is usual for cosines.
        truth: Index (Q,) of the true gallery item of each query. None means the diagonal.
        owner: Index (G,) of the query that each item is a truth of. It replaces `truth` if queries have several truths.
        block: Largest number of rows that are processed at a time.

    Raises:
        TrichordError: The scale is not a positive finite number.
    """
    if not 0 < scale < float("inf"):
        raise TrichordError(f"the scale of the dual softmax is {scale}; give a positive finite number, such as 100")
    q, g = as_array(queries), as_array(gallery)
    first, copy_of = distinct_rows(g)  # equal rows tie regardless of their position
    distinct = g[first] if len(first) < len(g) else g
    rows = max(1, min(block, MOST_CELLS // max(1, len(g))))
    block_counts: list[RankCounts] = []
    tied_truths: list[np.ndarray] = []
    with np.errstate(all="ignore"):
        top, attention = _attention(q, distinct, scale, rows)
        for start in range(0, len(q), rows):
            sign, size = _reweighted(_products(q[start : start + rows], distinct), scale, top, attention)
            if len(first) < len(g):
                sign, size = sign[:, copy_of], size[:, copy_of]
            if owner is not None:
                own_items = np.flatnonzero((owner >= start) & (owner < start + len(sign)))
                owner_row = owner[own_items] - start
                best, truths = best_of(
                    owner_row, _places(sign[owner_row, own_items], size[owner_row, own_items]), len(sign)
                )
                index = own_items[best]
                tied_truths.append(truths)
            else:
                index = np.arange(start, start + len(sign)) if truth is None else truth[start : start + rows]
            block_counts.append(_counts(sign, size, index))
    greater, equal = (np.concatenate([part[i] for part in block_counts]) for i in (0, 1))
    if owner is None:
        return RankCounts(greater, equal, len(g))
    return BestCounts(greater, equal, np.minimum(np.concatenate(tied_truths), equal), len(g))


def _attention(q: np.ndarray, items: np.ndarray, scale: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest score (G,) of each item, and the logarithm (G,) of its sum of exp(scale * (score - largest score))."""
    top, total = np.full(len(items), -np.inf), np.zeros(len(items))
    for start in range(0, len(q), rows):
        scores = _products(q[start : start + rows], items)
        higher = np.maximum(top, scores.max(axis=0, initial=-np.inf, where=~np.isnan(scores)))
        total *= np.exp(np.where(top == higher, 0.0, scale * (top - higher)))
        scores -= higher
        scores *= scale
        np.exp(scores, out=scores)
        total += scores.sum(axis=0, where=~np.isnan(scores))
        top = higher
    return top, np.rint(np.log(total) * GRID) / GRID


def _reweighted(
    scores: np.ndarray, scale: float, top: np.ndarray, attention: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the re-weighted scores as signs and magnitudes. `scores` is overwritten.

    Returns:
        The signs (R, G) of S' as int8, and sign * log |S'| (R, G) as float64, which sorts scores of one sign.
    """
    is_nan = np.isnan(scores)
    sign = np.where(is_nan, LOST, np.sign(scores)).astype(np.int8)
    size = np.abs(scores)
    np.log(size, out=size)
    scores -= top
    scores *= scale
    scores -= attention
    size += scores
    size *= sign
    size[sign == 0] = 0.0
    return sign, size


def _counts(sign: np.ndarray, size: np.ndarray, index: np.ndarray) -> RankCounts:
    """Return the same counts as `counts.matrix_counts` for a matrix of (sign, size)."""
    truth_index = np.arange(len(sign)), index
    own_sign, own_size = sign[truth_index][:, None], size[truth_index][:, None]
    same_sign = sign == own_sign
    greater = np.count_nonzero(sign > own_sign, axis=1) + np.count_nonzero(same_sign & (size > own_size), axis=1)
    equal = np.count_nonzero(same_sign & (size == own_size), axis=1)
    truth_is_nan = own_sign[:, 0] == LOST
    greater[truth_is_nan], equal[truth_is_nan] = sign.shape[1], 1
    return RankCounts(greater, equal, sign.shape[1])


def _places(sign: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the position (P,) of each entry in the ordering by (sign, size).

    Equal entries have equal positions, and entries that are not finite have NaN.
    """
    order = np.lexsort((size, sign))
    steps = (np.diff(sign[order]) != 0) | (np.diff(size[order]) != 0)
    places = np.empty(len(sign))
    places[order] = np.concatenate([[0], np.cumsum(steps)])[: len(sign)]
    places[sign == LOST] = np.nan
    return places


def _products(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the dot products (R, G) in float64, with NaN instead of infinity."""
    rows_float64, products = rows.astype(np.float64), np.empty((len(rows), len(items)))
    for start in range(0, len(items), COLUMNS):
        products[:, start : start + COLUMNS] = rows_float64 @ items[start : start + COLUMNS].astype(np.float64).T
    products[np.isinf(products)] = np.nan
    return products
