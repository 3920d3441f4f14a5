"""Counts of gallery items that score higher than the truth of a query, and of items that tie with it, from a matrix of scores.

The matrix is compared in blocks of rows, once for greater and once for equal scores, so that the second comparison finds the block
in the processor cache. The resulting Booleans are counted eight bytes at a time. In a transposed matrix, whose columns are
contiguous, the Booleans of up to 255 gallery items are summed as bytes. `ranks` defines how ties and NaN are treated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

_LANES = 8 * 255  # number of columns that eight one-byte counters can count without overflow


class RankCounts(NamedTuple):
    """Counts of Q queries in a gallery of G items.

    Attributes:
        greater: (Q,) int64, number of items that score higher than the truth; G for a truth that scores NaN.
        equal: (Q,) int64, number of items with the same score as the truth, including itself; 1 for a truth that scores NaN.
        num_gallery: Number G of items.

    Example:
        >>> counts = RankCounts(greater=np.array([0, 3]), equal=np.array([1, 2]), num_gallery=10)
        >>> counts.greater + 1  # ranks if ties are broken for the truth
        array([1, 4])
    """

    greater: np.ndarray
    equal: np.ndarray
    num_gallery: int


class BestCounts(NamedTuple):
    """Counts of Q queries with several truths, which have the rank of their best truth.

    Attributes:
        greater: (Q,) int64, number of items that score higher than the best truth.
        equal: (Q,) int64, number of items with the same score as the best truth, including itself.
        truths: (Q,) int64, number of truths among the items counted in `equal`.
        num_gallery: Number G of items.

    Example:
        >>> from trichord.evaluation.ranks import metrics_from_counts
        >>> counts = BestCounts(np.array([1]), equal=np.array([3]), truths=np.array([2]), num_gallery=10)
        >>> round(metrics_from_counts(counts).meanr, 2)
        2.33
    """

    greater: np.ndarray
    equal: np.ndarray
    truths: np.ndarray
    num_gallery: int


def best_of(owner: np.ndarray, scores: np.ndarray, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the index (Q,) of the best truth of each query, and the number (Q,) of its truths with the same score.

    Args:
        owner: (P,) query that each truth belongs to; every query has at least one truth.
        scores: (P,) score of each truth for its query. NaN is lower than every number.
        num_queries: Number Q of queries.

    Example:
        >>> best, tied = best_of(owner=np.array([0, 0, 1]), scores=np.array([0.2, 0.9, 0.5]), num_queries=2)
        >>> best, tied
        (array([1, 2]), array([1, 1]))
    """
    is_nan = np.isnan(scores)
    order = np.lexsort((np.where(is_nan, 0.0, -scores), is_nan, owner))
    best = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
    tied = scores == scores[best][owner]
    return best, np.maximum(np.bincount(owner[tied], minlength=num_queries), 1)


def distinct_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the first of each set of equal rows, and for each row the position of its set in this list.

    Example:
        >>> distinct_rows(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
        (array([0, 1]), array([0, 1, 0]))
    """
    places: dict[bytes, int] = {}
    keys = ((row + 0).tobytes() for row in x)  # + 0 makes -0.0 into 0.0
    copy_of = np.fromiter((places.setdefault(key, len(places)) for key in keys), np.int64, len(x))
    return np.unique(copy_of, return_index=True)[1], copy_of


def as_array(x: Any) -> np.ndarray:
    """Return `x` as a NumPy array; tensors are detached, and half-precision tensors become float32.

    Example:
        >>> import torch
        >>> as_array(torch.ones(2, dtype=torch.float16)).dtype
        dtype('float32')
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float().numpy() if str(x.dtype) in ("torch.bfloat16", "torch.float16") else x.numpy()
    return np.asarray(x)


def like_of(index: Any, x: Any) -> Any:
    """Return `index` on the device of `x`: as an array, or as a tensor.

    Example:
        >>> import torch
        >>> like_of(np.array([2, 0]), torch.zeros(3))
        tensor([2, 0])
    """
    if isinstance(x, np.ndarray):
        return index
    import torch

    return torch.as_tensor(index, device=x.device)


def matrix_counts(scores: Any, truth: np.ndarray, on_device: bool = False) -> RankCounts:
    """Return the counts of a matrix of scores (Q, G), computed in blocks of rows.

    No other matrix of this size is allocated.

    Args:
        scores: (Q, G) scores, as an array or tensor.
        truth: (Q,) gallery item of each query.
        on_device: Whether to count with torch on the device of `scores`.

    Example:
        >>> counts = matrix_counts(np.array([[0.9, 0.1, 0.9], [0.4, 0.3, 0.1]]), truth=np.array([0, 1]))
        >>> counts.greater, counts.equal
        (array([0, 1]), array([2, 1]))
    """
    num_queries, num_gallery = scores.shape
    greater, equal = np.empty(num_queries, np.int64), np.empty(num_queries, np.int64)
    truth_scores = scores[like_of(np.arange(num_queries), scores), like_of(truth, scores)][:, None]
    truth_scores = truth_scores if on_device else _widened(as_array(truth_scores))
    strides = scores.strides if isinstance(scores, np.ndarray) else scores.stride()
    transposed = not on_device and strides[0] < strides[1]
    # A block of rows has about 2 MB of float32, so that the second comparison finds it in the cache.
    rows = 1024 if on_device or transposed else max(1, 2**19 // num_gallery)
    rows_per_task = rows if on_device or transposed else 8 * rows

    def count(first: int) -> None:
        mask = None if on_device or transposed else np.zeros((rows, _whole_lanes(num_gallery)), bool)
        for start in range(first, min(first + rows_per_task, num_queries), rows):
            block = slice(start, start + rows)
            part, own = scores[block] if on_device else _widened(as_array(scores[block])), truth_scores[block]
            if on_device:
                greater[block], equal[block] = row_counts(part > own), row_counts(part == own)
            elif mask is None:
                greater[block], equal[block] = _transposed_counts(part.T, own.T)
            else:
                for compare, counts in ((np.greater, greater), (np.equal, equal)):
                    compare(part, own, out=mask[: len(part), :num_gallery])
                    counts[block] = row_counts(mask[: len(part)])

    with threads(0 if on_device else num_queries * num_gallery / 3) as map_on_threads:
        map_on_threads(count, range(0, num_queries, rows_per_task))
    truth_is_nan = as_array(truth_scores != truth_scores)[:, 0]
    greater[truth_is_nan], equal[truth_is_nan] = num_gallery, 1
    return RankCounts(greater, equal, num_gallery)


def _widened(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _transposed_counts(part: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many entries of each column of `part` (G, R) are greater than `own` (1, R), and how many are equal to it."""
    greater, equal = np.zeros(part.shape[1], np.int64), np.zeros(part.shape[1], np.int64)
    for first in range(0, len(part), 255):  # one byte counts up to 255
        tile = part[first : first + 255]
        greater += np.add.reduce((tile > own).view(np.uint8), axis=0, dtype=np.uint8)
        equal += np.add.reduce((tile == own).view(np.uint8), axis=0, dtype=np.uint8)
    return greater, equal


def _whole_lanes(width: int) -> int:
    """Return the next width at which `row_counts` sums rows eight bytes at a time."""
    unit = 8 if width <= _LANES else _LANES
    return -(-width // unit) * unit


def row_counts(mask: Any) -> np.ndarray:
    """Return the number of true entries in each row of a Boolean matrix, summed eight bytes at a time if the width allows it.

    Example:
        >>> row_counts(np.array([[True, False, True], [False, False, True]]))
        array([2, 1])
    """
    if not isinstance(mask, np.ndarray):
        return as_array(mask.sum(1))
    if not mask.shape[1] or mask.shape[1] != _whole_lanes(mask.shape[1]) or not mask.flags.c_contiguous:
        return np.count_nonzero(mask, axis=1)
    words = mask.view(np.uint64).reshape(-1, min(mask.shape[1], _LANES) // 8)  # no byte of the sum can overflow
    return np.einsum("ij->i", words).view(np.uint8).reshape(len(mask), -1).sum(1, dtype=np.int64)


@contextmanager
def threads(nanoseconds: float) -> Iterator[Callable[[Callable[[int], None], Iterable[int]], object]]:
    """Yield a function that maps a function over integers, on as many threads as NumPy uses for matrix products.

    Each matrix product is computed by one thread: products that are split over threads wait for the slowest thread on a busy
    machine. Work that is estimated to take less than about 20 ms stays on one thread.

    Args:
        nanoseconds: Estimated duration of the work on one thread.

    Example:
        >>> with threads(nanoseconds=1000) as map_on_threads:
        ...     map_on_threads(lambda number: number**2, range(4))
        [0, 1, 4, 9]
    """
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas") if nanoseconds > 2e7 else None
    count = min((library["num_threads"] for library in blas.info()), default=1) if blas else 1
    if blas is None or count == 1:
        yield lambda function, numbers: list(map(function, numbers))
        return
    errors = np.geterr()  # each thread has its own
    with blas.limit(limits=1), ThreadPoolExecutor(count, initializer=lambda: np.seterr(**errors)) as pool:
        yield lambda function, numbers: list(pool.map(function, numbers))
