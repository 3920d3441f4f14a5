"""What frozen embeddings tell of labels that nobody trained on: a linear probe and nearest neighbours.

n training rows, m test rows, D joint width, C classes that the training rows have.

Linear probe: multinomial logistic regression (L-BFGS) on features standardised by the training rows. Its inverse penalty C is
the best of `PENALTIES` by accuracy in cross-validation on the training rows alone, of equals the strongest penalty; clips of
one video are never on both sides. The features of each part are standardised by that part's training rows.

Nearest neighbours: the k training rows of highest cosine vote with weight exp(cosine / T), T = 0.07 (Wu et al. 2018,
"Unsupervised Feature Learning via Non-Parametric Instance Discrimination"; Caron et al. 2021, DINO, whose k are 10, 20, 100
and 200). Cosines are float64 products, rounded to steps of 2^-24, so that rounding parts no equals; where several tie for the
last of the k places, each has its share of them. The order of the rows changes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # inverse strengths, the strongest penalty first
NUM_PARTS = 3
MOST_STEPS = 1000
NEIGHBOURS = (1, 5, 10, 20, 100, 200)
TEMPERATURE = 0.07
_STEP = 2.0**-24  # of cosines
_ROWS = 512  # test rows whose cosines are held at a time


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """scores: (m, C) of the test rows. penalty: the C that was chosen. validated: accuracy in cross-validation of each of
    `PENALTIES`, in percent; empty where there was nothing to choose by. converged: whether L-BFGS ended within MOST_STEPS."""

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
    """Fit on the training rows and score the test rows.

    Args:
        train: (n, D). test: (m, D).
        kind: (n,) class of each training row, 0 to C - 1, each there.
        groups: (n,) the video of each training row; None: each of its own.
        seed: Of the parts of the cross-validation.
        penalties: Inverse strengths, rising. One: it is taken.

    Raises TrichordError when there are fewer than two classes.
    """
    if kind.max(initial=0) < 1:
        raise TrichordError("a probe needs training clips of two classes or more")
    validated: tuple[float, ...] = ()
    penalty = penalties[0]
    if len(penalties) > 1:
        parts = _parts(kind, groups, seed)
        validated = tuple(_validated(train, kind, parts, penalty) for penalty in penalties) if parts else ()
        penalty = penalties[int(np.argmax(validated))] if validated else 1.0
    scores, _, converged = _fitted(train, kind, test, penalty)
    return LinearProbe(scores, penalty, validated, converged)


def _fitted(
    train: np.ndarray, kind: np.ndarray, test: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return scores (m, number of classes in `kind`), the classes, and whether the fit converged. With one class, all scores are
    equal."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(kind)
    if len(classes) < 2:
        return np.zeros((len(test), 1)), classes, True
    scaler = StandardScaler().fit(train.astype(np.float64))
    model = LogisticRegression(C=penalty, max_iter=MOST_STEPS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(scaler.transform(train.astype(np.float64)), kind)
    for warning in told:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    scores = model.decision_function(scaler.transform(test.astype(np.float64)))
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    return scores, model.classes_, not any(issubclass(w.category, ConvergenceWarning) for w in told)


def _parts(kind: np.ndarray, groups: np.ndarray | None, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the (training, validation) rows of each part. Groups are not divided, and classes are spread over the parts as evenly
    as the groups allow. Empty if there is one group only."""
    video = np.arange(len(kind)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num = min(NUM_PARTS, len(np.unique(video)))
    if num < 2:
        return []
    shuffled = np.random.default_rng(seed).permutation(int(video.max()) + 1)
    first = kind[np.unique(video, return_index=True)[1]]  # the class of a video's first clip
    order = np.lexsort((shuffled, first))
    part_of = np.empty(len(order), np.int64)
    part_of[order] = np.arange(len(order)) % num
    part = part_of[video]
    return [(np.flatnonzero(part != p), np.flatnonzero(part == p)) for p in range(num)]


def _validated(
    train: np.ndarray, kind: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]], penalty: float
) -> float:
    """Return the accuracy in percent over all rows, each predicted by the fit of the other parts."""
    right = 0
    for fit, held in parts:
        scores, classes, _ = _fitted(train[fit], kind[fit], train[held], penalty)
        right += int((classes[scores.argmax(axis=1)] == kind[held]).sum())
    return 100.0 * right / len(kind)


def knn_scores(
    train: np.ndarray,
    kind: np.ndarray,
    test: np.ndarray,
    neighbours: Sequence[int] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[int, np.ndarray]:
    """Return by k the votes (m, C) of the nearest training rows. If k exceeds the number of rows, all of them vote.

    Args:
        train: (n, D). test: (m, D). A row of zeros has the cosine 0 with all.
        kind: (n,) class of each training row, 0 to C - 1.
        neighbours: The k, each 1 or more.
        temperature: Divides the cosine.
    """
    if not all(k >= 1 for k in neighbours):
        raise ValueError("at least one neighbour votes")
    num_classes = int(kind.max()) + 1
    member = np.zeros((len(kind), num_classes))
    member[np.arange(len(kind)), kind] = 1.0
    known, asked = (_unit(rows) for rows in (train, test))
    votes = {k: np.empty((len(test), num_classes)) for k in neighbours}
    for begin in range(0, len(test), _ROWS):
        here = slice(begin, begin + _ROWS)
        cosine = np.rint(asked[here] @ known.T / _STEP) * _STEP
        falling = -np.sort(-cosine, axis=1)
        weight = np.exp((cosine - 1.0) / temperature)
        for k in neighbours:
            last = falling[:, min(k, len(kind)) - 1, None]
            above, beside = cosine > last, cosine == last
            left = min(k, len(kind)) - above.sum(axis=1, keepdims=True)
            votes[k][here] = (weight * (above + beside * (left / beside.sum(axis=1, keepdims=True)))) @ member
    return votes


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
