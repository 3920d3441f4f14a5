"""Recall as published code counts it, for comparison with `ranks`. These are definitions only; use `ranks` to score.

All of them sort a row of scores (Q, Q), whose diagonal holds the correct items, and look for the ranks whose score equals that
of the correct item. They differ if there are several such ranks:

| code | ranks of a query | recall at K | median rank | |---|---|---|---| | MCN, AVLnet | every tied rank | ranks within K,
divided by a fixed number of queries | of all ranks found | | HowTo100M | every tied rank | ranks within K, divided by the
number of ranks | of all ranks found | | Everything at Once | the mean of the tied ranks | queries within K, divided by queries
| of queries | | here, `expected` | all orders of the tied items | the probability of a rank within K, averaged over queries |
of the mean ranks |

A collapsed model, which gives all items the same score, has R@10 = 1000 %, 10 / Q, 0 % (its mean rank is above 10) and 10 / Q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PublishedRecall:
    """r1, r5 and r10 in percent; medr is the median rank, where 1 is best."""

    r1: float
    r5: float
    r10: float
    medr: float


def tied_places(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (P,) queries and (P,) ranks from 0 of every position in the sorted rows whose score equals that of the correct
    item.
    """
    ordered = np.sort(-scores, axis=1)
    queries, places = np.nonzero(ordered == -np.diag(scores)[:, None])
    return queries, places


def mcn_recall(scores: np.ndarray, num_queries: int | None = None) -> PublishedRecall:
    """Return the recall of MCN and AVLnet.

    Args:
        num_queries: The fixed denominator (1,000 on MSR-VTT, where 968 are scored); None takes the number of rows.
    """
    _, places = tied_places(scores)
    return _recall(places, num_queries or len(scores))


def howto100m_recall(scores: np.ndarray) -> PublishedRecall:
    """Return the recall of HowTo100M."""
    _, places = tied_places(scores)
    return _recall(places, max(len(places), 1))


def everything_at_once_recall(scores: np.ndarray) -> PublishedRecall:
    """Return the recall of Everything at Once, where the rank of a query is the mean of its tied ranks."""
    queries, places = tied_places(scores)
    counts = np.bincount(queries, minlength=len(scores))
    means = np.bincount(queries, weights=places, minlength=len(scores))[counts > 0] / counts[counts > 0]
    return _recall(means, len(scores))


def _recall(places: np.ndarray, num_queries: int) -> PublishedRecall:
    r1, r5, r10 = (100.0 * float((places < k).sum()) / num_queries for k in (1, 5, 10))
    return PublishedRecall(r1, r5, r10, float(np.median(places)) + 1 if len(places) else float("nan"))
