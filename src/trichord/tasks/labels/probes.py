"""Linear probe and nearest neighbours: how well frozen embeddings predict labels that were not used in training.

n training rows, m test rows, D joint width, C classes that occur in the training rows.

The linear probe is multinomial logistic regression (L-BFGS) on features that are standardized with the training rows. Its inverse
regularization strength is the value of `PENALTIES` with the best accuracy in cross-validation on the training rows, and the
strongest regularization in case of a tie. Clips of one video are never on both sides of a fold, and the features of each fold are
standardized with the training rows of the fold.

In the nearest-neighbour classifier, the k training rows with the highest cosine vote with weight exp(cosine / T), T = 0.07 (Wu et
al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination"; Caron et al. 2021, DINO, who use k = 10, 20,
100 and 200). Cosines are float64 products rounded to multiples of 2^-24, so that rounding errors do not break ties. If several
rows tie for the last of the k places, each gets an equal share of the remaining places. The result does not depend on the order of
the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse regularization strengths, the strongest regularization first
NUM_PARTS = 3
MOST_STEPS = 1000
NEIGHBOURS = (1, 5, 10, 20, 100, 200)
TEMPERATURE = 0.07
_STEP = 2.0**-24  # cosines are rounded to multiples of this
_ROWS = 512  # number of test rows whose cosines are computed at a time


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Result of a linear probe.

    Attributes:
        scores: (m, C) scores of the test rows.
        penalty: The inverse regularization strength that was chosen.
        validated: Cross-validation accuracy of each of `PENALTIES`, in percent. Empty if there was no choice.
        converged: Whether L-BFGS converged within MOST_STEPS iterations.
    """

    scores: np.ndarray
    penalty: float
    validated: tuple[float, ...]
    converged: bool


def linear_probe(
    train: np.ndarray,
    kind: np.ndarray,
    test: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> LinearProbe:
    """Fit a linear probe on the training rows and score the test rows.

    Args:
        train: (n, D) training rows.
        kind: (n,) class of each training row, from 0 to C - 1; every class occurs.
        test: (m, D) test rows.
        groups: (n,) video of each training row; None if every row has its own.
        seed: Random seed of the cross-validation folds.
        penalties: Inverse regularization strengths in increasing order; a single one is used without cross-validation.

    Raises:
        TrichordError: There are fewer than two classes.
    """
    if kind.max(initial=0) < 1:
        raise TrichordError("a probe needs training clips of at least two classes; add labelled clips of another class")
    validated: tuple[float, ...] = ()
    penalty = penalties[0]
    if len(penalties) > 1:
        folds = _parts(kind, groups, seed)
        validated = tuple(_validated(train, kind, folds, penalty) for penalty in penalties) if folds else ()
        penalty = penalties[int(np.argmax(validated))] if validated else 1.0
    scores, _, converged = _fitted(train, kind, test, penalty)
    return LinearProbe(scores, penalty, validated, converged)


def _fitted(
    train: np.ndarray, kind: np.ndarray, test: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the scores (m, classes of `kind`), the classes, and whether the fit converged. With one class, all scores are 0."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(kind)
    if len(classes) < 2:
        return np.zeros((len(test), 1)), classes, True
    scaler = StandardScaler().fit(train.astype(np.float64))
    model = LogisticRegression(C=penalty, max_iter=MOST_STEPS)
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        model.fit(scaler.transform(train.astype(np.float64)), kind)
    for warning in caught_warnings:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    scores = model.decision_function(scaler.transform(test.astype(np.float64)))
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    return scores, model.classes_, not any(issubclass(w.category, ConvergenceWarning) for w in caught_warnings)


def _parts(kind: np.ndarray, groups: np.ndarray | None, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the training rows and validation rows of each fold. Empty if there is only one group.

    Groups are assigned as a whole, so that each class is spread over the folds as evenly as possible.
    """
    video = np.arange(len(kind)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_folds = min(NUM_PARTS, len(np.unique(video)))
    if num_folds < 2:
        return []
    shuffled = np.random.default_rng(seed).permutation(int(video.max()) + 1)
    first_class = kind[np.unique(video, return_index=True)[1]]  # the class of a video's first clip
    order = np.lexsort((shuffled, first_class))
    fold_of_video = np.empty(len(order), np.int64)
    fold_of_video[order] = np.arange(len(order)) % num_folds
    fold = fold_of_video[video]
    return [(np.flatnonzero(fold != p), np.flatnonzero(fold == p)) for p in range(num_folds)]


def _validated(
    train: np.ndarray, kind: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], penalty: float
) -> float:
    """Return the accuracy over all rows in percent, where each row is predicted by the fit of the other folds."""
    num_correct = 0
    for fit, held in folds:
        scores, classes, _ = _fitted(train[fit], kind[fit], train[held], penalty)
        num_correct += int((classes[scores.argmax(axis=1)] == kind[held]).sum())
    return 100.0 * num_correct / len(kind)


def knn_scores(
    train: np.ndarray,
    kind: np.ndarray,
    test: np.ndarray,
    neighbours: Sequence[int] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[int, np.ndarray]:
    """Return the votes (m, C) of the k nearest training rows, by k. If k exceeds the number of rows, all rows vote.

    Args:
        train: (n, D) training rows.
        kind: (n,) class of each training row, from 0 to C - 1.
        test: (m, D) test rows. A row of zeros has the cosine 0 with every row.
        neighbours: Values of k, each at least 1.
        temperature: The cosine is divided by this.

    Raises:
        ValueError: A value of k is less than 1.
    """
    if not all(k >= 1 for k in neighbours):
        raise ValueError(f"the numbers of neighbours are {tuple(neighbours)}; each must be at least 1")
    num_classes = int(kind.max()) + 1
    member = np.zeros((len(kind), num_classes))
    member[np.arange(len(kind)), kind] = 1.0
    train_unit, test_unit = (_unit(rows) for rows in (train, test))
    votes = {k: np.empty((len(test), num_classes)) for k in neighbours}
    for begin in range(0, len(test), _ROWS):
        block = slice(begin, begin + _ROWS)
        cosine = np.rint(test_unit[block] @ train_unit.T / _STEP) * _STEP
        descending = -np.sort(-cosine, axis=1)
        weight = np.exp((cosine - 1.0) / temperature)
        for k in neighbours:
            last = descending[:, min(k, len(kind)) - 1, None]
            above, beside = cosine > last, cosine == last
            left = min(k, len(kind)) - above.sum(axis=1, keepdims=True)
            votes[k][block] = (weight * (above + beside * (left / beside.sum(axis=1, keepdims=True)))) @ member
    return votes


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
