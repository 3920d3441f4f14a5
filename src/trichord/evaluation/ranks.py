"""Retrieval metrics from scores or embeddings: R@1, R@5, R@10 in percent, median and mean rank.

Q queries, G gallery items, D joint width. For each query two counts say all: `greater`, the gallery items that score
higher than its truth, and `equal`, those that score the same, the truth included.

Ties. `expected` (the default) is what breaking ties at random gives on average: the rank is the mean of the tied
ranks, 1 + greater + (equal - 1) / 2, and the recall at K is clip((K - greater) / equal, 0, 1). A model that scores
everything alike then scores chance exactly: R@K = 100 K / G, MedR = (G + 1) / 2. `best` and `worst` break every tie
for or against the truth. (The published code counted each tied position as a hit: up to 1000 % for R@10.)

NaN. A NaN score is worse than every number; a truth that scores NaN is never a hit, and its rank is G.

Missing queries, those that a benchmark has but that could not be scored (MSR-VTT: 32 of 1,000 clips lack audio).
`drop`: they are left out. `miss`: each is an error in the recalls, and its rank is the size of the full gallery,
G + the missing ones. The published figures count them in the recalls, but their MedR is that of the found ones:
`medr_found`.

Arithmetic of ranks from embeddings. A score is the dot product in float64, rounded to float32 (float64 embeddings: not
rounded), so a truth always ties with itself and with its copies. Most comparisons need less: a float32 product s of rows
q and g, summed in any order, fused or not, is within gamma * |q| |g| of the exact one, gamma = n u / (1 - n u) with
u = 2^-24 and n = D + 4 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; the 4 are the rounding of
the rows and of the bound itself). What that bound leaves open goes through the same filter in float64, or straight to
the sum that defines a score: the float64 products, added by halves. The counts are those of computing every score so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from trichord.errors import TrichordError

Ties = Literal["expected", "best", "worst"]
Missing = Literal["drop", "miss"]
Arithmetic = Literal["filtered", "float64"]

SMALL_WORK = 2e7  # multiply-adds, or scores, below which threads cost more than they bring


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


class RankCounts(NamedTuple):
    """greater (Q,) and equal (Q,), int64, and G. A truth that scores NaN has greater = G and equal = 1."""

    greater: np.ndarray
    equal: np.ndarray
    num_gallery: int


def _array(x: Any) -> np.ndarray:
    """`x` as a NumPy array; a torch tensor is taken without its gradient, half precision as float32."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float().numpy() if str(x.dtype) in ("torch.bfloat16", "torch.float16") else x.numpy()
    return np.asarray(x)


def _truth(truth: Any, num_queries: int, num_gallery: int) -> np.ndarray:
    if truth is None:
        if num_queries != num_gallery:
            raise TrichordError(
                f"{num_queries} queries and {num_gallery} gallery items have no diagonal; give the truth of each query"
            )
        return np.arange(num_queries)
    index = _array(truth).astype(np.int64)
    if index.shape != (num_queries,) or (num_queries and (index.min() < 0 or index.max() >= num_gallery)):
        raise TrichordError(f"truth must hold, for each of {num_queries} queries, an index below {num_gallery}")
    return index


def _counts(scores: Any, truth: np.ndarray) -> RankCounts:
    """Counts of a matrix (Q, G), tile by tile: no other matrix of its size is made."""
    on_gpu = getattr(scores, "is_cuda", False)
    num_queries, num_gallery = scores.shape
    greater, equal = np.empty(num_queries, np.int64), np.empty(num_queries, np.int64)
    rows, columns = (4096, num_gallery) if on_gpu else (64, 2040)

    def count(start: int) -> None:
        part = scores[start : start + rows].detach() if on_gpu else _array(scores[start : start + rows])
        if part.dtype == np.float16:
            part = part.astype(np.float32)
        place = truth[start : start + rows]
        own = part[range(len(place)), place.tolist()][:, None]
        above, same = np.zeros(len(place), np.int64), np.zeros(len(place), np.int64)
        for column in range(0, num_gallery, columns):
            tile = part[:, column : column + columns]
            above += _array(_row_counts(tile > own))
            same += _array(_row_counts(tile == own))
        lost = _array(own != own)[:, 0]
        above[lost], same[lost] = num_gallery, 1
        greater[start : start + rows], equal[start : start + rows] = above, same

    with _threads(0 if on_gpu else num_queries * num_gallery) as each:
        each(count, range(0, num_queries, rows))
    return RankCounts(greater, equal, num_gallery)


def _row_counts(mask: Any) -> Any:
    """How many of each row of a Boolean matrix are true. Eight rows of bytes are added at once where none can overflow."""
    if not isinstance(mask, np.ndarray):
        return mask.sum(1)
    if mask.shape[1] % 8 or mask.shape[1] > 8 * 255 or not mask.flags.c_contiguous:
        return np.count_nonzero(mask, axis=1)
    lanes = np.einsum("ij->i", mask.view(np.uint64))
    return lanes.view(np.uint8).reshape(len(mask), 8).sum(1, dtype=np.int64)


@contextmanager
def _threads(work: float) -> Iterator[Callable[[Callable[[int], None], Iterable[int]], None]]:
    """A function that calls another one for each of some numbers, on as many threads as NumPy's products may use.

    Each product then keeps to its thread: on a busy machine threads that share one wait for the slowest.
    """
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas") if work > SMALL_WORK else None
    count = min([os.cpu_count() or 1, *(info["num_threads"] for info in blas.info())]) if blas else 1
    if blas is None or count == 1:
        yield lambda function, numbers: [function(n) for n in numbers] and None
        return
    from concurrent.futures import ThreadPoolExecutor

    with blas.limit(limits=1), ThreadPoolExecutor(count) as pool:
        yield lambda function, numbers: [*pool.map(function, numbers)] and None


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
        arithmetic: `filtered` as the module describes it; `float64`: a product in float64 for every pair, several times
            slower, memory block * G. The counts are the same.
    """
    if arithmetic not in ("filtered", "float64"):
        raise TrichordError(f"arithmetic cannot be '{arithmetic}'; choose filtered or float64")
    q, g = (x.detach() if getattr(x, "is_cuda", False) else _array(x) for x in (queries, gallery))
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        shapes = f"queries {tuple(q.shape)} and gallery {tuple(g.shape)}"
        raise TrichordError(f"{shapes} must be two matrices of the same width")
    index = _truth(truth, len(q), len(g))
    if arithmetic == "float64" or not q.shape[1]:
        return _ranks_float64(_array(q), _array(g), index, block)
    if isinstance(q, np.ndarray) and isinstance(g, np.ndarray):
        return _ranks_filtered(np, q, g, index, block)
    import torch

    device = next(x.device for x in (q, g) if isinstance(x, torch.Tensor))
    q, g = torch.as_tensor(q, device=device), torch.as_tensor(g, device=device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        return _ranks_filtered(torch, q, g, index, 8 * block)  # a GPU is idle in smaller tiles


def _ranks_float64(q: np.ndarray, g: np.ndarray, index: np.ndarray, block: int) -> RankCounts:
    """Every pair by a float64 product; equal gallery rows are scored once, so that they tie wherever they lie."""
    scored_type = np.float64 if np.result_type(q, g) == np.float64 else np.float32
    first, copy_of = _distinct_rows(g)
    greater, equal = np.empty(len(q), np.int64), np.empty(len(q), np.int64)
    for start in range(0, len(q), block):
        rows = q[start : start + block].astype(np.float64)
        scores = np.empty((len(rows), len(first)), scored_type)
        for column in range(0, len(first), block):
            with np.errstate(all="ignore"):  # infinite embeddings give NaN scores, which have their rule
                scores[:, column : column + block] = rows @ g[first[column : column + block]].astype(np.float64).T
        if len(first) < len(g):
            scores = scores[:, copy_of]
        part = _counts(scores, index[start : start + block])
        greater[start : start + block], equal[start : start + block] = part.greater, part.equal
    return RankCounts(greater, equal, len(g))


def _distinct_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index of the first of each set of equal rows, for each row its place in that list)."""
    places: dict[bytes, int] = {}
    first: list[int] = []
    copy_of = np.empty(len(x), np.int64)
    for i, row in enumerate(x):
        key = (row + 0).tobytes()  # + 0 makes -0.0 into 0.0
        if key not in places:
            places[key] = len(first)
            first.append(i)
        copy_of[i] = places[key]
    return np.array(first, np.int64), copy_of


def metrics_from_counts(
    counts: RankCounts, *, ties: Ties = "expected", num_missing: int = 0, missing: Missing = "miss"
) -> RetrievalMetrics:
    """The metrics from the counts of `retrieval_ranks`; the policies are those of the module."""
    if ties not in ("expected", "best", "worst"):
        raise TrichordError(f"ties cannot be '{ties}'; choose expected, best or worst")
    if missing not in ("drop", "miss"):
        raise TrichordError(f"missing cannot be '{missing}'; choose drop or miss")
    greater, equal, num_gallery = counts
    if not len(greater):
        raise TrichordError("there is no query to score")
    if ties == "best":
        equal = np.ones_like(equal)
    elif ties == "worst":
        greater, equal = greater + equal - 1, np.ones_like(equal)
    ranks = np.minimum(1 + greater + (equal - 1) / 2, num_gallery)
    medr_found = float(np.median(ranks))
    num_queries = len(ranks)
    if missing == "miss":
        ranks = np.concatenate([ranks, np.full(num_missing, float(num_gallery + num_missing))])
        num_queries += num_missing

    def recall(k: int) -> float:
        # min: a truth that scores NaN is no hit even where K covers the gallery.
        hits = np.clip((min(k, num_gallery) - greater) / equal, 0.0, 1.0)
        return float(100.0 * hits.sum() / num_queries)

    return RetrievalMetrics(
        recall(1), recall(5), recall(10), float(np.median(ranks)), float(ranks.mean()), medr_found,
        num_queries, num_gallery, num_missing,
    )  # fmt: skip


def retrieval_metrics(
    scores: Any,
    *,
    truth: Any = None,
    ties: Ties = "expected",
    num_missing: int = 0,
    missing: Missing = "miss",
) -> RetrievalMetrics:
    """Metrics of a matrix of scores (Q, G), NumPy or torch: rows are queries, larger is better.

    Args:
        scores: (Q, G).
        truth: (Q,) column of each row's right answer; None: the diagonal of a square matrix.
        ties: `expected`, `best` or `worst` (see the module).
        num_missing: queries of the benchmark that could not be scored.
        missing: `drop` or `miss` (see the module).
    """
    matrix = scores if hasattr(scores, "detach") else np.asarray(scores)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise TrichordError(f"scores must be a matrix of queries by gallery, not of shape {tuple(matrix.shape)}")
    counts = _counts(matrix, _truth(truth, *matrix.shape))
    return metrics_from_counts(counts, ties=ties, num_missing=num_missing, missing=missing)


def chance_recall(k: int, num_gallery: int) -> float:
    """The R@k, in percent, of ranking at random."""
    if num_gallery < 1:
        raise TrichordError("an empty gallery has no chance level")
    return 100.0 * min(k, num_gallery) / num_gallery
