"""Accuracy from the place of each item's class: top-1, top-5, and the mean over classes; ties at their expected value.

n items, C classes. As in `ranks`: `greater` classes score higher than an item's own, `equal` the same, its own included; tied
classes are in random order, so that a model that scores all classes alike is right in 1 of C. An item whose class cannot be
chosen (a probe never saw it) and one that lacks what is scored are never right, and count nothing for chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.evaluation.contributions import ratio_contributions
from trichord.evaluation.counts import RankCounts, matrix_counts
from trichord.evaluation.ranks import expected_hits


@dataclass(frozen=True, eq=False)
class Scored:
    """n items, and the rank of the class of each among C classes.

    Attributes:
        clip: (n,) number of each item.
        truth: (n,) its class, from 0; of a class that cannot be chosen C or more.
        greater, equal: (n,) classes above its own, C where it cannot be right; and beside it.
        num_classes: C, that can be chosen.
    """

    clip: np.ndarray
    truth: np.ndarray
    greater: np.ndarray
    equal: np.ndarray
    num_classes: int

    @classmethod
    def of(cls, clip: np.ndarray, truth: np.ndarray, counts: RankCounts, missing: np.ndarray | None = None) -> Scored:
        """Return the items from counts of all items except those marked in `missing` (n,), which are errors."""
        greater = np.full(len(clip), counts.num_gallery, np.int64)
        equal = np.ones(len(clip), np.int64)
        there = np.ones(len(clip), bool) if missing is None else ~missing
        greater[there], equal[there] = counts.greater, counts.equal
        return cls(clip, truth, greater, equal, counts.num_gallery)

    @classmethod
    def of_scores(
        cls, clip: np.ndarray, truth: np.ndarray, scores: np.ndarray, missing: np.ndarray | None = None
    ) -> Scored:
        """Return the items from scores (items that are not missing, C). Classes numbered C and above are errors."""
        there = truth if missing is None else truth[~missing]
        known = there < scores.shape[1]
        greater, equal = np.full(len(there), scores.shape[1], np.int64), np.ones(len(there), np.int64)
        if known.any():
            counts = matrix_counts(scores[known], there[known])
            greater[known], equal[known] = counts.greater, counts.equal
        return cls.of(clip, truth, RankCounts(greater, equal, scores.shape[1]), missing)

    def hits(self, k: int) -> np.ndarray:
        """Return the probability (n,) that the class of an item is among the first k."""
        return expected_hits(min(k, self.num_classes), self.greater, self.equal)

    def chance(self, k: int) -> np.ndarray:
        """Return the same probability (n,) for a random order of the classes."""
        possible = self.greater < self.num_classes  # one that cannot be right has all classes above its own
        return possible * (min(k, self.num_classes) / self.num_classes)

    def measures(self) -> dict[str, tuple[float, float, np.ndarray]]:
        """Return by measure its value and its chance in percent, and what each item (n,) contributes to the value. Top-5 needs
        more than 5 classes."""
        first, first_chance = self.hits(1), self.chance(1)
        out = {"top-1": (_percent(first), _percent(first_chance), first)}
        if self.num_classes > 5:
            out["top-5"] = (_percent(self.hits(5)), _percent(self.chance(5)), self.hits(5))
        ones = np.ones(len(first))
        by_class = ratio_contributions(first, ones, self.truth)
        out["top-1, mean over classes"] = (self._by_class(first), self._by_class(first_chance), by_class)
        return out

    def _by_class(self, values: np.ndarray) -> float:
        """Return the mean over classes of the mean over the items of a class."""
        _, kind, num = np.unique(self.truth, return_inverse=True, return_counts=True)
        return _percent(np.bincount(kind, weights=values) / num)


Fold = tuple[np.ndarray, np.ndarray]
"""Which (m,) clips a fold tests, each once; and (m,) what each gives to the fold's figure, which is the mean of these."""


def mean_of_folds(folds: Sequence[Fold]) -> float:
    """Return the mean of the figures of the folds."""
    return float(np.mean([each.mean() for _, each in folds]))


def over_folds(folds: Sequence[Fold], num: int) -> np.ndarray:
    """Return what each of `num` clips contributes to the mean of a figure over F folds; NaN for clips that no fold tests.

    Of n clips that are tested at all, in one fold or in several, clip i gives

        R + (n / F) sum over its folds of (what it gives there - the fold's figure) / m

    R the mean of the folds' figures: their mean is R, and a model that is right everywhere gives 1 of every clip, however
    unequal the folds are (`contributions`: a mean of ratios, made linear).
    """
    tested = np.zeros(num, bool)
    pulled = np.zeros(num)
    for clip, each in folds:
        tested[clip] = True
        pulled[clip] += (each - each.mean()) / len(clip)
    return np.where(tested, mean_of_folds(folds) + tested.sum() / len(folds) * pulled, np.nan)


def _percent(values: np.ndarray) -> float:
    return float(100.0 * values.mean())
