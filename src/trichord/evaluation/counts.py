"""How many gallery items score higher than a query's truth, and how many the same, from a matrix of scores.

Some rows at a time are compared twice, for greater and for equal, the second time while they are still in the processor's
cache; the marks are counted eight bytes at once. Of a turned matrix (its columns lie one after the other in memory) the
marks of up to 255 gallery items are added as bytes. What ties and NaN mean is told in `ranks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

_LANES = 8 * 255  # columns that eight one-byte counts at once can hold


class RankCounts(NamedTuple):
    """greater (Q,) and equal (Q,), int64, and G. A truth that scores NaN has greater = G and equal = 1."""

    greater: np.ndarray
    equal: np.ndarray
    num_gallery: int


class BestCounts(NamedTuple):
    """Of queries with several truths, whose rank is that of the best of them: greater (Q,), items that score higher than the
    best truth; equal (Q,), items that score the same; truths (Q,), how many of these are truths; and G."""

    greater: np.ndarray
    equal: np.ndarray
    truths: np.ndarray
    num_gallery: int


def best_of(owner: np.ndarray, scores: np.ndarray, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) position of the best truth of each query, and (Q,) how many of its truths score the same.

    Args:
        owner: (P,) the query whose truth each entry is; every query has one or more.
        scores: (P,) what it scores for that query. NaN is worse than every number.
    """
    lost = np.isnan(scores)
    order = np.lexsort((np.where(lost, 0.0, -scores), lost, owner))
    best = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
    tied = scores == scores[best][owner]
    return best, np.maximum(np.bincount(owner[tied], minlength=num_queries), 1)


def distinct_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index of the first of each set of equal rows, for each row its place in that list)."""
    places: dict[bytes, int] = {}
    keys = ((row + 0).tobytes() for row in x)  # + 0 makes -0.0 into 0.0
    copy_of = np.fromiter((places.setdefault(key, len(places)) for key in keys), np.int64, len(x))
    return np.unique(copy_of, return_index=True)[1], copy_of


def as_array(x: Any) -> np.ndarray:
    """`x` as a NumPy array; a torch tensor is taken without its gradient, half precision as float32."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float().numpy() if str(x.dtype) in ("torch.bfloat16", "torch.float16") else x.numpy()
    return np.asarray(x)


def like_of(index: Any, x: Any) -> Any:
    """`index` where `x` is: an array, or a tensor on its device."""
    if isinstance(x, np.ndarray):
        return index
    import torch

    return torch.as_tensor(index, device=x.device)


def matrix_counts(scores: Any, truth: np.ndarray, on_device: bool = False) -> RankCounts:
    """Counts of a matrix (Q, G), some rows at a time: no other matrix of its size is made. `on_device`: by torch, where
    it is."""
    num_queries, num_gallery = scores.shape
    greater, equal = np.empty(num_queries, np.int64), np.empty(num_queries, np.int64)
    owns = scores[like_of(np.arange(num_queries), scores), like_of(truth, scores)][:, None]
    owns = owns if on_device else _widened(as_array(owns))
    strides = scores.strides if isinstance(scores, np.ndarray) else scores.stride()
    turned = not on_device and strides[0] < strides[1]
    # Rows of about 2 MB of float32: the second comparison finds them in the cache.
    rows = 1024 if on_device or turned else max(1, 2**19 // num_gallery)
    many = rows if on_device or turned else 8 * rows

    def count(first: int) -> None:
        mask = None if on_device or turned else np.zeros((rows, _whole_lanes(num_gallery)), bool)
        for start in range(first, min(first + many, num_queries), rows):
            here = slice(start, start + rows)
            part, own = scores[here] if on_device else _widened(as_array(scores[here])), owns[here]
            if on_device:
                greater[here], equal[here] = row_counts(part > own), row_counts(part == own)
            elif mask is None:
                greater[here], equal[here] = _turned_counts(part.T, own.T)
            else:
                for compare, counts in ((np.greater, greater), (np.equal, equal)):
                    compare(part, own, out=mask[: len(part), :num_gallery])
                    counts[here] = row_counts(mask[: len(part)])

    with threads(0 if on_device else num_queries * num_gallery / 3) as each:
        each(count, range(0, num_queries, many))
    lost = as_array(owns != owns)[:, 0]
    greater[lost], equal[lost] = num_gallery, 1
    return RankCounts(greater, equal, num_gallery)


def _widened(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _turned_counts(part: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of each column of `part` (G, R) are greater than, and equal to, `own` (1, R)."""
    greater, equal = np.zeros(part.shape[1], np.int64), np.zeros(part.shape[1], np.int64)
    for first in range(0, len(part), 255):  # as many as one byte can count
        tile = part[first : first + 255]
        greater += np.add.reduce((tile > own).view(np.uint8), axis=0, dtype=np.uint8)
        equal += np.add.reduce((tile == own).view(np.uint8), axis=0, dtype=np.uint8)
    return greater, equal


def _whole_lanes(width: int) -> int:
    """The next width whose rows `row_counts` adds eight bytes at once."""
    unit = 8 if width <= _LANES else _LANES
    return -(-width // unit) * unit


def row_counts(mask: Any) -> np.ndarray:
    """How many of each row of a Boolean matrix are true. Eight bytes are added at once where the width allows it."""
    if not isinstance(mask, np.ndarray):
        return as_array(mask.sum(1))
    if not mask.shape[1] or mask.shape[1] != _whole_lanes(mask.shape[1]) or not mask.flags.c_contiguous:
        return np.count_nonzero(mask, axis=1)
    words = mask.view(np.uint64).reshape(-1, min(mask.shape[1], _LANES) // 8)  # none of its bytes can overflow in a sum
    return np.einsum("ij->i", words).view(np.uint8).reshape(len(mask), -1).sum(1, dtype=np.int64)


@contextmanager
def threads(nanoseconds: float) -> Iterator[Callable[[Callable[[int], None], Iterable[int]], object]]:
    """A function that calls another one for each of some numbers, on as many threads as NumPy's products may use.

    Each product keeps to its thread: threads that share one wait, on a busy machine, for the slowest. Short work of about
    so many nanoseconds stays on one.
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
