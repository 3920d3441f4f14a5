"""Counts of the dot products of embeddings that are greater than, or equal to, that of a query with its truth.

A score is the dot product in float64, rounded to float32 (not rounded for float64 embeddings), so that a truth always ties with
itself and with its copies. Most comparisons need less precision: a float32 product of rows q and g, summed in any order, fused
or not, differs from the exact product by at most gamma * |q| |g|, where gamma = n u / (1 - n u), u = 2^-24 and n = D + 4
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; the 4 accounts for the rounding of the rows and of the
bound itself). Only pairs that remain undecided are scored in float64, with a fixed summation order. Queries with many such
pairs, and rows that are infinite or close to the range of float32, are compared in float64 throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np

from trichord.evaluation.counts import RankCounts, as_array, distinct_rows, like_of, matrix_counts, row_counts, threads

Arithmetic = Literal["filtered", "float64"]
MOST_OPEN = 128  # largest number of undecided pairs of a query in a tile; with more, float64 throughout is faster


def _cast(x: Any, name: str) -> Any:
    """Return `x`, an array or tensor, as float32 or float64, without a copy if it already has this type."""
    if isinstance(x, np.ndarray):
        return x.astype(name, copy=False)
    return x.double() if name == "float64" else x.float()


def product_counts(q: Any, g: Any, index: np.ndarray, block: int, arithmetic: Arithmetic) -> RankCounts:
    """Return the counts of two arrays, or of two tensors on the same device.

    Args:
        q: (Q, D) embeddings of queries.
        g: (G, D) embeddings of gallery items.
        index: (Q,) gallery item of each query.
        block: Largest number of queries, and of gallery items, that are processed at a time.
        arithmetic: `filtered`, as described in the module, or `float64` for all pairs.

    Example:
        >>> q, g = np.eye(2, dtype=np.float32), np.array([[1, 0], [2, 1], [1, 0]], np.float32)
        >>> product_counts(q, g, index=np.array([0, 1]), block=1024, arithmetic="filtered")
        RankCounts(greater=array([1, 0]), equal=array([2, 1]), num_gallery=3)
    """
    types = [str(x.dtype).removeprefix("torch.").replace("bfloat16", "float16") for x in (q, g)]
    double = np.result_type(*types) == np.float64
    counts, rest = RankCounts(np.empty(len(q), np.int64), np.empty(len(q), np.int64), len(g)), np.arange(len(q))
    with (
        np.errstate(all="ignore"),
        _float32_products(q) as exact,
    ):  # infinite rows give NaN scores, which are handled
        if exact and arithmetic == "filtered" and q.shape[1] and len(q):
            counts, rest = _filter(q, g, index, block, double)
        if len(rest):
            part = q if len(rest) == len(q) else q[like_of(rest, q)]
            slow = _ranks_float64(part, g, index[rest], block, double)
            counts.greater[rest], counts.equal[rest] = slow.greater, slow.equal
    return counts


@contextmanager
def _float32_products(x: Any) -> Iterator[bool]:
    """Compute torch products of float32 rows without TF32, bfloat16 and autocast; yields False if this cannot be set."""
    if isinstance(x, np.ndarray):
        yield True
        return
    import torch

    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the precision was set through both interfaces of torch
        yield False
        return
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            yield True
    finally:
        torch.set_float32_matmul_precision(before)


def _filter(q: Any, g: Any, index: np.ndarray, block: int, double: bool) -> tuple[RankCounts, np.ndarray]:
    """Return the counts, and the indices (M,) of queries for which they are not valid because they need float64 throughout."""
    own = pair_scores(q, g, np.arange(len(q)), index, double)
    q_norm, g_norm = _norms(q, block), _norms(g, block)
    order = np.argsort(g_norm)  # similar norms share a tile, whose bound is that of its largest norm; NaN is last
    order = order[: len(g) - np.count_nonzero(np.isnan(g_norm))]  # items that score NaN neither win nor tie
    greater, equal, truth_is_nan = np.zeros(len(q), np.int64), np.zeros(len(q), np.int64), np.isnan(own)
    settled = ~truth_is_nan
    rows, width = (max(1, block // 2), min(block, 1024)) if isinstance(q, np.ndarray) else (8 * block, 8 * block)

    def tile(first: int, columns: np.ndarray, items: Any) -> None:
        block_rows = slice(first, first + rows)
        low, high, sure = _thresholds(own[block_rows], q_norm[block_rows], g_norm[columns[-1]], q.shape[1])
        settled[block_rows] &= sure
        if not settled[block_rows].any():
            return
        above, near, i, j = _compare(q[block_rows], items, low, high)
        scores, truth_scores = pair_scores(q, g, first + i, columns[j], double), own[first + i]
        settled[block_rows] &= near <= MOST_OPEN
        greater[block_rows] += above + np.bincount(i[scores > truth_scores], minlength=len(low))
        equal[block_rows] += np.bincount(i[scores == truth_scores], minlength=len(low))

    with threads(len(q) * len(g) * q.shape[1] / 60) as map_on_threads:
        for start in range(0, len(order), width):
            columns = order[start : start + width]
            items = _cast(g[like_of(columns, g)], "float32")
            map_on_threads(partial(tile, columns=columns, items=items), range(0, len(q), rows))
    greater[truth_is_nan], equal[truth_is_nan] = len(g), 1
    return RankCounts(greater, equal, len(g)), np.flatnonzero(~(settled | truth_is_nan))


def _compare(q: Any, items: Any, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compare rows of float32 products with an interval.

    Returns:
        The number (R,) of products above `high`, the number (R,) from `low` to `high`, and the row and column (M,) of each of the
        latter, except for rows with more than MOST_OPEN of them.
    """
    scores = _cast(q, "float32") @ items.T
    floor, ceiling = like_of(low[:, None], q), like_of(high[:, None], q)
    above = row_counts(scores > ceiling)
    near = row_counts(scores >= floor) - above
    few_rows = np.flatnonzero((near > 0) & (near <= MOST_OPEN))
    few_index = like_of(few_rows, q)
    part = scores[few_index]
    open_pairs = (part >= floor[few_index]) & (part <= ceiling[few_index])
    i, j = open_pairs.nonzero() if isinstance(open_pairs, np.ndarray) else open_pairs.nonzero(as_tuple=True)
    return above, near, few_rows[as_array(i)], as_array(j)


def _thresholds(own: np.ndarray, q_norm: np.ndarray, g_norm: float, dim: int) -> tuple[np.ndarray, ...]:
    """Return the float32 bounds (low, high), (R,) each, and where they are valid.

    Items with a float32 product below low score less than the truth, and items with a product above high score more.
    """
    n = (dim + 4) * 2.0**-24
    product = q_norm * g_norm
    error = n / (1 - n) * product + dim * 2.0**-126 * (4 + q_norm + g_norm)  # the second term accounts for underflow
    sure = (n < 0.5) & (np.maximum(q_norm, g_norm) < 1e37) & (product < 1e37)  # no sum leaves the range of float32
    below, above = (np.nextafter(own.astype(np.float32), np.float32(end)) for end in (-np.inf, np.inf))
    low, high = (below - error).astype(np.float32), (above + error).astype(np.float32)
    return np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf)), sure


def _norms(x: Any, block: int) -> np.ndarray:
    """Return upper bounds (N,) of the norms in float64; NaN for rows that contain NaN."""
    norms = np.empty(len(x))
    for start in range(0, len(x), block):
        rows = _cast(x[start : start + block], "float64")
        norms[start : start + block] = as_array((rows * rows).sum(1))
    return np.sqrt(norms) * (1 + 1e-6)


def pair_scores(q: Any, g: Any, rows: np.ndarray, columns: np.ndarray, double: bool) -> np.ndarray:
    """Return the scores (M,) of pairs in float64, rounded to float32 unless `double`.

    Terms are summed by halves, so that the score of a pair does not depend on its position.

    Example:
        >>> q, g = np.eye(2, dtype=np.float32), np.array([[1, 0], [2, 1], [1, 0]], np.float32)
        >>> pair_scores(q, g, rows=np.array([0, 1]), columns=np.array([1, 1]), double=False)
        array([2., 1.])
    """
    scores = np.empty(len(rows))
    step = max(1, (2**17 if isinstance(q, np.ndarray) else 2**25) // q.shape[1])
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        terms = _cast(q[like_of(rows[block], q)], "float64") * _cast(g[like_of(columns[block], g)], "float64")
        while terms.shape[1] > 1:
            half = (terms.shape[1] + 1) // 2
            terms[:, : terms.shape[1] - half] += terms[:, half:]
            terms = terms[:, :half]
        scores[block] = as_array(terms[:, 0])
    return scores if double else scores.astype(np.float32).astype(np.float64)


def _ranks_float64(q: Any, g: Any, index: np.ndarray, block: int, double: bool) -> RankCounts:
    """Return the counts of float64 products of all pairs; equal gallery rows are scored once, so that they always tie."""
    first, copy_of = distinct_rows(as_array(g))
    greater, equal = np.empty(len(q), np.int64), np.empty(len(q), np.int64)
    for start in range(0, len(q), block):
        rows = _cast(q[start : start + block], "float64")
        shape, scored_type = (len(rows), len(first)), "float64" if double else "float32"
        scores = (
            np.empty(shape, scored_type) if isinstance(rows, np.ndarray) else _cast(rows.new_empty(shape), scored_type)
        )
        for column in range(0, len(first), block):
            items = _cast(g[like_of(first[column : column + block], g)], "float64")
            scores[:, column : column + block] = rows @ items.T
        scores = scores[:, like_of(copy_of, g)] if len(first) < len(g) else scores
        part = matrix_counts(scores, index[start : start + block], not isinstance(scores, np.ndarray))
        greater[start : start + block], equal[start : start + block] = part.greater, part.equal
    return RankCounts(greater, equal, len(g))
