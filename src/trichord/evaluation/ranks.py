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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.counts import (
    BestCounts,
    RankCounts,
    as_array,
    best_of,
    like_of,
    matrix_counts,
)
from trichord.evaluation.products import Arithmetic, pair_scores, product_counts

Ties = Literal["expected", "best", "worst"]
Missing = Literal["drop", "miss"]


class Recall(NamedTuple):
    """A recall in results.

    Attributes:
        measure: Name in tables, such as `R@5`.
        field: Name of the field in results, such as `r5`.
        k: K of the recall.

    Example:
        >>> [recall.measure for recall in RECALLS], RECALLS[1].field
        (['R@1', 'R@5', 'R@10'], 'r5')
    """

    measure: str
    field: str
    k: int


RECALLS = tuple(Recall(f"R@{k}", f"r{k}", k) for k in (1, 5, 10))
MEDIAN_RANK = "MedR"


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

    Example:
        >>> metrics = retrieval_metrics(np.array([[0.9, 0.1], [0.8, 0.3]]))
        >>> metrics.r1, metrics.medr, metrics.num_queries
        (50.0, 1.5, 2)
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
        arithmetic: `filtered`, as described in `evaluation.products`, or `float64` for all pairs, which is several times slower.
            Both give the same counts.

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
    return product_counts(like_of(q, like), like_of(g, like), index, block, arithmetic)


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

    Example:
        >>> captions = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])  # the first two describe clip 0
        >>> counts = best_truth_ranks(np.eye(2), captions, owner=np.array([0, 0, 1]))
        >>> counts.greater, counts.truths
        (array([0, 0]), array([1, 1]))
    """
    q, g = as_array(queries), as_array(gallery)
    index = as_array(owner).astype(np.int64)
    if index.shape != (len(g),) or not np.array_equal(np.unique(index), np.arange(len(q))):
        raise TrichordError(
            f"owner must contain one of {len(q)} queries for each of {len(g)} gallery items, and every query must occur"
        )
    double = np.result_type(q.dtype, g.dtype) == np.float64
    with np.errstate(all="ignore"):
        own = pair_scores(q, g, index, np.arange(len(g)), double)
    best, truths = best_of(index, own, len(q))
    counts = retrieval_ranks(queries, gallery, best, block, arithmetic)
    return BestCounts(counts.greater, counts.equal, np.minimum(truths, counts.equal), counts.num_gallery)


def expected_hits(k: int, greater: np.ndarray, equal: np.ndarray, truths: Any = None) -> np.ndarray:
    """Return the probability (Q,) that a truth is among the first `k` if ties are broken at random.

    Args:
        k: Number of items.
        greater: (Q,) number of items that score higher than the (best) truth.
        equal: (Q,) number of items with the same score as the truth, including itself.
        truths: (Q,) number of truths among the `equal` items, as in `BestCounts`; None for one truth per query.

    Example:
        >>> expected_hits(1, greater=np.array([0, 0, 3]), equal=np.array([1, 4, 1]))
        array([1.  , 0.25, 0.  ])
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

    Example:
        >>> expected_ranks(greater=np.array([0, 0, 3]), equal=np.array([1, 4, 1]), num_gallery=10)
        array([1. , 2.5, 4. ])
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

    Example:
        >>> counts = retrieval_ranks(np.eye(3), np.eye(3))
        >>> print(metrics_from_counts(counts, num_missing=1, missing="miss"))
        R@1 75.0  R@5 75.0  R@10 75.0  MedR 1  MeanR 1.8  (4 queries, gallery of 3, 1 missing)
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
