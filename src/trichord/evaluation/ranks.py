"""Retrieval metrics from scores or embeddings: R@1, R@5, R@10 in percent, median and mean rank.

Q queries, G gallery items, D joint width. For each query two counts say all: `greater`, the gallery items that score
higher than its truth, and `equal`, those that score the same, the truth included.

Ties. `expected` (the default) is what breaking ties at random gives on average: the rank is the mean of the tied
ranks, 1 + greater + (equal - 1) / 2, and the recall at K is clip((K - greater) / equal, 0, 1). A model that scores
everything alike then scores chance exactly: R@K = 100 K / G, MedR = (G + 1) / 2. `best` and `worst` break every tie
for or against the truth. (The published code counted each tied position as a hit: up to 1000 % for R@10.)

Several truths. A query with several right answers (a clip with twenty captions) has the rank of the best of them:
`greater` are the items above that one, none of which is a truth. Where `equal` items tie with it, of which t are truths,
the expected rank of the first truth is greater + (equal + 1) / (t + 1), and the expected recall at K one minus the chance
that no truth is among K - greater of the tied; with t = 1 both are the formulas above.

NaN. A NaN score is worse than every number; a truth that scores NaN is never a hit, and its rank is G.

Missing queries, those that a benchmark has but that could not be scored (MSR-VTT: 32 of 1,000 clips lack audio).
`drop`: they are left out. `miss`: each is an error in the recalls, and its rank is the size of the full gallery,
G + the missing ones. The published figures count them in the recalls, but their MedR is that of the found ones:
`medr_found`.

Arithmetic of ranks from embeddings. A score is the dot product in float64, rounded to float32 (float64 embeddings: not
rounded), so a truth always ties with itself and with its copies. Most comparisons need less: a float32 product of rows
q and g, summed in any order, fused or not, is within gamma * |q| |g| of the exact one, gamma = n u / (1 - n u) with
u = 2^-24 and n = D + 4 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; the 4 are the rounding of
the rows and of the bound itself). Only pairs that this leaves open are scored in float64, by one fixed order of sums.
Queries with many of them, and rows that are infinite or near the range of float32, are compared in float64 throughout.
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
    """A recall that is reported: how it is printed, its field in figures, and K."""

    measure: str
    field: str
    k: int


RECALLS = tuple(Recall(f"R@{k}", f"r{k}", k) for k in (1, 5, 10))
MEDIAN_RANK = "MedR"
MOST_OPEN = 128  # pairs of a query and a tile that are scored one by one; with more, float64 throughout is cheaper


@dataclass(frozen=True)
class RetrievalMetrics:
    """r1, r5, r10: recalls in percent. medr, meanr: median and mean rank, 1 is best. medr_found: median rank of the
    queries that were scored. num_queries: the denominator of the recalls (with the missing ones under `miss`).
    num_gallery: items that were ranked. num_missing: queries that could not be scored."""

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
                f"{num_queries} queries and {num_gallery} gallery items have no diagonal; give the truth of each query"
            )
        return np.arange(num_queries)
    index = as_array(truth).astype(np.int64)
    if index.shape != (num_queries,) or (num_queries and (index.min() < 0 or index.max() >= num_gallery)):
        raise TrichordError(f"truth must hold, for each of {num_queries} queries, an index below {num_gallery}")
    return index


def _cast(x: Any, name: str) -> Any:
    """`x`, NumPy or torch, as float32 or float64; itself where it is so already."""
    if isinstance(x, np.ndarray):
        return x.astype(name, copy=False)
    return x.double() if name == "float64" else x.float()


def retrieval_ranks(
    queries: Any, gallery: Any, truth: Any = None, block: int = 1024, arithmetic: Arithmetic = "filtered"
) -> RankCounts:
    """Counts from embeddings compared by dot product, without the Q x G matrix: memory grows as Q + G.

    CUDA tensors are ranked on their device, all else by NumPy, on as many threads as its products use.

    Args:
        queries: (Q, D), NumPy or torch.
        gallery: (G, D).
        truth: (Q,) index of each query's gallery item; None: the diagonal, Q = G.
        block: queries, and gallery items, at a time at most.
        arithmetic: `filtered`, as the module describes it; `float64`: every pair in float64, several times slower. The
            counts are the same.
    """
    if arithmetic not in ("filtered", "float64"):
        raise TrichordError(f"arithmetic cannot be '{arithmetic}'; choose filtered or float64")
    q, g = (x.detach() if getattr(x, "is_cuda", False) else as_array(x) for x in (queries, gallery))
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        shapes = f"queries {tuple(q.shape)} and gallery {tuple(g.shape)}"
        raise TrichordError(f"{shapes} must be two matrices of the same width")
    index = _truth(truth, len(q), len(g))
    like = g if isinstance(q, np.ndarray) else q
    return _ranks(like_of(q, like), like_of(g, like), index, block, arithmetic)


def best_truth_ranks(
    queries: Any, gallery: Any, owner: Any, block: int = 1024, arithmetic: Arithmetic = "filtered"
) -> BestCounts:
    """Counts where a query has several truths; memory grows as Q + G, as that of `retrieval_ranks`.

    Args:
        queries: (Q, D), NumPy or torch.
        gallery: (G, D).
        owner: (G,) the query that each gallery item is a truth of; every query has one or more.
        block, arithmetic: as of `retrieval_ranks`.
    """
    q, g = as_array(queries), as_array(gallery)
    index = as_array(owner).astype(np.int64)
    if index.shape != (len(g),) or not np.array_equal(np.unique(index), np.arange(len(q))):
        raise TrichordError(
            f"owner must hold, for each of {len(g)} gallery items, one of {len(q)} queries; none without"
        )
    double = np.result_type(q.dtype, g.dtype) == np.float64
    with np.errstate(all="ignore"):
        own = _pair_scores(q, g, index, np.arange(len(g)), double)
    best, truths = best_of(index, own, len(q))
    counts = retrieval_ranks(queries, gallery, best, block, arithmetic)
    return BestCounts(counts.greater, counts.equal, np.minimum(truths, counts.equal), counts.num_gallery)


def _ranks(q: Any, g: Any, index: np.ndarray, block: int, arithmetic: Arithmetic) -> RankCounts:
    """Both arrays or both tensors of one device."""
    types = [str(x.dtype).removeprefix("torch.").replace("bfloat16", "float16") for x in (q, g)]
    double = np.result_type(*types) == np.float64
    counts, rest = RankCounts(np.empty(len(q), np.int64), np.empty(len(q), np.int64), len(g)), np.arange(len(q))
    with (
        np.errstate(all="ignore"),
        _float32_products(q) as exact,
    ):  # infinite rows give NaN scores, which have their rule
        if exact and arithmetic == "filtered" and q.shape[1] and len(q):
            counts, rest = _filter(q, g, index, block, double)
        if len(rest):
            part = q if len(rest) == len(q) else q[like_of(rest, q)]
            slow = _ranks_float64(part, g, index[rest], block, double)
            counts.greater[rest], counts.equal[rest] = slow.greater, slow.equal
    return counts


@contextmanager
def _float32_products(x: Any) -> Iterator[bool]:
    """Torch's products of float32 rows as they should be, without TF32, bfloat16 or autocast. False: it cannot be set."""
    if isinstance(x, np.ndarray):
        yield True
        return
    import torch

    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set through the two interfaces of torch at once
        yield False
        return
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            yield True
    finally:
        torch.set_float32_matmul_precision(before)


def _filter(q: Any, g: Any, index: np.ndarray, block: int, double: bool) -> tuple[RankCounts, np.ndarray]:
    """The counts, and the queries (M,) that they do not hold for: those need float64 throughout."""
    own = _pair_scores(q, g, np.arange(len(q)), index, double)
    q_norm, g_norm = _norms(q, block), _norms(g, block)
    order = np.argsort(g_norm)  # alike norms in a tile: the bound of each is its largest; NaN last
    order = order[: len(g) - np.count_nonzero(np.isnan(g_norm))]  # what scores NaN neither wins nor ties
    greater, equal, lost = np.zeros(len(q), np.int64), np.zeros(len(q), np.int64), np.isnan(own)
    settled = ~lost
    rows, width = (max(1, block // 2), min(block, 1024)) if isinstance(q, np.ndarray) else (8 * block, 8 * block)

    def tile(first: int, columns: np.ndarray, items: Any) -> None:
        here = slice(first, first + rows)
        low, high, sure = _thresholds(own[here], q_norm[here], g_norm[columns[-1]], q.shape[1])
        settled[here] &= sure
        if not settled[here].any():
            return
        above, near, i, j = _compare(q[here], items, low, high)
        scores, mine = _pair_scores(q, g, first + i, columns[j], double), own[first + i]
        settled[here] &= near <= MOST_OPEN
        greater[here] += above + np.bincount(i[scores > mine], minlength=len(low))
        equal[here] += np.bincount(i[scores == mine], minlength=len(low))

    with threads(len(q) * len(g) * q.shape[1] / 60) as each:
        for start in range(0, len(order), width):
            columns = order[start : start + width]
            items = _cast(g[like_of(columns, g)], "float32")
            each(partial(tile, columns=columns, items=items), range(0, len(q), rows))
    greater[lost], equal[lost] = len(g), 1
    return RankCounts(greater, equal, len(g)), np.flatnonzero(~(settled | lost))


def _compare(q: Any, items: Any, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """(above `high` (R,), from `low` to `high` (R,), row and column of each of these, (M,)); rows with many give none."""
    scores = _cast(q, "float32") @ items.T
    floor, ceiling = like_of(low[:, None], q), like_of(high[:, None], q)
    above = row_counts(scores > ceiling)
    near = row_counts(scores >= floor) - above
    few = np.flatnonzero((near > 0) & (near <= MOST_OPEN))
    at = like_of(few, q)
    part = scores[at]
    open_pairs = (part >= floor[at]) & (part <= ceiling[at])
    i, j = open_pairs.nonzero() if isinstance(open_pairs, np.ndarray) else open_pairs.nonzero(as_tuple=True)
    return above, near, few[as_array(i)], as_array(j)


def _thresholds(own: np.ndarray, q_norm: np.ndarray, g_norm: float, dim: int) -> tuple[np.ndarray, ...]:
    """(low, high (R,), float32): products below low score less than own, those above high more; and where that holds."""
    n = (dim + 4) * 2.0**-24
    product = q_norm * g_norm
    error = n / (1 - n) * product + dim * 2.0**-126 * (4 + q_norm + g_norm)  # the second term: underflow
    sure = (n < 0.5) & (np.maximum(q_norm, g_norm) < 1e37) & (product < 1e37)  # no sum leaves float32's range
    below, above = (np.nextafter(own.astype(np.float32), np.float32(end)) for end in (-np.inf, np.inf))
    low, high = (below - error).astype(np.float32), (above + error).astype(np.float32)
    return np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf)), sure


def _norms(x: Any, block: int) -> np.ndarray:
    """(N,) upper bounds of the norms, float64; NaN for rows with a NaN."""
    norms = np.empty(len(x))
    for start in range(0, len(x), block):
        rows = _cast(x[start : start + block], "float64")
        norms[start : start + block] = as_array((rows * rows).sum(1))
    return np.sqrt(norms) * (1 + 1e-6)


def _pair_scores(q: Any, g: Any, rows: np.ndarray, columns: np.ndarray, double: bool) -> np.ndarray:
    """(M,) scores of pairs, float64, rounded to float32 unless `double`: sums by halves, the same wherever a pair is."""
    scores = np.empty(len(rows))
    step = max(1, (2**17 if isinstance(q, np.ndarray) else 2**25) // q.shape[1])
    for start in range(0, len(rows), step):
        here = slice(start, start + step)
        terms = _cast(q[like_of(rows[here], q)], "float64") * _cast(g[like_of(columns[here], g)], "float64")
        while terms.shape[1] > 1:
            half = (terms.shape[1] + 1) // 2
            terms[:, : terms.shape[1] - half] += terms[:, half:]
            terms = terms[:, :half]
        scores[here] = as_array(terms[:, 0])
    return scores if double else scores.astype(np.float32).astype(np.float64)


def _ranks_float64(q: Any, g: Any, index: np.ndarray, block: int, double: bool) -> RankCounts:
    """Every pair by a float64 product; equal gallery rows are scored once, so that they tie wherever they lie."""
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
    """(Q,) the chance that a truth is among the first `k`, ties broken at random. truths: None, or as of `BestCounts`."""
    if truths is None:
        return np.clip((k - greater) / equal, 0.0, 1.0)
    first = np.clip(k - greater, 0, equal)
    none = np.ones(len(equal))
    for i in range(int(truths.max(initial=0))):
        left = np.maximum(equal - i, 1)
        none = np.where(i < truths, none * np.maximum(equal - first - i, 0) / left, none)
    return 1.0 - none


def expected_ranks(
    greater: np.ndarray, equal: np.ndarray, num_gallery: int, truths: np.ndarray | None = None
) -> np.ndarray:
    """(Q,) ranks of the truth, from 1, over the orders of the tied; of several `truths` that of the first one. A truth that
    scores NaN has the last rank."""
    ranks = 1 + greater + (equal - 1) / 2 if truths is None else greater + (equal + 1) / (truths + 1)
    return np.minimum(ranks, num_gallery)


def metrics_from_counts(
    counts: RankCounts | BestCounts, *, ties: Ties = "expected", num_missing: int = 0, missing: Missing = "miss"
) -> RetrievalMetrics:
    """The metrics from the counts of `retrieval_ranks` or `best_truth_ranks`; the policies are those of the module."""
    if ties not in ("expected", "best", "worst"):
        raise TrichordError(f"ties cannot be '{ties}'; choose expected, best or worst")
    if missing not in ("drop", "miss"):
        raise TrichordError(f"missing cannot be '{missing}'; choose drop or miss")
    greater, equal, num_gallery = counts.greater, counts.equal, counts.num_gallery
    truths = counts.truths if isinstance(counts, BestCounts) else None
    if not len(greater):
        raise TrichordError("there is no query to score")
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
        # min: a truth that scores NaN is no hit even where K covers the gallery.
        hits = expected_hits(min(k, num_gallery), greater, equal, truths)
        return float(100.0 * hits.sum() / num_queries)

    return RetrievalMetrics(
        recall(1), recall(5), recall(10), float(np.median(ranks)), float(ranks.mean()), medr_found,
        num_queries, num_gallery, num_missing,
    )  # fmt: skip


def retrieval_metrics(
    scores: Any, *, truth: Any = None, ties: Ties = "expected", num_missing: int = 0, missing: Missing = "miss"
) -> RetrievalMetrics:
    """Metrics of a matrix of scores (Q, G), NumPy or torch: rows are queries, larger is better.

    Args:
        scores: (Q, G).
        truth: (Q,) column of each row's right answer; None: the diagonal of a square matrix.
        ties: `expected`, `best` or `worst` (see the module).
        num_missing: queries of the benchmark that could not be scored.
        missing: `drop` or `miss` (see the module).
    """
    matrix = scores.detach() if hasattr(scores, "detach") else np.asarray(scores)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise TrichordError(f"scores must be a matrix of queries by gallery, not of shape {tuple(matrix.shape)}")
    counts = matrix_counts(matrix, _truth(truth, *matrix.shape), getattr(matrix, "is_cuda", False))
    return metrics_from_counts(counts, ties=ties, num_missing=num_missing, missing=missing)


def chance_recall(k: int, num_gallery: int, num_truths: Any = 1) -> float:
    """The R@k, in percent, of ranking at random. num_truths: right answers of a query, or of each query (Q,)."""
    if num_gallery < 1:
        raise TrichordError("an empty gallery has no chance level")
    truths = np.atleast_1d(np.asarray(num_truths, np.int64))
    if (truths == 1).all():
        return 100.0 * min(k, num_gallery) / num_gallery
    every = np.full(len(truths), num_gallery, np.int64)
    return float(100.0 * expected_hits(min(k, num_gallery), np.zeros_like(every), every, truths).mean())
