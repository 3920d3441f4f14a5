"""Steps placed in videos compared with brute force, and both recalls on cases counted by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.tasks.steps.measure import (
    align_ordered,
    aligned_chance,
    aligned_hits,
    average_precision_chance,
    best_second_chance,
    best_second_hits,
    best_step_shares,
    recall_mean_over_videos,
    recall_pooled_per_task,
    task_average_precision,
    task_precision_chance,
)

COARSE = st.sampled_from([-1.0, 0.0, 0.5, 1.0])  # many ties


@st.composite
def score_matrices(draw: st.DrawFn, max_seconds: int = 8, max_steps: int = 4) -> np.ndarray:
    num_steps = draw(st.integers(1, max_steps))
    num_seconds = draw(st.integers(num_steps, max_seconds))
    values = draw(st.lists(COARSE, min_size=num_seconds * num_steps, max_size=num_seconds * num_steps))
    return np.array(values).reshape(num_seconds, num_steps)


def best_by_trial(scores: np.ndarray) -> tuple[int, ...]:
    """Try every choice of seconds in order; of the best ones, prefer the earliest last second, then the one before, ..."""
    num_seconds, num_steps = scores.shape
    every = list(combinations(range(num_seconds), num_steps))
    total = {seconds: sum(scores[t, k] for k, t in enumerate(seconds)) for seconds in every}
    most = max(total.values())
    return min((s for s in every if total[s] == most), key=lambda seconds: seconds[::-1])


@given(score_matrices())
@settings(max_examples=200, deadline=None)
def test_alignment_is_the_best_of_all_placements(scores: np.ndarray) -> None:
    assert tuple(align_ordered(scores)) == best_by_trial(scores)


@given(score_matrices())
@settings(max_examples=50, deadline=None)
def test_alignment_ignores_constants_added_to_the_scores_of_a_step(scores: np.ndarray) -> None:
    shift = np.arange(scores.shape[1]) * 0.25
    assert np.array_equal(align_ordered(scores), align_ordered(scores + shift))


def test_alignment_by_hand() -> None:
    # Step 0 is best at 2 (5), step 1 best at 1 (5). In order both cannot have theirs: 0 at 0 (1) and 1 at 1 (5) is 6,
    # 0 at 2 (5) and 1 at 3 (2) is 7.
    scores = np.array([[1.0, 0.0], [0.0, 5.0], [5.0, 0.0], [0.0, 2.0]])
    assert align_ordered(scores).tolist() == [2, 3]
    truth = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    assert aligned_hits(scores, truth).tolist() == [1, 0]
    assert best_second_hits(scores, truth).tolist() == [1, 1]  # each by itself: 2 and 1


def test_equal_scores_select_the_first_seconds() -> None:
    assert align_ordered(np.zeros((5, 3))).tolist() == [0, 1, 2]


def test_long_videos_take_moments() -> None:
    scores = np.random.default_rng(0).standard_normal((5000, 20))
    seconds = align_ordered(scores)
    assert (np.diff(seconds) > 0).all() and len(seconds) == 20


def test_more_steps_than_seconds_say_so() -> None:
    with pytest.raises(TrichordError, match="3 steps cannot be placed at different seconds of 2"):
        align_ordered(np.zeros((2, 3)))


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]]), np.array([[-np.inf], [0.0]])])
def test_scores_must_be_a_finite_matrix(scores: np.ndarray) -> None:
    with pytest.raises(TrichordError):
        align_ordered(scores)


def test_truth_of_another_shape_is_refused() -> None:
    with pytest.raises(TrichordError, match="they must be equal"):
        aligned_hits(np.zeros((3, 2)), np.zeros((4, 2)))


@given(score_matrices(), st.integers(0, 2**16))
@settings(max_examples=100, deadline=None)
def test_best_seconds_count_ties_by_their_expected_value(scores: np.ndarray, seed: int) -> None:
    truth = np.random.default_rng(seed).random(scores.shape) < 0.4
    for k, hit in enumerate(best_second_hits(scores, truth)):
        tied = [t for t in range(len(scores)) if scores[t, k] == max(scores[:, k])]
        assert hit == pytest.approx(sum(truth[t, k] for t in tied) / len(tied))
    collapsed = best_second_hits(np.zeros(scores.shape), truth)
    assert collapsed == pytest.approx(best_second_chance(truth))


def test_best_step_of_annotated_seconds() -> None:
    # Second 0: step 1 is best and annotated. Second 1: both tie, step 0 is annotated: a half. Second 2: not annotated.
    scores = np.array([[0.0, 1.0], [2.0, 2.0], [3.0, 0.0]])
    truth = np.array([[0, 1], [1, 0], [0, 0]])
    assert best_step_shares(scores, truth).tolist() == [1.0, 0.5]


def test_chance_of_alignment() -> None:
    rng = np.random.default_rng(0)
    # as many seconds as steps: one placement, whatever the scores
    truth = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    assert aligned_chance(truth, 3, rng).tolist() == [1, 0, 1]
    # one step: every second is as likely, 3 of 10 are annotated
    truth = np.arange(10)[:, None] < 3
    assert aligned_chance(truth, 4000, rng)[0] == pytest.approx(0.3, abs=0.03)
    # two steps in three seconds: (0, 1), (0, 2) and (1, 2) each are best with some probability, which sum to 1
    first = [aligned_chance(np.eye(3)[:, [a, b]], 500, np.random.default_rng(1)) for a, b in ((0, 1), (1, 2))]
    assert first[0][0] + first[1][0] == pytest.approx(1)


def test_the_two_recalls_differ() -> None:
    # Task a: video 1 has 1 of 1 steps hit, video 2 has 1 of 4. Pooled (1+1)/(1+4) = 40 %, per video (1 + 1/4)/2 = 62.5 %.
    # Task b: one video, 1 of 2: 50 % either way. Means over tasks: 45 % and 56.25 %.
    hits, present, task = np.array([1.0, 1.0, 1.0]), np.array([1, 4, 2]), ["a", "a", "b"]
    pooled, per_video = recall_pooled_per_task(hits, present, task), recall_mean_over_videos(hits, present, task)
    assert dict(zip(pooled.tasks, pooled.recalls, strict=True)) == pytest.approx({"a": 40.0, "b": 50.0})
    assert dict(zip(per_video.tasks, per_video.recalls, strict=True)) == pytest.approx({"a": 62.5, "b": 50.0})
    assert (pooled.mean, per_video.mean) == pytest.approx((45.0, 56.25))


def test_videos_and_tasks_without_annotated_steps_are_left_out() -> None:
    hits, present, task = np.array([0.0, 1.0, 0.0]), np.array([0, 2, 0]), ["a", "a", "b"]
    for recall in (recall_pooled_per_task, recall_mean_over_videos):
        recalls = recall(hits, present, task)
        assert (recalls.tasks, recalls.mean, recalls.num_videos) == (("a",), 50.0, 1)
        with pytest.raises(TrichordError, match="no video has an annotated step"):
            recall(np.zeros(2), np.zeros(2), ["a", "b"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_recalls_against_loops(videos: list[tuple[int, int, str]]) -> None:
    present = np.array([max(p, h) for h, p, _ in videos])
    hits = np.array([min(h, p) for h, p, _ in videos], float)
    task = [t for _, _, t in videos]
    if not present.any():
        return
    pooled, mean = [], []
    for name in sorted(set(task)):
        members = [i for i, t in enumerate(task) if t == name and present[i] > 0]
        if members:
            pooled.append(100 * sum(hits[i] for i in members) / sum(present[i] for i in members))
            mean.append(100 * sum(hits[i] / present[i] for i in members) / len(members))
    assert recall_pooled_per_task(hits, present, task).mean == pytest.approx(np.mean(pooled))
    assert recall_mean_over_videos(hits, present, task).mean == pytest.approx(np.mean(mean))


def test_average_precision_by_hand() -> None:
    # Step 0 over both videos, best first: yes (0.9), no (0.8), yes (0.7), no (0.1): (1/1 + 2/3) / 2 = 5/6.
    # Step 1: nowhere annotated, left out.
    scores = [np.array([[0.9, 0.0], [0.8, 0.0]]), np.array([[0.7, 0.0], [0.1, 0.0]])]
    truth = [np.array([[1, 0], [0, 0]]), np.array([[1, 0], [0, 0]])]
    assert task_average_precision(scores, truth) == pytest.approx(100 * 5 / 6)
    with pytest.raises(TrichordError, match="no step of the task"):
        task_average_precision(scores, [np.zeros((2, 2)), np.zeros((2, 2))])


def slow_average_precision(right: list[bool], scores: list[float]) -> float:
    """Sum steps of recall times precision over falling thresholds; ties pass a threshold together (as in scikit-learn)."""
    total, found_before = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        above = [r for r, s in zip(right, scores, strict=True) if s >= threshold]
        total += (sum(above) - found_before) / sum(right) * sum(above) / len(above)
        found_before = sum(above)
    return total


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2**16)), min_size=1, max_size=3),
    st.integers(1, 3),
    st.booleans(),
)
@example([(1, 0)], 1, True)
@settings(max_examples=80, deadline=None)
def test_mean_average_precision_against_loops(videos: list[tuple[int, int]], num_steps: int, alike: bool) -> None:
    truth, scores = [], []
    for num_seconds, seed in videos:
        rng = np.random.default_rng(seed)
        truth.append(rng.random((num_seconds, num_steps)) < 0.4)
        scores.append(rng.integers(0, 1 if alike else 3, (num_seconds, num_steps)).astype(float))  # ties
    truth[0][0, 0] = True
    slow, shares = [], []
    for k in range(num_steps):
        right = [bool(row[k]) for part in truth for row in part]
        if any(right):
            slow.append(slow_average_precision(right, [row[k] for part in scores for row in part]))
            shares.append(sum(right) / len(right))
    assert task_average_precision(scores, truth) == pytest.approx(100 * np.mean(slow))
    if alike:
        assert task_average_precision(scores, truth) == pytest.approx(100 * np.mean(shares))
    assert task_precision_chance(truth) >= 100 * np.mean(shares) - 1e-9


@pytest.mark.parametrize(("num", "positives"), [(1, 1), (4, 1), (5, 2), (6, 3), (6, 6)])
def test_chance_of_average_precision_is_the_mean_over_all_orders(num: int, positives: int) -> None:
    values = []
    for places in combinations(range(1, num + 1), positives):  # where the right ones stand: each choice as likely
        values.append(sum((i + 1) / place for i, place in enumerate(places)) / positives)
    assert average_precision_chance(num, positives) == pytest.approx(np.mean(values))


def test_chance_of_mean_average_precision_equals_random_scores() -> None:
    rng = np.random.default_rng(0)
    truth = [rng.random((12, 3)) < 0.2, rng.random((9, 3)) < 0.2]
    truth[0][:, 2] = truth[1][:, 2] = False  # nowhere annotated
    drawn = [task_average_precision([rng.random(part.shape) for part in truth], truth) for _ in range(500)]
    error = np.std(drawn) / len(drawn) ** 0.5
    assert task_precision_chance(truth) == pytest.approx(np.mean(drawn), abs=4 * error) and error < 0.5
    with pytest.raises(TrichordError, match="no step of the task"):
        task_precision_chance([np.zeros((2, 2))])


@pytest.mark.parametrize("seed", range(3))
def test_chance_of_alignment_against_every_placement_of_drawn_scores(seed: int) -> None:
    """With independent draws and search, the two means agree within their variation."""
    rng = np.random.default_rng(seed)
    truth = rng.random((6, 3)) < 0.5
    every, draws = np.array(list(combinations(range(6), 3))), 4000
    scores = rng.standard_normal((draws, 6, 3))
    totals = sum(scores[:, every[:, k], k] for k in range(3))  # (draws, placements)
    best = every[np.asarray(totals).argmax(axis=1)]
    hits = truth[best, np.arange(3)]
    chance = aligned_chance(truth, draws, np.random.default_rng(seed + 100))
    assert chance == pytest.approx(hits.mean(axis=0), abs=4 * 2**0.5 * 0.5 / draws**0.5)
    naive = truth[every, np.arange(3)].mean(axis=0)  # all placements as likely: another number
    assert np.abs(chance - naive).max() > 0.01


@given(score_matrices(), st.integers(0, 2**16))
@settings(max_examples=100, deadline=None)
def test_best_steps_of_annotated_seconds_against_loops(scores: np.ndarray, seed: int) -> None:
    truth = np.random.default_rng(seed).random(scores.shape) < 0.4
    expected = []
    for row, right in zip(scores.tolist(), truth.tolist(), strict=True):
        if any(right):
            tied = [k for k, score in enumerate(row) if score == max(row)]
            expected.append(sum(right[k] for k in tied) / len(tied))
    assert best_step_shares(scores, truth).tolist() == pytest.approx(expected)
    alike = best_step_shares(np.zeros(scores.shape), truth)
    assert alike.tolist() == pytest.approx([sum(right) / len(right) for right in truth.tolist() if any(right)])
