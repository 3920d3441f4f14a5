"""Retrieval in every direction, with several texts per clip, compared with loops; chance; the dual softmax."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.evaluation.counts import BestCounts
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import (
    best_truth_ranks,
    chance_recall,
    expected_hits,
    metrics_from_counts,
    retrieval_ranks,
)
from trichord.evaluation.statistics import recall_interval
from trichord.modality import Direction
from trichord.tasks.retrieval.dual_softmax import dual_softmax_ranks
from trichord.tasks.retrieval.measure import all_directions, fuse, score_direction

TWELVE = ("t2v", "t2a", "t2va", "v2t", "v2a", "v2ta", "a2t", "a2v", "a2vt", "va2t", "ta2v", "vt2a")


def test_there_are_twelve_directions() -> None:
    assert {direction.code for direction in all_directions()} == set(TWELVE) and len(all_directions()) == 12
    assert {direction.code for direction in all_directions(("text", "video"))} == {"t2v", "v2t"} and all_directions(
        ("text",)
    ) == ()


# ---- the best of several truths


def best_of_permutations(row: np.ndarray, truths: set[int], k: int) -> tuple[float, float]:
    """Return (chance of a correct item within k, mean rank of the first) over all orders that break the ties."""
    hits, places = [], []
    for order in itertools.permutations(range(len(row))):
        ranked = sorted(order, key=lambda j: -row[j])
        place = 1 + min(ranked.index(t) for t in truths)
        hits.append(place <= k)
        places.append(place)
    return float(np.mean(hits)), float(np.mean(places))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_the_best_of_several_truths(data: st.DataObject, q: int, more: int, levels: int, seed: int) -> None:
    """Ties, duplicates, one query, all equal: with one-dimensional queries of 1, the score of an item is its value."""
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(q), rng.integers(q, size=more)])
    owner = owner[rng.permutation(len(owner))]
    values = rng.integers(levels, size=len(owner)).astype(np.float32)
    counts = best_truth_ranks(np.ones((q, 1), np.float32), values[:, None], owner)
    for k in (1, 2, 3):
        closed_form = expected_hits(min(k, len(owner)), counts.greater, counts.equal, counts.truths)
        expected = [best_of_permutations(values, set(np.flatnonzero(owner == i).tolist()), k) for i in range(q)]
        assert closed_form == pytest.approx([hit for hit, _ in expected])
    metrics = metrics_from_counts(counts)
    assert metrics.meanr == pytest.approx(np.mean([place for _, place in expected]))
    best, worst = (metrics_from_counts(counts, ties=ties) for ties in ("best", "worst"))
    truths = [np.flatnonzero(owner == i) for i in range(q)]
    assert best.meanr == pytest.approx(np.mean([1 + (values > values[t].max()).sum() for t in truths]))
    above = [(values >= values[t].max()).sum() - (values[t] == values[t].max()).sum() for t in truths]
    assert worst.meanr == pytest.approx(1 + np.mean(above))


def test_one_correct_item_each_gives_the_plain_counts() -> None:
    rng = np.random.default_rng(0)
    q, g = (rng.normal(size=(40, 9)).astype(np.float32) for _ in range(2))
    owner = rng.permutation(40)
    ranks = best_truth_ranks(q, g, owner, block=7)
    plain = retrieval_ranks(q, g, np.argsort(owner))
    assert np.array_equal(ranks.greater, plain.greater) and np.array_equal(ranks.equal, plain.equal)
    assert (ranks.truths == 1).all()
    assert metrics_from_counts(ranks) == metrics_from_counts(plain)


def test_truths_that_score_nan_come_after_those_that_do_not() -> None:
    gallery = np.array([[np.nan], [1.0], [2.0], [np.nan]], np.float32)
    counts = best_truth_ranks(np.ones((2, 1), np.float32), gallery, np.array([0, 0, 1, 1]))
    assert counts.greater.tolist() == [1, 0] and counts.equal.tolist() == [1, 1]
    lost = best_truth_ranks(np.ones((1, 1), np.float32), gallery[[0, 3]], np.array([0, 0]))
    assert metrics_from_counts(lost).r10 == 0 and metrics_from_counts(lost).meanr == 2


def test_a_query_without_a_truth_is_refused() -> None:
    rows = np.ones((2, 1), np.float32)
    with pytest.raises(TrichordError, match="owner must contain one of 2 queries for each of 2 gallery items"):
        best_truth_ranks(rows, rows, [0, 0])


@pytest.mark.parametrize(("k", "gallery", "truths"), [(1, 7, 2), (5, 20, 3), (10, 12, 4), (10, 5, 2), (3, 9, 1)])
def test_chance_with_several_truths(k: int, gallery: int, truths: int) -> None:
    """1 - C(G - t, k)
    C(G, k): the probability that k drawn items include a correct one.
    """
    drawn = min(k, gallery)
    expected = 100 * (1 - comb(gallery - truths, drawn) / comb(gallery, drawn))
    assert chance_recall(k, gallery, truths) == pytest.approx(expected)
    mixed = chance_recall(k, gallery, np.array([1, truths]))
    assert mixed == pytest.approx((100 * drawn / gallery + expected) / 2)


# ---- directions, against loops


def loops(e: Embedded, direction: Direction, fusion: str) -> tuple[list[int], list[int], list[float], int]:
    """Return (clip of each query, items above the best correct one, chance of a hit at 1, missing) with plain loops."""

    def side(modalities: tuple[str, ...], clip: int, text: int) -> np.ndarray:
        parts = [e.embeddings[m][text if m == "text" else clip].astype(np.float64) for m in modalities]
        if fusion == "mean_normalized":
            return sum(part / max(np.linalg.norm(part), 1e-12) for part in parts) / len(parts)
        return sum(parts)

    def items(modalities: tuple[str, ...]) -> list[tuple[int, int]]:
        if "text" in modalities:
            return [(int(e.text_clip[t]), t) for t in range(e.num_texts)]
        return [(c, -1) for c in range(e.num_clips)]

    others = [m for m in direction.modalities if m != "text"]

    def takes_part(clip: int, text: int) -> bool:
        if not all(e.valid[m][clip] for m in others):
            return False
        if text >= 0:
            return bool(e.valid["text"][text])
        texts = np.flatnonzero(e.text_clip == clip)
        return "text" not in direction.modalities or bool(e.valid["text"][texts].any())

    queries = [i for i in items(direction.query) if takes_part(*i)]
    gallery = [i for i in items(direction.target) if takes_part(*i)]
    clips, greater, first = [], [], []
    for clip, text in queries:
        q = side(direction.query, clip, text)
        scores = np.array([np.float32(q @ side(direction.target, c, t)) for c, t in gallery])
        true = np.array([c == clip for c, _ in gallery])
        own = scores[true].max()
        above, tied, truths = (scores > own).sum(), (scores == own).sum(), (scores[true] == own).sum()
        clips.append(clip)
        greater.append(int(above))
        first.append(float(truths / tied) if above == 0 else 0.0)
    return clips, greater, first, len(items(direction.query)) - len(queries)


@pytest.mark.parametrize("code", TWELVE)
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(0, 8), st.booleans(), st.integers(0, 10**6))
def test_every_direction_against_loops(code: str, clips: int, more: int, fused: bool, seed: int) -> None:
    """With small integers, ties and copies are common and scores are exact; unit rows are not exact and have none."""
    rng = np.random.default_rng(seed)
    text_clip = np.concatenate([np.arange(clips), rng.integers(clips, size=more)])
    text_clip = text_clip[rng.permutation(len(text_clip))]
    sizes = {"video": clips, "audio": clips, "text": len(text_clip)}
    make = (lambda n: rng.normal(size=(n, 3))) if fused else (lambda n: rng.integers(-1, 2, size=(n, 3)))
    e = Embedded.of(
        {m: make(n) for m, n in sizes.items()},
        valid={m: rng.random(n) < 0.9 for m, n in sizes.items()},
        text_clip=text_clip,
    )
    direction, fusion = Direction.parse(code), "mean_normalized" if fused else "sum"

    def score(**options: object) -> object:
        return score_direction(
            e.embeddings, e.valid, direction, name="x", text_clip=text_clip, fusion=fusion, **options
        )

    expected_clips, greater, first, missing = loops(e, direction, fusion)
    if not expected_clips:
        with pytest.raises(TrichordError, match="benchmark x: no clip has"):
            score()
        return
    dropped, missed = score(missing="drop", block=3), score(missing="miss")
    assert dropped.ranks.clip.tolist() == expected_clips
    assert dropped.ranks.greater.tolist() == greater
    assert dropped.r1 == pytest.approx(100 * np.mean(first)) and dropped.ranks.hits(1) == pytest.approx(first)
    assert dropped.num_missing == missed.num_missing == missing
    assert missed.r1 == pytest.approx(100 * np.sum(first) / (len(first) + missing))
    assert missed.num_queries == len(first) + missing and dropped.num_queries == len(first)


def test_fusion_rules_by_hand() -> None:
    a, b = np.array([[3.0, 4.0]], np.float32), np.array([[0.0, 2.0]], np.float32)
    assert fuse([a, b], "sum").tolist() == [[3.0, 6.0]]
    assert fuse([a, b], "mean_normalized") == pytest.approx(np.array([[0.3, 0.9]]))  # ((0.6, 0.8) + (0, 1)) / 2
    assert fuse([a], "mean_normalized") == pytest.approx(np.array([[0.6, 0.8]]))
    with pytest.raises(TrichordError, match="unknown fusion rule 'max'; expected sum or mean_normalized"):
        fuse([a], "max")


def test_the_rules_differ_where_one_modality_is_louder() -> None:
    text = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    video = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    audio = np.array([[0.0, 9.0], [9.0, 0.0]], np.float32)  # loud and wrong
    valid = {m: np.ones(2, bool) for m in ("video", "audio", "text")}
    embeddings = {"video": video, "audio": audio, "text": text}
    direction = Direction.parse("t2va")
    summed = score_direction(embeddings, valid, direction, name="x", fusion="sum")
    mean = score_direction(embeddings, valid, direction, name="x", fusion="mean_normalized")
    assert (summed.r1, mean.r1) == (0.0, 50.0) and (summed.of, mean.of) == ("t2va, sum", "t2va, mean_normalized")


@pytest.mark.parametrize("code", TWELVE)
def test_a_collapsed_model_scores_chance(code: str) -> None:
    text_clip = np.repeat(np.arange(12), [1, 2, 3] * 4)
    e = Embedded.of(
        {"video": np.ones((12, 2)), "audio": np.ones((12, 2)), "text": np.ones((len(text_clip), 2))},
        text_clip=text_clip,
    )
    for scale in (0.0, 5.0):
        result = score_direction(
            e.embeddings, e.valid, Direction.parse(code), name="x", text_clip=text_clip, dual_softmax=scale
        )
        assert (result.r1, result.r5, result.r10) == pytest.approx(
            (result.chance_r1, result.chance_r5, result.chance_r10)
        )


@pytest.mark.parametrize("code", TWELVE)
def test_random_embeddings_score_chance_within_the_interval(code: str) -> None:
    """400 clips and 1,000 texts, with 99.9 % intervals and fixed seeds."""
    rng = np.random.default_rng(5)
    text_clip = np.sort(np.concatenate([np.arange(400), rng.integers(400, size=600)]))
    sizes = {"video": 400, "audio": 400, "text": 1000}
    e = Embedded.of({m: rng.normal(size=(n, 16)) for m, n in sizes.items()}, text_clip=text_clip)
    result = score_direction(e.embeddings, e.valid, Direction.parse(code), name="x", text_clip=text_clip)
    assert result.ranks is not None
    for k, chance in ((5, result.chance_r5), (10, result.chance_r10)):
        interval = recall_interval(result.ranks.hits(k), 0.999)
        assert interval.low <= chance <= interval.high, (code, k)


# ---- dual softmax


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 5), st.integers(1, 4), st.integers(1, 9), st.integers(0, 10**6), st.booleans())
def test_dual_softmax_against_loops(q: int, more: int, d: int, block: int, seed: int, several: bool) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = rng.normal(size=(q, d)), rng.normal(size=(q + more, d))
    scale = float(rng.choice([0.5, 3.0]))
    plain = [[float(np.dot(a, b)) for b in gallery] for a in queries]
    reweighted = np.zeros((q, q + more))
    for j in range(q + more):
        total = sum(np.exp(scale * plain[i][j]) for i in range(q))
        for i in range(q):
            reweighted[i, j] = plain[i][j] * np.exp(scale * plain[i][j]) / total
    owner = np.concatenate([rng.permutation(q), rng.integers(q, size=more)])
    if several:
        counts = dual_softmax_ranks(queries, gallery, owner=owner, scale=scale, block=block)
        assert isinstance(counts, BestCounts) and (counts.truths == 1).all()
        own = np.array([reweighted[i, owner == i].max() for i in range(q)])
    else:
        truth = rng.integers(q + more, size=q)
        counts = dual_softmax_ranks(queries, gallery, truth=truth, scale=scale, block=block)
        own = reweighted[np.arange(q), truth]
    close = np.isclose(reweighted, own[:, None], rtol=1e-5, atol=1e-12).sum(1) > 1
    assert (counts.greater == (reweighted > own[:, None]).sum(1))[~close].all()


def test_dual_softmax_uses_the_other_queries() -> None:
    """Item 0 scores highest for all queries: the first query loses it and finds its own item."""
    queries = np.array([[1.0, 0.9], [2.0, 0.0]])
    gallery = np.array([[1.0, 0.0], [0.0, 1.0]])
    sides = {"text": queries[::-1].astype(np.float32), "video": gallery.astype(np.float32)}
    valid = {m: np.ones(2, bool) for m in sides}
    plain = score_direction(sides, valid, Direction.parse("t2v"), name="x")
    dual = dual_softmax_ranks(queries[::-1].copy(), gallery, scale=10.0)
    assert plain.r1 == 50.0 and metrics_from_counts(dual).r1 == 100.0


def test_dual_softmax_accepts_infinite_scores_and_every_scale() -> None:
    queries, gallery = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    queries[2] = np.nan
    metrics = metrics_from_counts(dual_softmax_ranks(queries, gallery, scale=1e4))
    assert metrics.r1 == pytest.approx(200 / 3)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(TrichordError, match="the scale of the dual softmax is"):
            dual_softmax_ranks(queries, gallery, scale=scale)
