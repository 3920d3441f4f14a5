"""Where the steps of a task are in a video: steps placed by scores, hits, and recalls as the code bases of the field count them.

Scores and truth of a video are matrices (T, K): T seconds (or frames), K steps of its task in their order. A step is hit
when the second that it is placed at is annotated with it; steps that the video does not show are placed too, and count
nowhere.

| name | placed by | hits are divided |
|---|---|---|
| recall, pooled per task | alignment | over all videos of a task, then mean over tasks (CrossTask's own code) |
| recall, mean over videos | alignment | in each video, then mean over a task's videos, then over tasks (MCN) |
| ..., best second of each step | argmax | either way (MCN's `recall_frame`) |

The two recalls differ: a video with few annotated steps weighs as much as any other in the second, little in the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError


def align_ordered(scores: np.ndarray) -> np.ndarray:
    """Return the second (K,) of each step: one second each, in the order of the steps, with the highest sum of scores.

    Args:
        scores: (T, K) finite, T at least K.

    Of equally good placements it is the one whose last step is earliest, of those the one whose last but one is, and so on.
    Dynamic programming, T times K steps of work. Raises TrichordError when there are more steps than seconds.
    """
    values = _checked(scores)
    num_seconds, num_steps = values.shape
    if num_steps > num_seconds:
        raise TrichordError(
            f"{num_steps} steps cannot have a second each, in order, in {num_seconds} seconds; leave the video out"
        )
    best = np.full((num_steps, num_seconds), -np.inf)  # of steps up to k, with step k at exactly t
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
    """Return for each step (K,) 1 if its aligned second is annotated with it, otherwise 0."""
    seconds = align_ordered(scores)
    return _fitting(scores, truth)[seconds, np.arange(len(seconds))].astype(np.float64)


def best_second_hits(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return for each step (K,) whether its best second is annotated with it, without regard to the other steps. Of tied seconds
    it is the share that is annotated, which is the expected hit of a random choice among them."""
    values = _checked(scores)
    on_top = values == values.max(axis=0)
    return (on_top & _fitting(scores, truth)).sum(axis=0) / on_top.sum(axis=0)


def best_step_shares(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return for each annotated second whether its best step is annotated there; of tied steps the share that is."""
    annotated = _fitting(scores, truth)
    hits = best_second_hits(np.asarray(scores).T, annotated.T)
    return hits[annotated.any(axis=1)]


def aligned_chance(truth: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the hits (K,) of the alignment of random scores (independent, normal), as the mean over `draws` draws: what random
    embeddings reach."""
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
        tasks: Names of those with an annotated step.
        recalls: One each.
        num_videos: Videos that count.
    """

    tasks: tuple[str, ...]
    recalls: np.ndarray
    num_videos: int

    @property
    def mean(self) -> float:
        return float(self.recalls.mean())


def recall_pooled_per_task(hits: np.ndarray, present: np.ndarray, task: Sequence[str]) -> TaskRecalls:
    """Sum hits and annotated steps over the videos of a task, then divide (CrossTask's own code).

    Args:
        hits: (V,) steps hit in each video.
        present: (V,) steps annotated in it.
        task: (V,) of which task it is.

    Raises TrichordError when no video has an annotated step.
    """
    names, task_of_step = _tasks(hits, present, task)
    total = np.bincount(task_of_step, weights=present, minlength=len(names))
    num_hits = np.bincount(task_of_step, weights=hits, minlength=len(names))
    known = total > 0
    tasks = tuple(name for name, is_known in zip(names, known.tolist(), strict=True) if is_known)
    return TaskRecalls(tasks, 100 * num_hits[known] / total[known], int((present > 0).sum()))


def recall_mean_over_videos(hits: np.ndarray, present: np.ndarray, task: Sequence[str]) -> TaskRecalls:
    """Divide hits by annotated steps in each video, then take the mean over the videos of a task (MCN). Arguments as of
    `recall_pooled_per_task`; videos without an annotated step are left out."""
    kept = present > 0
    share = hits[kept] / present[kept]
    return recall_pooled_per_task(share, np.ones(len(share)), [t for t, k in zip(task, kept, strict=True) if k])


def task_average_precision(scores: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean average precision of one task in percent: for each step all seconds of all its videos are ranked by their score of
    the step; tied seconds share a threshold. Steps that are annotated nowhere are left out.

    Args:
        scores: Of each video (T, K).
        truth: Of each video (T, K) bool.

    Raises TrichordError when no step is annotated.
    """
    from sklearn.metrics import average_precision_score

    every, said = np.concatenate(list(scores)), np.concatenate(list(truth)).astype(bool)
    steps = np.flatnonzero(said.any(axis=0)).tolist()
    if not steps:
        raise TrichordError("no step of the task is annotated; there is nothing to rank")
    return 100 * float(np.mean([average_precision_score(said[:, k], every[:, k]) for k in steps]))


def average_precision_chance(num: int, positives: int) -> float:
    """Expected average precision, from 0 to 1, of `num` items in random order, `positives` of which are right. Exact:

        1/N sum over i = 1..N of (1 + (i - 1) (P - 1) / (N - 1)) / i

    A right item is at each place i as likely, and finds (P - 1) / (N - 1) of the i - 1 before it right. It is above P / N, which
    items that all score alike reach (they share one threshold), unless all are right.
    """
    if not 1 <= positives <= num:
        raise ValueError(f"{positives} right items among {num}")
    place = np.arange(1, num + 1)
    return float(np.mean((1 + (place - 1) * ((positives - 1) / max(num - 1, 1))) / place))


def task_precision_chance(truth: Sequence[np.ndarray]) -> float:
    """What `task_average_precision` is expected to be of seconds in random order, in percent: `average_precision_chance` of
    each step that is annotated, their mean. Raises TrichordError when no step is annotated."""
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
        raise TrichordError("no video has an annotated step; recall is not defined: check the annotations")
    names, task_of_step = np.unique(np.array(task, np.str_), return_inverse=True)
    return names.tolist(), task_of_step


def _checked(scores: np.ndarray) -> np.ndarray:
    if scores.ndim != 2 or not scores.size:
        raise TrichordError(f"scores of a video are a matrix (seconds, steps), not of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise TrichordError("a score is not finite; give seconds without features the lowest score")
    return scores.astype(np.float64)


def _fitting(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if truth.shape != scores.shape:
        raise TrichordError(f"scores of shape {scores.shape} and truth of shape {truth.shape} do not fit")
    return truth.astype(bool)
