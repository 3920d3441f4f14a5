"""The probes compared with slow versions: loops over neighbours, and a general minimiser of the penalised likelihood."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from trichord.errors import TrichordError
from trichord.tasks.labels import probes
from trichord.tasks.labels.probes import knn_scores, linear_probe


def slow_votes(train: np.ndarray, kind: list[int], query: np.ndarray, k: int, temperature: float) -> list[float]:
    """Return mean votes over all choices of the neighbours that tie for the last positions."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        length = (sum(float(x) ** 2 for x in a) * sum(float(x) ** 2 for x in b)) ** 0.5
        return round(sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / length, 6) if length else 0.0

    scores = [cosine(query, row) for row in train]
    k = min(k, len(train))
    last = sorted(scores, reverse=True)[k - 1]
    above = [i for i, s in enumerate(scores) if s > last]
    choices = list(combinations([i for i, s in enumerate(scores) if s == last], k - len(above)))
    votes = [0.0] * (max(kind) + 1)
    for choice in choices:
        for i in [*above, *choice]:
            votes[kind[i]] += float(np.exp((scores[i] - 1) / temperature)) / len(choices)
    return votes


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 7), st.just(2)), elements=st.integers(-2, 2)),
    st.lists(st.integers(0, 2), min_size=7, max_size=7),
    hnp.arrays(np.float32, (2, 2), elements=st.integers(-2, 2)),
    st.integers(1, 8),
)
@example(  # a right angle, whose product a fused sum leaves at 1e-17, ties with rows of zeros
    np.array([[0, 0]] * 4 + [[1, 1]] + [[0, 0]] * 2, np.float32), [0] * 6 + [1], np.array([[1, -1]] * 2, np.float32), 1
)
def test_votes_are_the_mean_over_all_choices_of_ties(
    train: np.ndarray, kinds: list[int], test: np.ndarray, k: int
) -> None:
    kind = kinds[: len(train)]
    scores = knn_scores(train, np.array(kind), test, [k], temperature=0.5)[k]
    expected = [slow_votes(train, kind, query, k, 0.5) for query in test]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_blocks_and_the_order_of_rows_change_no_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train, test, kind = rng.integers(-2, 3, (40, 3)).astype(float), rng.standard_normal((11, 3)), rng.integers(0, 4, 40)
    whole = knn_scores(train, kind, test)
    monkeypatch.setattr(probes, "_ROWS", 3)
    order = rng.permutation(40)
    again = knn_scores(train[order], kind[order], test)
    for k, votes in whole.items():
        np.testing.assert_allclose(again[k], votes, rtol=1e-9, atol=1e-12)
    assert list(whole) == [1, 5, 10, 20, 100, 200]
    np.testing.assert_array_equal(whole[100], whole[200])  # all forty vote


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_linear_probe_minimises_the_penalised_likelihood(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    train, test, kind = rng.standard_normal((30, 3)) * [1, 10, 0.1] + 5, rng.standard_normal((4, 3)), np.arange(30) % 3
    kind = np.minimum(kind, num_classes - 1)
    train[:, 0] += kind
    mean, scale, penalty = train.mean(0), train.std(0), 0.3
    x = (train - mean) / scale

    free = num_classes if num_classes > 2 else 1  # two classes: one weight vector, the other's score is 0

    def scores_of(flat: np.ndarray, rows: np.ndarray) -> np.ndarray:
        scores = rows @ flat[:-free].reshape(free, 3).T + flat[-free:]
        return scores if free > 1 else np.concatenate([0 * scores, scores], axis=1)

    def loss(flat: np.ndarray) -> float:
        scores = scores_of(flat, x)
        log_sum = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
        return float(penalty * (log_sum - scores[np.arange(30), kind]).sum() + 0.5 * (flat[:-free] ** 2).sum())

    slow = scores_of(minimize(loss, np.zeros(4 * free), tol=1e-12).x, (test - mean) / scale)
    actual = linear_probe(train, kind, test, penalties=[penalty]).scores
    if num_classes == 2:
        np.testing.assert_array_equal(actual[:, 0], -actual[:, 1])
        np.testing.assert_allclose(actual[:, 1], slow[:, 1], atol=2e-2)
    else:
        np.testing.assert_allclose(actual - actual[:, :1], slow - slow[:, :1], atol=2e-2)


def test_the_penalty_is_chosen_on_training_rows_alone() -> None:
    rng = np.random.default_rng(0)
    train, kind = rng.standard_normal((60, 20)), rng.integers(0, 3, 60)
    first = linear_probe(train, kind, train[:3], seed=1)
    other = linear_probe(train, kind, rng.standard_normal((7, 20)) * 100, seed=1)
    assert first.penalty == other.penalty and first.validated == other.validated and len(first.validated) == 5
    assert first.penalty == probes.PENALTIES[int(np.argmax(first.validated))]
    assert max(first.validated) < 60  # noise: what fits its own rows (100 %) does not validate


def slow_class(train: np.ndarray, kind: np.ndarray, row: np.ndarray, penalty: float) -> int:
    """Return the class of a row by a general minimiser, with features standardised by the training rows."""
    mean, scale, classes = train.mean(0), train.std(0), sorted(set(kind.tolist()))
    x, width = (train - mean) / scale, train.shape[1] + 1
    place = np.array([classes.index(k) for k in kind])

    def scores_of(flat: np.ndarray, rows: np.ndarray) -> np.ndarray:
        weights = flat.reshape(len(classes), width)
        return rows @ weights[:, 1:].T + weights[:, 0]

    def loss(flat: np.ndarray) -> float:
        scores = scores_of(flat, x)
        fit = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(x)), place]
        return float(penalty * fit.sum() + 0.5 * (flat.reshape(len(classes), width)[:, 1:] ** 2).sum())

    flat = minimize(loss, np.zeros(len(classes) * width)).x
    return classes[int(scores_of(flat, ((row - mean) / scale)[None])[0].argmax())]


@pytest.mark.parametrize("with_videos", [False, True])
def test_validation_uses_predictions_from_the_other_parts(with_videos: bool) -> None:
    rng = np.random.default_rng(5)
    kind = np.minimum(np.arange(18) // 2 % 4, 2)  # one class is more frequent
    train = rng.standard_normal((18, 2)) * [1.0, 20.0] + 1.2 * np.stack([kind == 1, 20 * (kind == 2)], axis=1)
    videos = np.array([f"v{i // 2}" for i in range(18)]) if with_videos else None
    penalties = (1e-3, 10.0)
    parts = probes._parts(kind, videos, seed=4)
    expected = []
    for penalty in penalties:
        right = 0
        for fit, held in parts:
            assert sorted([*fit, *held]) == list(range(18))
            right += sum(slow_class(train[fit], kind[fit], train[i], penalty) == kind[i] for i in held)
        expected.append(100 * right / 18)
    scores = linear_probe(train, kind, train[:1], groups=videos, seed=4, penalties=penalties)
    assert scores.validated == pytest.approx(expected) and expected[0] != expected[1]
    assert scores.penalty == penalties[int(expected[1] > expected[0])]


def test_clips_of_a_video_are_on_one_side() -> None:
    rng = np.random.default_rng(0)
    videos = np.repeat([f"v{i}" for i in range(12)], 5)
    kind = np.repeat(np.arange(12) % 3, 5)
    parts = probes._parts(kind, videos, seed=0)
    assert sorted(np.concatenate([held for _, held in parts]).tolist()) == list(range(60))
    for fit, held in parts:
        assert not set(videos[fit]) & set(videos[held]) and len(fit) + len(held) == 60
        assert set(kind[held]) == {0, 1, 2}  # four videos a class are spread over three parts
    looks = np.repeat(rng.standard_normal((12, 30)), 5, axis=0)  # each video looks like itself alone
    apart, together = (linear_probe(looks, kind, looks, groups=g).validated for g in (videos, None))
    assert max(together) == 100.0 and max(apart) < 80


def test_separable_classes_are_classified_reproducibly() -> None:
    rng = np.random.default_rng(3)
    kind = np.arange(40) % 4
    rows = np.eye(4)[kind] * 5 + 0.1 * rng.standard_normal((40, 4))
    probe = linear_probe(rows.astype(np.float32), kind, rows[:8].astype(np.float32))
    assert (probe.scores.argmax(1) == kind[:8]).all() and probe.converged
    assert probe.validated[1:] == (100.0,) * 4 and probe.penalty == probes.PENALTIES[1]  # of equals the strongest
    again = linear_probe(rows.astype(np.float32), kind, rows[:8].astype(np.float32))
    assert probe.scores.tobytes() == again.scores.tobytes()


def test_rare_classes_constant_features_and_too_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([[0.0, 1], [1, 1], [2, 1], [5, 1]])
    probe = linear_probe(rows, np.array([0, 0, 0, 1]), rows)
    assert probe.scores.shape == (4, 2) and np.isfinite(probe.scores).all()
    one_video = linear_probe(rows, np.array([0, 0, 1, 1]), rows, groups=np.array(["v"] * 4))
    assert one_video.validated == () and one_video.penalty == 1.0
    with pytest.raises(TrichordError, match="a probe needs training clips of at least two classes"):
        linear_probe(rows, np.zeros(4, int), rows)
    monkeypatch.setattr(probes, "MOST_STEPS", 1)
    rng = np.random.default_rng(0)
    assert not linear_probe(
        rng.standard_normal((50, 5)), np.arange(50) % 5, rows[:, [0] * 5], penalties=[10.0]
    ).converged
