"""Classification accuracy: top-1, top-5 and the mean over classes, with ties at their expected value.

n items, C classes. As in `ranks`, `greater` is the number of classes that score higher than the item's own class, and `equal` the
number of classes with the same score, including its own. Tied classes are ordered at random, so a model that gives all classes the
same score is right for 1 of C items. An item is always wrong, and adds nothing to the chance level, if its class cannot be chosen
(a probe never saw it) or if it lacks the embedding to be scored.
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
    """Position of the true class of n items among C classes.

    Attributes:
        clip: (n,) index of each item.
        truth: (n,) class of each item, from 0; C or more for a class that cannot be chosen.
        greater: (n,) number of classes that score higher than the true class; C for an item that cannot be right.
        equal: (n,) number of classes with the same score as the true class, including itself.
        num_classes: Number C of classes that can be chosen.
    """

    clip: np.ndarray
    truth: np.ndarray
    greater: np.ndarray
    equal: np.ndarray
    num_classes: int

    @classmethod
    def of(cls, clip: np.ndarray, truth: np.ndarray, counts: RankCounts, missing: np.ndarray | None = None) -> Scored:
        """Return the scored items from counts.

        Args:
            clip: Index (n,) of each item.
            truth: Class (n,) of each item.
            counts: Counts of the items that are not missing.
            missing: Mask (n,) of the items that are always wrong. None means no item.
        """
        greater = np.full(len(clip), counts.num_gallery, np.int64)
        equal = np.ones(len(clip), np.int64)
        present = np.ones(len(clip), bool) if missing is None else ~missing
        greater[present], equal[present] = counts.greater, counts.equal
        return cls(clip, truth, greater, equal, counts.num_gallery)

    @classmethod
    def of_scores(
        cls, clip: np.ndarray, truth: np.ndarray, scores: np.ndarray, missing: np.ndarray | None = None
    ) -> Scored:
        """Return the scored items from scores.

        Args:
            clip: Index (n,) of each item.
            truth: Class (n,) of each item. An item whose class is C or more is always wrong.
            scores: Scores (items that are not missing, C).
            missing: Mask (n,) of the items that are always wrong. None means no item.
        """
        present_truth = truth if missing is None else truth[~missing]
        known = present_truth < scores.shape[1]
        greater, equal = np.full(len(present_truth), scores.shape[1], np.int64), np.ones(len(present_truth), np.int64)
        if known.any():
            counts = matrix_counts(scores[known], present_truth[known])
            greater[known], equal[known] = counts.greater, counts.equal
        return cls.of(clip, truth, RankCounts(greater, equal, scores.shape[1]), missing)

    def hits(self, k: int) -> np.ndarray:
        """Return the probability (n,) that the true class of each item is among the first k."""
        return expected_hits(min(k, self.num_classes), self.greater, self.equal)

    def chance(self, k: int) -> np.ndarray:
        """Return the probability (n,) that the true class of each item is among the first k of a random order."""
        possible = self.greater < self.num_classes  # `greater` is C for an item that cannot be right
        return possible * (min(k, self.num_classes) / self.num_classes)

    def measures(self) -> dict[str, tuple[float, float, np.ndarray]]:
        """Return the accuracies by name.

        Returns:
            For each measure its value and its chance level, both in percent, and the contribution (n,) of each item to the value.
            Top-5 is included only if there are more than 5 classes.
        """
        first, first_chance = self.hits(1), self.chance(1)
        measures = {"top-1": (_percent(first), _percent(first_chance), first)}
        if self.num_classes > 5:
            measures["top-5"] = (_percent(self.hits(5)), _percent(self.chance(5)), self.hits(5))
        ones = np.ones(len(first))
        by_class = ratio_contributions(first, ones, self.truth)
        measures["top-1, mean over classes"] = (self._by_class(first), self._by_class(first_chance), by_class)
        return measures

    def _by_class(self, values: np.ndarray) -> float:
        """Return the mean over the classes that occur, in percent, of the mean over the items of each class."""
        _, label, num_items = np.unique(self.truth, return_inverse=True, return_counts=True)
        return _percent(np.bincount(label, weights=values) / num_items)


Fold = tuple[np.ndarray, np.ndarray]
"""Indices (m,) of the test clips of a fold, each once, and their contributions (m,), whose mean is the figure of the fold."""


def mean_of_folds(folds: Sequence[Fold]) -> float:
    """Return the mean of the figures of the folds."""
    return float(np.mean([contributions.mean() for _, contributions in folds]))


def over_folds(folds: Sequence[Fold], num: int) -> np.ndarray:
    """Return the contribution (num,) of each of `num` clips to the mean of a figure over F folds; NaN for clips that no fold tests.

    If n clips are tested in at least one fold, clip i contributes

        R + (n / F) * sum over the folds that test i of (contribution of i in the fold - figure of the fold) / m

    where R is the mean of the figures of the folds and m the number of clips of the fold. The mean of the contributions is R. A
    model that is always right has the contribution 1 for every clip, even if the folds differ in size. See `contributions` for the
    linearization of a mean of ratios.
    """
    tested = np.zeros(num, bool)
    deviation = np.zeros(num)
    for clip, contributions in folds:
        tested[clip] = True
        deviation[clip] += (contributions - contributions.mean()) / len(clip)
    return np.where(tested, mean_of_folds(folds) + tested.sum() / len(folds) * deviation, np.nan)


def _percent(values: np.ndarray) -> float:
    return float(100.0 * values.mean())
