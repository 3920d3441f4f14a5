"""Localization of the steps of a task in a video: placement by scores, hits, and recalls as defined by published code.

Scores and truth of a video are matrices (T, K) with T seconds (or frames) and K steps of its task, in order. A step is hit if it is
placed at a second that is annotated with it. Steps that the video does not show are placed too, but do not count.

| name | placement | recall |
|---|---|---|
| recall, pooled per task | alignment | hits / steps over all videos of a task, then mean over tasks (code of CrossTask) |
| recall, mean over videos | alignment | hits / steps of each video, mean over the videos of a task, then over tasks (MCN) |
| ..., best second of each step | argmax | either of the two (`recall_frame` of MCN) |

The two recalls differ. A video with few annotated steps has the same weight as others in the second one, and a small weight in
the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError


def align_ordered(scores: np.ndarray) -> np.ndarray:
    """Place each step at a different second, in the order of the steps, with the highest sum of scores.

    Among equally good placements, the one with the earliest last step is chosen, then the one with the earliest last but one step,
    and so on. Dynamic programming needs O(T K) operations.

    Args:
        scores: Finite scores (T, K).

    Returns:
        The second (K,) of each step.

    Raises:
        TrichordError: There are more steps than seconds.
    """
    values = _checked(scores)
    num_seconds, num_steps = values.shape
    if num_steps > num_seconds:
        raise TrichordError(
            f"{num_steps} steps cannot be placed at different seconds of {num_seconds}; leave the video out"
        )
    best = np.full((num_steps, num_seconds), -np.inf)  # best sum of the steps up to k, with step k at second t
    before = np.zeros(num_seconds)
    for k in range(num_steps):
        best[k] = values[:, k] + before
        before = np.concatenate([[-np.inf], np.maximum.accumulate(best[k])[:-1]])
    seconds = np.empty(num_steps, np.int64)
    end = num_seconds
    for k in range(num_steps - 1, -1, -1):
        seconds[k] = end = int(best[k, :end].argmax())
    return seconds


def aligned_hits(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return whether the aligned second of each step (K,) is annotated with it: 1 or 0."""
    seconds = align_ordered(scores)
    return _fitting(scores, truth)[seconds, np.arange(len(seconds))].astype(np.float64)


def best_second_hits(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return whether the best second of each step (K,) is annotated with it, independent of the other steps.

    If seconds tie, this is the share of them that is annotated, i.e. the expected value of a random choice.
    """
    values = _checked(scores)
    on_top = values == values.max(axis=0)
    return (on_top & _fitting(scores, truth)).sum(axis=0) / on_top.sum(axis=0)


def best_step_shares(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return whether the best step of each annotated second is annotated there. If steps tie, this is the share that is."""
    annotated = _fitting(scores, truth)
    hits = best_second_hits(np.asarray(scores).T, annotated.T)
    return hits[annotated.any(axis=1)]


def aligned_chance(truth: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the hits (K,) of the alignment of random scores, which is the chance level.

    Args:
        truth: Annotations (T, K), bool.
        draws: Number of draws of independent normal scores. The result is their mean.
        rng: Random number generator.
    """
    steps = np.arange(truth.shape[1])
    hits = np.zeros(truth.shape[1])
    for _ in range(draws):
        hits += truth[align_ordered(rng.standard_normal(truth.shape)), steps]
    return hits / draws


def best_second_chance(truth: np.ndarray) -> np.ndarray:
    """Return the expected hits (K,) of a second that is drawn independently for each step."""
    return truth.mean(axis=0)


@dataclass(frozen=True, eq=False)
class TaskRecalls:
    """The recall of each task in percent, and their mean.

    Attributes:
        tasks: Names of the tasks with an annotated step.
        recalls: Recall of each task, in percent.
        num_videos: Number of videos that count.
    """

    tasks: tuple[str, ...]
    recalls: np.ndarray
    num_videos: int

    @property
    def mean(self) -> float:
        """Mean recall over tasks, in percent."""
        return float(self.recalls.mean())


def recall_pooled_per_task(hits: np.ndarray, present: np.ndarray, task: Sequence[str]) -> TaskRecalls:
    """Sum hits and annotated steps over the videos of a task, then divide, as in the code of CrossTask.

    Args:
        hits: Number (V,) of steps that are hit in each video.
        present: Number (V,) of annotated steps of each video.
        task: Task (V,) of each video.

    Raises:
        TrichordError: No video has an annotated step.
    """
    names, task_of_step = _tasks(hits, present, task)
    total = np.bincount(task_of_step, weights=present, minlength=len(names))
    num_hits = np.bincount(task_of_step, weights=hits, minlength=len(names))
    known = total > 0
    tasks = tuple(name for name, is_known in zip(names, known.tolist(), strict=True) if is_known)
    return TaskRecalls(tasks, 100 * num_hits[known] / total[known], int((present > 0).sum()))


def recall_mean_over_videos(hits: np.ndarray, present: np.ndarray, task: Sequence[str]) -> TaskRecalls:
    """Divide hits by annotated steps in each video, then average over the videos of a task, as in MCN.

    Videos without an annotated step are left out.

    Args:
        hits: Number (V,) of steps that are hit in each video.
        present: Number (V,) of annotated steps of each video.
        task: Task (V,) of each video.

    Raises:
        TrichordError: No video has an annotated step.
    """
    kept = present > 0
    share = hits[kept] / present[kept]
    return recall_pooled_per_task(share, np.ones(len(share)), [t for t, k in zip(task, kept, strict=True) if k])


def task_average_precision(scores: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Return the mean average precision of a task, in percent.

    For each step, all seconds of all videos of the task are ranked by their score for this step. Tied seconds share a threshold.
    Steps without annotation are left out.

    Args:
        scores: Scores (T, K) of each video.
        truth: Annotations (T, K) of each video, bool.

    Raises:
        TrichordError: No step is annotated.
    """
    from sklearn.metrics import average_precision_score

    every, said = np.concatenate(list(scores)), np.concatenate(list(truth)).astype(bool)
    steps = np.flatnonzero(said.any(axis=0)).tolist()
    if not steps:
        raise TrichordError("no step of the task is annotated; there is nothing to rank")
    return 100 * float(np.mean([average_precision_score(said[:, k], every[:, k]) for k in steps]))


def average_precision_chance(num: int, positives: int) -> float:
    """Return the expected average precision (0 to 1) of N items in random order, P of which are positive.

    The exact value is

        1/N sum over i = 1..N of (1 + (i - 1) (P - 1) / (N - 1)) / i

    since a positive item is at each position i with equal probability, and a share of (P - 1) / (N - 1) of the i - 1 items before
    it is expected to be positive. Unless all items are positive, this exceeds P / N, the value for items with equal scores, which
    share a threshold.

    Args:
        num: Number N of items.
        positives: Number P of positive items.

    Raises:
        ValueError: P is not between 1 and N.
    """
    if not 1 <= positives <= num:
        raise ValueError(f"the number of positive items is {positives}; it must be between 1 and {num}")
    place = np.arange(1, num + 1)
    return float(np.mean((1 + (place - 1) * ((positives - 1) / max(num - 1, 1))) / place))


def task_precision_chance(truth: Sequence[np.ndarray]) -> float:
    """Return the expected value of `task_average_precision` for seconds in random order, in percent.

    This is the mean of `average_precision_chance` over annotated steps.

    Args:
        truth: Annotations (T, K) of each video, bool.

    Raises:
        TrichordError: No step is annotated.
    """
    said = np.concatenate(list(truth)).astype(bool)
    counts = said.sum(axis=0)
    if not counts.any():
        raise TrichordError("no step of the task is annotated; there is nothing to rank")
    return 100 * float(np.mean([average_precision_chance(len(said), int(count)) for count in counts[counts > 0]]))


def _tasks(hits: np.ndarray, present: np.ndarray, task: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the sorted names of the tasks, and the number of the task of each video (V,)."""
    if not len(hits) == len(present) == len(task):
        raise ValueError("hits, present and task must have the same length")
    if not len(task) or not np.any(present > 0):
        raise TrichordError("no video has an annotated step, so recall is undefined; check the annotations")
    names, task_of_step = np.unique(np.array(task, np.str_), return_inverse=True)
    return names.tolist(), task_of_step


def _checked(scores: np.ndarray) -> np.ndarray:
    if scores.ndim != 2 or not scores.size:
        raise TrichordError(f"the scores of a video have shape {scores.shape}; expected a matrix (seconds, steps)")
    if not np.isfinite(scores).all():
        raise TrichordError("a score is not finite; give seconds without features the lowest score")
    return scores.astype(np.float64)


def _fitting(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if truth.shape != scores.shape:
        raise TrichordError(
            f"scores have shape {scores.shape}, but annotations have shape {truth.shape}; they must be equal"
        )
    return truth.astype(bool)
