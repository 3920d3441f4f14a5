"""Transcripts aligned with videos compared with brute force, and their overlaps computed by hand."""

from __future__ import annotations

from itertools import combinations
from math import exp, lgamma, log

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.tasks.steps.protocols import segment_overlaps
from trichord.tasks.steps.segments import BACKGROUND, align_transcript, overlaps, transcript_of


def best_by_trial(log_probs: np.ndarray, means: np.ndarray | None, stride: int) -> tuple[int, ...]:
    """Try every segmentation; of the best ones (up to rounding), prefer the latest entry that begins earliest, and so on."""
    num_frames, num_entries = log_probs.shape
    totals = {}
    for inner in combinations(range(stride, num_frames, stride), num_entries - 1):
        borders = (0, *inner, num_frames)
        total = 0.0
        for s, (begin, end) in enumerate(zip(borders[:-1], borders[1:], strict=True)):
            total += sum(log_probs[t, s] for t in range(begin, end))
            if means is not None:
                total += (end - begin) * log(means[s]) - means[s] - lgamma(end - begin + 1)
        totals[borders] = total
    most = max(totals.values())
    return min((b for b, total in totals.items() if total > most - 1e-9), key=lambda borders: borders[::-1])


def score(log_probs: np.ndarray, borders: np.ndarray, means: np.ndarray | None) -> float:
    total = 0.0
    for s in range(log_probs.shape[1]):
        length = int(borders[s + 1] - borders[s])
        total += log_probs[borders[s] : borders[s + 1], s].sum()
        total += 0 if means is None else length * log(means[s]) - means[s] - lgamma(length + 1)
    return total


@given(st.integers(1, 4), st.integers(0, 7), st.integers(1, 3), st.booleans(), st.integers(0, 2**16))
@settings(max_examples=150, deadline=None)
def test_the_cut_is_the_best_of_all(num_entries: int, more: int, stride: int, with_lengths: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_frames = num_entries * stride + more
    log_probs = rng.standard_normal((num_frames, num_entries))
    means = rng.uniform(0.5, 5, num_entries) if with_lengths else None
    borders = align_transcript(log_probs, means, stride)
    expected = np.array(best_by_trial(log_probs, means, stride))
    assert score(log_probs, borders, means) == pytest.approx(score(log_probs, expected, means))
    assert borders.tolist() == expected.tolist()


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_of_equally_good_cuts_the_earliest(num_entries: int, more: int, seed: int) -> None:
    log_probs = np.random.default_rng(seed).integers(-1, 1, (num_entries + more, num_entries)).astype(float)
    assert align_transcript(log_probs).tolist() == list(best_by_trial(log_probs, None, 1))


def test_poisson_lengths_alone_cut_evenly() -> None:
    assert align_transcript(np.zeros((12, 3)), np.full(3, 4.0)).tolist() == [0, 4, 8, 12]


def test_five_thousand_frames_and_twenty_entries() -> None:
    borders = align_transcript(np.zeros((5000, 20)), np.full(20, 250.0))
    assert np.diff(borders).tolist() == [250] * 20


def test_inconsistent_input_is_reported() -> None:
    with pytest.raises(TrichordError, match="a transcript of 3 entries does not fit in 2 segments of 1 frames"):
        align_transcript(np.zeros((2, 3)))
    with pytest.raises(TrichordError, match="2 segments of 4 frames"):
        align_transcript(np.zeros((8, 3)), stride=4)
    with pytest.raises(TrichordError, match="finite"):
        align_transcript(np.full((4, 2), -np.inf))
    with pytest.raises(TrichordError, match="2 numbers above 0"):
        align_transcript(np.zeros((4, 2)), np.array([1.0, 0.0]))
    with pytest.raises(TrichordError, match="the stride of 0"):
        align_transcript(np.zeros((4, 2)), stride=0)
    with pytest.raises(TrichordError, match="without frames"):
        transcript_of(np.zeros(0))


@given(st.lists(st.integers(-1, 2), min_size=1, max_size=12))
def test_a_transcript_reproduces_the_labels(labels: list[int]) -> None:
    transcript, borders = transcript_of(np.array(labels))
    assert np.repeat(transcript, np.diff(borders)).tolist() == labels
    assert (transcript[1:] != transcript[:-1]).all()


def test_overlaps_by_hand() -> None:
    # Frames      0 1 2 3 4 5 6 7 8 9
    # annotated   b b 0 0 0 b 1 1 b b      transcript b 0 b 1 b
    # found       b 0 0 0 b b b 1 1 b
    # Step 0: both 2 frames (2, 3), either 4 (1..4): IoU 1/2; of 3 found: IoD 2/3. Step 1: both 1 (7), either 3, found 2.
    # Right frames: 0, 2, 3, 5, 7, 9 of 10.
    transcript = np.array([BACKGROUND, 0, BACKGROUND, 1, BACKGROUND])
    overlap = overlaps(transcript, np.array([0, 2, 5, 6, 8, 10]), np.array([0, 1, 4, 7, 9, 10]))
    assert overlap.iou == pytest.approx([1 / 2, 1 / 3])
    assert overlap.iod == pytest.approx([2 / 3, 1 / 2])
    assert (overlap.num_right, overlap.num_frames) == (6, 10)


def test_a_step_that_is_done_twice_has_two_pairs() -> None:
    # 0 at [0, 2) and again at [4, 6), 1 between. Found: the second 0 is nowhere near, though the first covers much.
    transcript = np.array([0, 1, 0])
    overlap = overlaps(transcript, np.array([0, 2, 4, 6]), np.array([0, 4, 5, 6]))
    assert overlap.iou == pytest.approx([2 / 4, 0 / 3, 1 / 2])
    assert overlap.iod == pytest.approx([2 / 4, 0, 1])


@given(st.integers(1, 5), st.integers(0, 8), st.integers(0, 2**16))
@settings(max_examples=80, deadline=None)
def test_overlaps_against_sets_of_frames(num_entries: int, more: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_frames = num_entries + more

    def cut() -> np.ndarray:
        inner = np.sort(rng.choice(np.arange(1, num_frames), num_entries - 1, replace=False))
        return np.concatenate([[0], inner, [num_frames]]).astype(int)

    truth, detected, transcript = cut(), cut(), rng.integers(-1, 3, num_entries)
    overlap = overlaps(transcript, truth, detected)
    pairs = [
        (set(range(truth[i], truth[i + 1])), set(range(detected[i], detected[i + 1])))
        for i in range(num_entries)
        if transcript[i] != BACKGROUND
    ]
    assert overlap.iou == pytest.approx([len(g & d) / len(g | d) for g, d in pairs])
    assert overlap.iod == pytest.approx([len(g & d) / len(d) for g, d in pairs])
    of_truth = {(t, transcript[i]) for i in range(num_entries) for t in range(truth[i], truth[i + 1])}
    of_found = {(t, transcript[i]) for i in range(num_entries) for t in range(detected[i], detected[i + 1])}
    assert (overlap.num_right, overlap.num_frames) == (len(of_truth & of_found), num_frames)  # MoF


def slow_overlaps(scores: np.ndarray, truth: np.ndarray) -> tuple[list[float], list[float], int]:
    """Return IoU and IoD of each segment, and correct seconds, over every segmentation with log-softmax and Poisson lengths."""
    num, every = len(scores), [float(x) for row in scores for x in row]
    mean = sum(every) / len(every)
    deviation = (sum((x - mean) ** 2 for x in every) / len(every)) ** 0.5 or 1.0
    labels = [next((k for k, right in enumerate(row) if right), BACKGROUND) for row in truth.tolist()]
    transcript = [label for t, label in enumerate(labels) if t == 0 or label != labels[t - 1]]
    log_probs = []
    for row in scores.tolist():
        logits = {k: (x - mean) / deviation for k, x in enumerate(row)} | {BACKGROUND: 0.0}
        total = log(sum(exp(x) for x in logits.values()))
        log_probs.append([logits[label] - total for label in transcript])
    lengths = np.full(len(transcript), num / len(transcript))
    boundaries = best_by_trial(np.array(log_probs), lengths, 1)
    filled = [label for s, label in enumerate(transcript) for _ in range(boundaries[s + 1] - boundaries[s])]
    begins = [t for t, label in enumerate(labels) if t == 0 or label != labels[t - 1]] + [num]
    iou, iod = [], []
    for s, label in enumerate(transcript):
        g, d = set(range(begins[s], begins[s + 1])), set(range(boundaries[s], boundaries[s + 1]))
        if label != BACKGROUND:
            iou.append(len(g & d) / len(g | d))
            iod.append(len(g & d) / len(d))
    return iou, iod, sum(a == b for a, b in zip(filled, labels, strict=True))


@given(st.integers(1, 8), st.integers(1, 3), st.sampled_from(["drawn", "ties", "alike"]), st.integers(0, 2**16))
@example(1, 1, "alike", 0)
@example(5, 1, "alike", 5)  # cuts into 2, 2, 1 and 1, 2, 2 seconds are equally good, but for rounding
@settings(max_examples=120, deadline=None)
def test_segments_of_a_scored_video_against_every_cut(num: int, num_steps: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((num, num_steps)) < 0.35
    scores = (
        rng.standard_normal((num, num_steps)) if kind == "drawn" else rng.integers(0, 2, (num, num_steps)).astype(float)
    )
    scores = np.full_like(scores, 3.0) if kind == "alike" else scores
    overlap = segment_overlaps(scores, truth)
    iou, iod, right = slow_overlaps(scores, truth)
    assert overlap.num_frames == num
    assert overlap.iou.tolist() == pytest.approx(iou) and overlap.iod.tolist() == pytest.approx(iod)
    assert overlap.num_right == right
    scaled = segment_overlaps(5.0 * scores - 7.0, truth)  # brought to mean 0 and deviation 1
    if kind != "ties":
        assert (scaled.iou.tolist(), scaled.num_right) == (overlap.iou.tolist(), overlap.num_right)
