"""Ranks under the dual softmax (Cheng, Lin, Wu, Yang and Shen, Improving Video-Text Retrieval by Multi-Stream Corpus Alignment
and Dual Softmax Loss, 2021): each score is multiplied by how much of its gallery item's attention the query has,

    S'(q, g) = S(q, g) exp(scale S(q, g)) / sum over queries q' of exp(scale S(q', g)).

It uses the whole set of queries: the score of one query depends on the others, which a search never sees together. Figures
with and without it are not comparable, so rows carry its name. The published form presumes scores like cosines: a share of a
negative score counts against it.

A share may be as small as exp(-scale times a difference of scores), far below what a float64 can hold. So items are compared
without it: first by the sign of S, then among positive ones by

    log |S'| = log |S| + scale (S - top) - log sum over q' of exp(scale (S(q', g) - top)),    top = max over q' of S(q', g),

where the larger is better, among negative ones the smaller; all that score 0 tie. Scores are float64. The last term is rounded
to multiples of 2^-44, above the noise of a sum of thousands of terms: items with the same score and the same scores of other
queries tie, in whichever order these are added. A score that is NaN or infinite takes no attention and counts as NaN.

Scores are made twice, some rows at a time: memory grows as Q + G.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.counts import BestCounts, RankCounts, as_array, best_of, distinct_rows

MOST_CELLS = 1 << 22  # of a block of scores, float64: 32 MB
COLUMNS = 4096  # gallery items that are widened at a time
GRID = 2.0**44  # steps of a unit that sums of attention are told apart by
LOST = np.int8(-2)  # sign of a score that is not finite: below all others


def dual_softmax_ranks(
    queries: Any,
    gallery: Any,
    *,
    scale: float,
    truth: np.ndarray | None = None,
    owner: np.ndarray | None = None,
    block: int = 1024,
) -> RankCounts | BestCounts:
    """Return the counts of the re-weighted dot products, which never underflow.

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
    parts: list[RankCounts] = []
    tied: list[np.ndarray] = []
    with np.errstate(all="ignore"):
        top, attention = _attention(q, distinct, scale, rows)
        for start in range(0, len(q), rows):
            sign, size = _reweighted(_products(q[start : start + rows], distinct), scale, top, attention)
            if len(first) < len(g):
                sign, size = sign[:, copy_of], size[:, copy_of]
            if owner is not None:
                mine = np.flatnonzero((owner >= start) & (owner < start + len(sign)))
                of = owner[mine] - start
                best, truths = best_of(of, _places(sign[of, mine], size[of, mine]), len(sign))
                index = mine[best]
                tied.append(truths)
            else:
                index = np.arange(start, start + len(sign)) if truth is None else truth[start : start + rows]
            parts.append(_counts(sign, size, index))
    greater, equal = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    if owner is None:
        return RankCounts(greater, equal, len(g))
    return BestCounts(greater, equal, np.minimum(np.concatenate(tied), equal), len(g))


def _attention(q: np.ndarray, items: np.ndarray, scale: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each item (G,) the largest score, and the logarithm of the sum of exp(scale (score - largest))."""
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
    """(R, G) int8 signs of S', and (R, G) float64 what orders those of one sign: sign * log |S'|. Uses `scores` up."""
    lost = np.isnan(scores)
    sign = np.where(lost, LOST, np.sign(scores)).astype(np.int8)
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
    """Return the counts of `counts.matrix_counts` for a matrix of (sign, size)."""
    at = np.arange(len(sign)), index
    own_sign, own_size = sign[at][:, None], size[at][:, None]
    alike = sign == own_sign
    greater = np.count_nonzero(sign > own_sign, axis=1) + np.count_nonzero(alike & (size > own_size), axis=1)
    equal = np.count_nonzero(alike & (size == own_size), axis=1)
    lost = own_sign[:, 0] == LOST
    greater[lost], equal[lost] = sign.shape[1], 1
    return RankCounts(greater, equal, sign.shape[1])


def _places(sign: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(P,) places in the order of (sign, size), the same for equal ones; NaN for what is lost."""
    order = np.lexsort((size, sign))
    steps = (np.diff(sign[order]) != 0) | (np.diff(size[order]) != 0)
    places = np.empty(len(sign))
    places[order] = np.concatenate([[0], np.cumsum(steps)])[: len(sign)]
    places[sign == LOST] = np.nan
    return places


def _products(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the dot products (R, G) in float64; NaN where they are infinite."""
    wide, out = rows.astype(np.float64), np.empty((len(rows), len(items)))
    for start in range(0, len(items), COLUMNS):
        out[:, start : start + COLUMNS] = wide @ items[start : start + COLUMNS].astype(np.float64).T
    out[np.isinf(out)] = np.nan
    return out
