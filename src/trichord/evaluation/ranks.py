"""Retrieval metrics from scores or embeddings: R@1, R@5, R@10 in percent, median and mean rank.

Q queries, G gallery items, D joint width. Two counts per query determine all metrics: `greater`, the number of gallery items that
score higher than its truth, and `equal`, the number with the same score, including the truth.

Ties. `expected` (the default) is the expected value if ties are broken at random: the rank is the mean of the tied ranks, 1 +
greater + (equal - 1) / 2, and the recall at K is clip((K - greater) / equal, 0, 1). A model that gives all items the same score
then has exactly the chance level: R@K = 100 K / G, MedR = (G + 1) / 2. `best` and `worst` break every tie for or against the
truth. (The published code counted each tied position as a hit, which gave up to 1000 % for R@10.)

Several truths. A query with several right answers (a clip with twenty captions) has the rank of the best of them: `greater` counts
the items above this one, none of which is a truth. If `equal` items tie with it, t of them truths, the expected rank of the first
truth is greater + (equal + 1) / (t + 1), and the expected recall at K is one minus the probability that no truth is among K -
greater of the tied items. With t = 1, both are the formulas above.

NaN. A NaN score is lower than every number. A truth that scores NaN is never a hit, and its rank is G.

Missing queries belong to a benchmark but could not be scored (MSR-VTT: 32 of 1,000 clips lack audio). `drop` excludes them. `miss`
counts each as an error in the recalls and gives it the rank of the last item of the full gallery, G + number of missing queries.
The published figures count them in the recalls, but their MedR is over the queries that were scored: `medr_found`.

Arithmetic of ranks from embeddings. A score is the dot product in float64, rounded to float32 (not rounded for float64
embeddings), so that a truth always ties with itself and with its copies. Most comparisons need less precision: a float32 product
of rows q and g, summed in any order, fused or not, differs from the exact product by at most gamma * |q| |g|, where gamma = n u /
(1 - n u), u = 2^-24 and n = D + 4 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; the 4 accounts for the
rounding of the rows and of the bound itself). Only pairs that remain undecided are scored in float64, with a fixed summation
order. Queries with many such pairs, and rows that are infinite or close to the range of float32, are compared in float64
throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.counts import (
    BestCounts,
    RankCounts,
    as_array,
    best_of,
    distinct_rows,
    like_of,
    matrix_counts,
    row_counts,
    threads,
)

Ties = Literal["expected", "best", "worst"]
Missing = Literal["drop", "miss"]
Arithmetic = Literal["filtered", "float64"]


class Recall(NamedTuple):
    """A recall in results.

    Attributes:
        measure: Name in tables, such as `R@5`.
        field: Name of the field in results, such as `r5`.
        k: K of the recall.
    """

    measure: str
    field: str
    k: int


RECALLS = tuple(Recall(f"R@{k}", f"r{k}", k) for k in (1, 5, 10))
MEDIAN_RANK = "MedR"
MOST_OPEN = 128  # largest number of undecided pairs of a query in a tile; with more, float64 throughout is faster


@dataclass(frozen=True)
class RetrievalMetrics:
    """Retrieval metrics of one direction.

    Attributes:
        r1: Recall at 1 in percent.
        r5: Recall at 5 in percent.
        r10: Recall at 10 in percent.
        medr: Median rank; 1 is best.
        meanr: Mean rank; 1 is best.
        medr_found: Median rank of the queries that were scored.
        num_queries: Denominator of the recalls, which includes missing queries under `miss`.
        num_gallery: Number of items that were ranked.
        num_missing: Number of queries that could not be scored.
    """

    r1: float
    r5: float
    r10: float
    medr: float
    meanr: float
    medr_found: float
    num_queries: int
    num_gallery: int
    num_missing: int = 0

    def __str__(self) -> str:
        missing = f", {self.num_missing} missing" if self.num_missing else ""
        return (
            f"R@1 {self.r1:.1f}  R@5 {self.r5:.1f}  R@10 {self.r10:.1f}  MedR {self.medr:g}  MeanR {self.meanr:.1f}  "
            f"({self.num_queries} queries, gallery of {self.num_gallery}{missing})"
        )


def _truth(truth: Any, num_queries: int, num_gallery: int) -> np.ndarray:
    if truth is None:
        if num_queries != num_gallery:
            raise TrichordError(
                f"there are {num_queries} queries and {num_gallery} gallery items, so the truth cannot be the diagonal; give the "
                "gallery index of each query in `truth`"
            )
        return np.arange(num_queries)
    index = as_array(truth).astype(np.int64)
    if index.shape != (num_queries,) or (num_queries and (index.min() < 0 or index.max() >= num_gallery)):
        raise TrichordError(
            f"truth must contain an index from 0 to {num_gallery - 1} for each of {num_queries} queries"
        )
    return index


def _cast(x: Any, name: str) -> Any:
    """Return `x`, an array or tensor, as float32 or float64, without a copy if it already has this type."""
    if isinstance(x, np.ndarray):
        return x.astype(name, copy=False)
    return x.double() if name == "float64" else x.float()


def retrieval_ranks(
    queries: Any, gallery: Any, truth: Any = None, block: int = 1024, arithmetic: Arithmetic = "filtered"
) -> RankCounts:
    """Return the counts of embeddings that are compared by dot product, without allocating the Q x G matrix.

    Memory grows as Q + G. CUDA tensors are ranked on their device, and everything else with NumPy, on as many threads as it uses
    for matrix products.

    Args:
        queries: (Q, D) array or tensor.
        gallery: (G, D) array or tensor.
        truth: (Q,) gallery index of each query; None for the diagonal, if Q = G.
        block: Largest number of queries, and of gallery items, that are processed at a time.
        arithmetic: `filtered`, as described in the module, or `float64` for all pairs, which is several times slower. Both give
            the same counts.

    Returns:
        For each query the number of gallery items with a higher score than its truth, and the number with the same score.

    Raises:
        TrichordError: The shapes do not fit together, or an argument is unknown.

    Example:
        >>> counts = retrieval_ranks(np.eye(3), np.array([[1.0, 0, 0], [1.0, 2, 0], [0, 3.0, 1]]))
        >>> counts.greater.tolist(), counts.equal.tolist()
        ([0, 1, 0], [2, 1, 1])
        >>> metrics_from_counts(counts).r5
        100.0
    """
    if arithmetic not in ("filtered", "float64"):
        raise TrichordError(f"unknown arithmetic '{arithmetic}'; expected 'filtered' or 'float64'")
    q, g = (x.detach() if getattr(x, "is_cuda", False) else as_array(x) for x in (queries, gallery))
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        shapes = f"{tuple(q.shape)} and {tuple(g.shape)}"
        raise TrichordError(f"queries and gallery must be matrices of the same width, but their shapes are {shapes}")
    index = _truth(truth, len(q), len(g))
    like = g if isinstance(q, np.ndarray) else q
    return _ranks(like_of(q, like), like_of(g, like), index, block, arithmetic)


def best_truth_ranks(
    queries: Any, gallery: Any, owner: Any, block: int = 1024, arithmetic: Arithmetic = "filtered"
) -> BestCounts:
    """Return the counts of queries that may have several truths; memory grows as Q + G.

    Args:
        queries: (Q, D) array or tensor.
        gallery: (G, D) array or tensor.
        owner: (G,) query that each gallery item is a truth of; every query has at least one.
        block: As in `retrieval_ranks`.
        arithmetic: As in `retrieval_ranks`.

    Raises:
        TrichordError: The shapes do not fit together, or a query has no truth.
    """
    q, g = as_array(queries), as_array(gallery)
    index = as_array(owner).astype(np.int64)
    if index.shape != (len(g),) or not np.array_equal(np.unique(index), np.arange(len(q))):
        raise TrichordError(
            f"owner must contain one of {len(q)} queries for each of {len(g)} gallery items, and every query must occur"
        )
    double = np.result_type(q.dtype, g.dtype) == np.float64
    with np.errstate(all="ignore"):
        own = _pair_scores(q, g, index, np.arange(len(g)), double)
    best, truths = best_of(index, own, len(q))
    counts = retrieval_ranks(queries, gallery, best, block, arithmetic)
    return BestCounts(counts.greater, counts.equal, np.minimum(truths, counts.equal), counts.num_gallery)


def _ranks(q: Any, g: Any, index: np.ndarray, block: int, arithmetic: Arithmetic) -> RankCounts:
    """Return the counts of two arrays, or of two tensors on the same device."""
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
    own = _pair_scores(q, g, np.arange(len(q)), index, double)
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
        scores, truth_scores = _pair_scores(q, g, first + i, columns[j], double), own[first + i]
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


def _pair_scores(q: Any, g: Any, rows: np.ndarray, columns: np.ndarray, double: bool) -> np.ndarray:
    """Return the scores (M,) of pairs in float64, rounded to float32 unless `double`.

    Terms are summed by halves, so that the score of a pair does not depend on its position.
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


def expected_hits(k: int, greater: np.ndarray, equal: np.ndarray, truths: Any = None) -> np.ndarray:
    """Return the probability (Q,) that a truth is among the first `k` if ties are broken at random.

    Args:
        k: Number of items.
        greater: (Q,) number of items that score higher than the (best) truth.
        equal: (Q,) number of items with the same score as the truth, including itself.
        truths: (Q,) number of truths among the `equal` items, as in `BestCounts`; None for one truth per query.
    """
    if truths is None:
        return np.clip((k - greater) / equal, 0.0, 1.0)
    num_drawn = np.clip(k - greater, 0, equal)
    probability_of_none = np.ones(len(equal))
    for i in range(int(truths.max(initial=0))):
        num_left = np.maximum(equal - i, 1)
        probability_of_none = np.where(
            i < truths, probability_of_none * np.maximum(equal - num_drawn - i, 0) / num_left, probability_of_none
        )
    return 1.0 - probability_of_none


def expected_ranks(
    greater: np.ndarray, equal: np.ndarray, num_gallery: int, truths: np.ndarray | None = None
) -> np.ndarray:
    """Return the expected ranks (Q,) of the truth, from 1, if ties are broken at random.

    A truth that scores NaN has the last rank.

    Args:
        greater: (Q,) number of items that score higher than the (best) truth.
        equal: (Q,) number of items with the same score as the truth, including itself.
        num_gallery: Number G of items.
        truths: (Q,) number of truths among the `equal` items; the rank then is that of the first one. None for one truth per
            query.
    """
    ranks = 1 + greater + (equal - 1) / 2 if truths is None else greater + (equal + 1) / (truths + 1)
    return np.minimum(ranks, num_gallery)


def metrics_from_counts(
    counts: RankCounts | BestCounts, *, ties: Ties = "expected", num_missing: int = 0, missing: Missing = "miss"
) -> RetrievalMetrics:
    """Return the metrics of the counts of `retrieval_ranks` or `best_truth_ranks`.

    Args:
        counts: The counts of Q queries.
        ties: `expected`, `best` or `worst`, as described in the module.
        num_missing: Number of queries of the benchmark that could not be scored.
        missing: `drop` or `miss`, as described in the module.

    Raises:
        TrichordError: There is no query, or an argument is unknown.
    """
    if ties not in ("expected", "best", "worst"):
        raise TrichordError(f"unknown tie policy '{ties}'; expected 'expected', 'best' or 'worst'")
    if missing not in ("drop", "miss"):
        raise TrichordError(f"unknown policy for missing queries '{missing}'; expected 'drop' or 'miss'")
    greater, equal, num_gallery = counts.greater, counts.equal, counts.num_gallery
    truths = counts.truths if isinstance(counts, BestCounts) else None
    if not len(greater):
        raise TrichordError("there are no queries to score; give at least one")
    if ties == "best":
        equal, truths = np.ones_like(equal), None
    elif ties == "worst":
        greater, equal, truths = greater + equal - (1 if truths is None else truths), np.ones_like(equal), None
    ranks = expected_ranks(greater, equal, num_gallery, truths)
    medr_found = float(np.median(ranks))
    num_queries = len(ranks)
    if missing == "miss":
        ranks = np.concatenate([ranks, np.full(num_missing, float(num_gallery + num_missing))])
        num_queries += num_missing

    def recall(k: int) -> float:
        # The minimum keeps a truth that scores NaN from being a hit if K covers the gallery.
        hits = expected_hits(min(k, num_gallery), greater, equal, truths)
        return float(100.0 * hits.sum() / num_queries)

    return RetrievalMetrics(
        recall(1), recall(5), recall(10), float(np.median(ranks)), float(ranks.mean()), medr_found,
        num_queries, num_gallery, num_missing,
    )  # fmt: skip


def retrieval_metrics(
    scores: Any, *, truth: Any = None, ties: Ties = "expected", num_missing: int = 0, missing: Missing = "miss"
) -> RetrievalMetrics:
    """Return the metrics of a matrix of scores, where rows are queries and larger scores are better.

    Args:
        scores: (Q, G) array or tensor.
        truth: (Q,) column of the right answer of each row; None for the diagonal of a square matrix.
        ties: `expected`, `best` or `worst`, as described in the module.
        num_missing: Number of queries of the benchmark that could not be scored.
        missing: `drop` or `miss`, as described in the module.

    Returns:
        Recalls at 1, 5 and 10 in percent, and the median and mean rank.

    Raises:
        TrichordError: The scores are not a matrix, or `truth` does not fit it.

    Example:
        >>> scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.0, 0.4, 0.7]])
        >>> print(retrieval_metrics(scores))
        R@1 66.7  R@5 100.0  R@10 100.0  MedR 1  MeanR 1.3  (3 queries, gallery of 3)
    """
    matrix = scores.detach() if hasattr(scores, "detach") else np.asarray(scores)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise TrichordError(
            f"scores must be a matrix with the shape (queries, gallery), but their shape is {tuple(matrix.shape)}"
        )
    counts = matrix_counts(matrix, _truth(truth, *matrix.shape), getattr(matrix, "is_cuda", False))
    return metrics_from_counts(counts, ties=ties, num_missing=num_missing, missing=missing)


def chance_recall(k: int, num_gallery: int, num_truths: Any = 1) -> float:
    """Return the R@k in percent of ranking at random.

    Args:
        k: K of the recall.
        num_gallery: Number of items in the gallery.
        num_truths: Number of right answers, of all queries or of each query (Q,).

    Raises:
        TrichordError: The gallery is empty.

    Example:
        >>> chance_recall(5, 200)
        2.5
    """
    if num_gallery < 1:
        raise TrichordError("the chance level is not defined for an empty gallery; give at least one item")
    truths = np.atleast_1d(np.asarray(num_truths, np.int64))
    if (truths == 1).all():
        return 100.0 * min(k, num_gallery) / num_gallery
    every = np.full(len(truths), num_gallery, np.int64)
    return float(100.0 * expected_hits(min(k, num_gallery), np.zeros_like(every), every, truths).mean())
