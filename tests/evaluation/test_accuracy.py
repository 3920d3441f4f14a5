"""Accuracy compared with orders that are counted one by one, and the prompts of classes."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiny import VIDEO_DIM, WORD_DIM
from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import retrieval_ranks
from trichord.nn import MCN
from trichord.store import Store
from trichord.tasks.labels.accuracy import Scored, over_folds
from trichord.tasks.labels.classification import class_embeddings
from trichord.tasks.prompts import embed_prompts, found_prompts, prompts_of


def slow_hit(scores: np.ndarray, truth: int, k: int) -> float:
    """Return the share of all orders of the classes with the truth among the first k after a stable sort by score."""
    hits = []
    for order in permutations(range(len(scores))):
        ranked = sorted(order, key=lambda c: -scores[c])
        hits.append(truth in ranked[:k])
    return float(np.mean(hits))


@settings(max_examples=40)
@given(st.integers(2, 5).flatmap(lambda c: st.tuples(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(c)), elements=st.integers(0, 2)),
    st.lists(st.integers(0, c), min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6),
)))  # fmt: skip
def test_accuracy_is_the_mean_over_all_orders_of_ties(drawn: tuple[np.ndarray, list[int], list[bool]]) -> None:
    scores, truths, lost = drawn
    n, num_classes = scores.shape
    truth, missing = np.array(truths[:n]), np.array(lost[:n])  # a truth of C cannot be chosen
    scored = Scored.of_scores(np.arange(n), truth, scores[~missing], missing)
    expected = np.array([
        0.0 if missing[i] or truth[i] == num_classes else slow_hit(scores[i], truth[i], 1) for i in range(n)
    ])  # fmt: skip
    possible = [not missing[i] and truth[i] < num_classes for i in range(n)]
    np.testing.assert_allclose(scored.hits(1), expected, atol=1e-12)
    by_class = [expected[truth == c].mean() for c in set(truth.tolist())]
    chance_by_class = [np.mean(np.array(possible)[truth == c]) / num_classes for c in set(truth.tolist())]
    for value, _, each in scored.measures().values():
        assert 100 * each.mean() == pytest.approx(value)
    measures = {name: parts[:2] for name, parts in scored.measures().items()}
    assert list(measures) == ["top-1", "top-1, mean over classes"]
    assert measures["top-1"] == pytest.approx((100 * expected.mean(), 100 * np.mean(possible) / num_classes))
    assert measures["top-1, mean over classes"] == pytest.approx(
        (100 * np.mean(by_class), 100 * np.mean(chance_by_class))
    )


def test_top_5_by_hand() -> None:
    # classes 0..6; the truth 6 has: four above; four above and one beside it; six above
    scores = np.array([[5, 4, 3, 2, 0, 0, 1], [5, 4, 3, 2, 1, 0, 1], [9, 8, 7, 6, 5, 4, 1]], float)
    scored = Scored.of_scores(np.arange(3), np.full(3, 6), scores)
    assert scored.hits(5).tolist() == [1.0, 0.5, 0.0]
    assert scored.measures()["top-5"][:2] == pytest.approx((50.0, 100 * 5 / 7))


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 2), st.integers(6, 7)), elements=st.integers(0, 2)),
    st.integers(0, 7),
)
def test_top_5_is_the_mean_over_all_orders_of_ties(scores: np.ndarray, truth: int) -> None:
    n, num_classes = scores.shape
    truth = min(truth, num_classes)  # C cannot be chosen
    scored = Scored.of_scores(np.arange(n), np.full(n, truth), scores)
    expected = [slow_hit(row, truth, 5) if truth < num_classes else 0.0 for row in scores]
    np.testing.assert_allclose(scored.hits(5), expected, atol=1e-12)
    chance = 100 * 5 / num_classes if truth < num_classes else 0.0
    assert scored.measures()["top-5"][:2] == pytest.approx((100 * np.mean(expected), chance))


@given(st.integers(1, 9), st.integers(2, 9))
def test_a_collapsed_model_scores_chance(n: int, num_classes: int) -> None:
    truth = np.arange(n) % num_classes
    counts = retrieval_ranks(np.ones((n, 3), np.float32), np.ones((num_classes, 3), np.float32), truth)
    for value, chance, _ in Scored.of(np.arange(n), truth, counts).measures().values():
        assert value == pytest.approx(chance)


def test_prompts() -> None:
    assert prompts_of("ApplyEyeMakeup") == ["apply eye makeup"]
    assert prompts_of("brush_hair", ["a video of {}", "{}, {}"]) == ["a video of brush hair", "brush hair, brush hair"]
    with pytest.raises(
        TrichordError, match=r"template 'a video' has no placeholder for the class; write \{\} in its place"
    ):
        prompts_of("x", ["a video"])


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.integers(-3, 3)), st.booleans())
def test_class_embeddings_are_means_over_prompts(rows: np.ndarray, cosine: bool) -> None:
    owner = np.arange(len(rows)) % 2
    rows[0, 0] = np.nan if len(rows) % 2 else rows[0, 0]
    means = class_embeddings(rows, owner, 3, cosine)
    for c in range(3):
        rows_of_class = [
            [float(x) for x in rows[p]] for p in range(len(rows)) if owner[p] == c and np.isfinite(rows[p]).all()
        ]
        if not rows_of_class:
            assert np.isnan(means[c]).all()
            continue
        if cosine:
            rows_of_class = [[x / (sum(y * y for y in row) ** 0.5 or 1.0) for x in row] for row in rows_of_class]
        mean = [sum(column) / len(rows_of_class) for column in zip(*rows_of_class, strict=True)]
        if cosine:
            length = sum(x * x for x in mean) ** 0.5
            if length < 1e-6:
                continue  # opposite prompts: any direction is rounding
            mean = [x / length for x in mean]
        np.testing.assert_allclose(means[c], mean, atol=1e-6)


def test_prompts_are_embedded_as_the_words_of_a_clip(tiny_store: Path) -> None:
    store = Store(tiny_store)
    torch.manual_seed(0)
    model = MCN(
        video_dim=VIDEO_DIM, embed_dim=8, word_dim=WORD_DIM, reconstruction_dim=None, audio_channels=(4, 4, 4, 4)
    )
    rows, unknown = embed_prompts(model, store, ["worda wordb", "nothing known", "wordb odd worda wordc"], 2)
    assert unknown == {"nothing known": ["nothing", "known"], "wordb odd worda wordc": ["odd"]}
    assert np.isnan(rows[1]).all()
    place = {word: i for i, word in enumerate(store.words)}
    for row, words in ((0, ["worda", "wordb"]), (2, ["wordb", "worda"])):  # two words are read
        text = torch.from_numpy(np.stack([store.word_vectors[place[word]] for word in words]))[None]
        alone = model.eval().embed(text=text)["text"][0].detach().numpy()
        np.testing.assert_allclose(rows[row], alone, rtol=1e-5, atol=1e-6)


def test_prompts_among_the_captions_of_a_file() -> None:
    embedded = Embedded.of(
        {"video": np.eye(3), "text": np.eye(3)[[2, 1, 0]]}, captions=["Brush  hair", "YoYo", "brush hair"]
    )
    rows = found_prompts(embedded, ["brush hair", "yo yo", "run"])
    np.testing.assert_array_equal(rows[:2], np.eye(3)[[2, 1]])
    assert np.isnan(rows[2]).all()
    with pytest.raises(TrichordError, match="embeddings: there are no texts with captions"):
        found_prompts(Embedded.of({"video": np.eye(2)}), ["run"])


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 7), st.floats(0, 1)), min_size=1, max_size=8), min_size=1, max_size=4)
)
def test_contributions_of_clips_to_a_mean_over_folds(drawn: list[list[tuple[int, float]]]) -> None:
    folds = [dict(fold) for fold in drawn]  # by clip what it gives
    figures = [sum(fold.values()) / len(fold) for fold in folds]
    mean_over_folds = over_folds([(np.array(list(f)), np.array(list(f.values()))) for f in folds], 9)
    tested = {clip for fold in folds for clip in fold}
    assert {int(i) for i in np.flatnonzero(~np.isnan(mean_over_folds))} == tested
    mean = sum(figures) / len(figures)
    assert np.nanmean(mean_over_folds) == pytest.approx(mean, abs=1e-12)
    for clip in tested:
        given_ = [(f[clip] - figure) / len(f) for f, figure in zip(folds, figures, strict=True) if clip in f]
        assert mean_over_folds[clip] == pytest.approx(mean + len(tested) / len(folds) * sum(given_))


def test_folds_of_the_same_clips_and_of_unequal_sizes() -> None:
    same = over_folds([(np.array([2, 0]), np.array([1.0, 0.0])), (np.array([0, 2]), np.array([1.0, 1.0]))], 4)
    np.testing.assert_allclose(same, [0.5, np.nan, 1.0, np.nan])  # a clip's mean over the folds
    right = over_folds([(np.arange(12), np.ones(12)), (np.arange(12, 15), np.ones(3))], 15)
    np.testing.assert_allclose(right, np.ones(15))
    # by hand: fold figures 1/2 and 1, R = 3/4; n / F = 3 / 2
    mean_over_folds = over_folds([(np.array([0, 1]), np.array([1.0, 0.0])), (np.array([2]), np.array([1.0]))], 3)
    np.testing.assert_allclose(mean_over_folds, [0.75 + 1.5 * 0.25, 0.75 - 1.5 * 0.25, 0.75])


def test_the_scatter_of_a_mean_of_folds_is_that_under_sampling_clips() -> None:
    """Resample the clips and compute the folds: their mean varies as the contributions of clips predict."""
    rng = np.random.default_rng(0)
    num = 300
    folds = [np.arange(200), np.arange(100, 300), np.arange(250, 300)]  # they overlap and are unequal
    hits = [(rng.random(len(f)) < share).astype(float) for f, share in zip(folds, (0.3, 0.6, 0.8), strict=True)]
    each = over_folds(list(zip(folds, hits, strict=True)), num)
    by_clip = [np.full(num, np.nan) for _ in folds]
    for row, fold, hit in zip(by_clip, folds, hits, strict=True):
        row[fold] = hit
    drawn = []
    for _ in range(4000):
        clips = rng.integers(0, num, num)
        drawn.append(np.mean([np.nanmean(row[clips]) for row in by_clip]))
    assert each.std() / num**0.5 == pytest.approx(np.std(drawn), rel=0.06)
