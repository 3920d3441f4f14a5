"""Retrieval metrics against loops: ties, NaN, missing queries, and ranks from embeddings in blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.evaluation import retrieval_metrics, retrieval_ranks
from trichord.evaluation.ranks import chance_recall, metrics_from_counts


def slow_metrics(scores: np.ndarray, truth: list[int]) -> tuple[float, float, float]:
    """(R@1, R@2 as fractions, mean rank), averaged over every order of the gallery that breaks the ties."""
    r1 = r2 = mean = 0.0
    for row, t in zip(scores, truth, strict=True):
        orders = list(itertools.permutations(range(len(row))))
        for order in orders:
            ranked = sorted(order, key=lambda j: -row[j])  # stable: the order decides among equals
            place = ranked.index(t) + 1
            r1 += (place <= 1) / len(orders)
            r2 += (place <= 2) / len(orders)
            mean += place / len(orders)
    return r1 / len(scores), r2 / len(scores), mean / len(scores)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6), st.integers(1, 4))
def test_expected_over_random_tie_breaks(q: int, g: int, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(levels, size=(q, g)).astype(float), rng.integers(g, size=q).tolist()
    r1, r2, mean = slow_metrics(scores, truth)
    found = retrieval_metrics(scores, truth=truth)
    assert found.r1 == pytest.approx(100 * r1) and found.meanr == pytest.approx(mean)
    greater = np.array([sum(x > row[t] for x in row) for row, t in zip(scores, truth, strict=True)])
    equal = np.array([sum(x == row[t] for x in row) for row, t in zip(scores, truth, strict=True)])
    assert r2 == pytest.approx(np.clip((min(2, g) - greater) / equal, 0, 1).mean())
    best, worst = (retrieval_metrics(scores, truth=truth, ties=t) for t in ("best", "worst"))
    assert best.r1 >= found.r1 >= worst.r1 and best.meanr <= found.meanr <= worst.meanr
    assert best.meanr == pytest.approx((1 + greater).mean()) and worst.meanr == pytest.approx((greater + equal).mean())


@pytest.mark.parametrize("n", [1, 2, 7, 50, 968])
@pytest.mark.parametrize("value", [0.0, 3.5, -np.inf, np.inf])
def test_a_collapsed_model_scores_chance(n: int, value: float) -> None:
    found = retrieval_metrics(np.full((n, n), value))
    for k, recall in ((1, found.r1), (5, found.r5), (10, found.r10)):
        assert recall == pytest.approx(chance_recall(k, n)) == pytest.approx(100 * min(k, n) / n)
    assert found.medr == found.meanr == (n + 1) / 2


def test_random_youcook2_median() -> None:
    zeros = retrieval_metrics(np.zeros((3350, 3350), np.float32))
    assert zeros.medr == 1675.5  # the mean rank of 3,350 tied items; "1675" of the literature is its floor
    ranks = np.random.default_rng(0).permutation(3350)
    assert abs(np.median(ranks + 1) - 1675.5) < 1


def test_perfect_and_worst() -> None:
    eye = np.eye(20)
    found = retrieval_metrics(eye)
    assert (found.r1, found.r5, found.r10, found.medr, found.meanr) == (100, 100, 100, 1, 1)
    found = retrieval_metrics(-eye)
    assert (found.r1, found.r5, found.r10, found.medr) == (0, 0, 0, 20)
    assert "R@1 0.0  R@5 0.0  R@10 0.0  MedR 20  MeanR 20.0  (20 queries, gallery of 20)" in str(found)


def test_nan_is_the_worst_and_never_a_hit() -> None:
    for n in (3, 50):
        nan = retrieval_metrics(np.full((n, n), np.nan))
        assert (nan.r1, nan.r5, nan.r10, nan.medr, nan.meanr) == (0, 0, 0, n, n)
    scores = np.eye(4)
    scores[0, 0] = np.nan  # a truth
    scores[1, 2] = np.nan  # another item: no better than a low score
    found = retrieval_metrics(scores)
    assert found.r1 == 75 and found.r10 == 75 and found.meanr == (4 + 1 + 1 + 1) / 4
    lowest = retrieval_metrics(np.array([[-np.inf, np.nan], [np.nan, -np.inf]]))
    assert lowest.r1 == 100


def test_missing_queries() -> None:
    """MSR-VTT's case: 968 of 1,000 were scored."""
    scores = np.random.default_rng(0).normal(size=(968, 968))
    drop = retrieval_metrics(scores, num_missing=32, missing="drop")
    miss = retrieval_metrics(scores, num_missing=32, missing="miss")
    plain = retrieval_metrics(scores)
    assert (drop.r1, drop.r5, drop.r10, drop.medr, drop.meanr) == (
        plain.r1,
        plain.r5,
        plain.r10,
        plain.medr,
        plain.meanr,
    )
    assert (drop.num_queries, miss.num_queries, miss.num_gallery, miss.num_missing) == (968, 1000, 968, 32)
    assert miss.r10 == pytest.approx(plain.r10 * 0.968)
    assert miss.meanr == pytest.approx((plain.meanr * 968 + 1000 * 32) / 1000)
    assert miss.medr > plain.medr and miss.medr_found == drop.medr_found == plain.medr
    assert retrieval_metrics(np.eye(968), num_missing=32).r1 == pytest.approx(96.8)
    assert "gallery of 968, 32 missing" in str(miss)


def test_torch_and_half_precision() -> None:
    scores = torch.randn(9, 9, requires_grad=True)
    whole = retrieval_metrics(scores)
    assert whole == retrieval_metrics(scores.detach().numpy())
    for dtype in (torch.bfloat16, torch.float16):
        assert retrieval_metrics(scores.to(dtype)) == retrieval_metrics(scores.detach().to(dtype).float().numpy())
    assert retrieval_metrics(torch.zeros(3, 4), truth=torch.tensor([0, 1, 1])).r1 == 25


def oracle_counts(q: np.ndarray, g: np.ndarray, truth: np.ndarray) -> tuple[list[int], list[int]]:
    greater, equal = [], []
    for row, t in zip(q.tolist(), truth, strict=True):
        scores = [np.float32(sum(a * b for a, b in zip(row, item, strict=True))) for item in g.tolist()]
        greater.append(sum(s > scores[t] for s in scores))
        equal.append(sum(s == scores[t] for s in scores))
    return greater, equal


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 14), st.integers(0, 10**6), st.booleans()
)
def test_ranks_oracle(q: int, g: int, d: int, block: int, seed: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    make = (lambda *s: rng.integers(-1, 2, size=s)) if coarse else (lambda *s: rng.normal(size=s))
    queries, gallery = make(q, d).astype(np.float32), make(g, d).astype(np.float32)
    gallery = gallery[rng.integers(g, size=g)]  # duplicates
    truth = rng.integers(g, size=q)
    counts = retrieval_ranks(queries, torch.from_numpy(gallery), truth, block=block)
    greater, equal = oracle_counts(queries, gallery, truth)
    assert counts.greater.tolist() == greater and counts.equal.tolist() == equal and counts.num_gallery == g


@pytest.mark.parametrize("block", [1, 3, 64, 100, 257, 4096])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_tie_whatever_the_block(block: int, dtype: type) -> None:
    """Equal gallery rows must tie exactly, wherever they lie in a block; wide rows, where sums are rounded."""
    rng = np.random.default_rng(0)
    base = (rng.normal(size=(37, 301)) * 10.0 ** rng.integers(-6, 6, size=(37, 301))).astype(dtype)
    gallery = base[rng.permutation(np.repeat(np.arange(37), 7))]
    counts = retrieval_ranks(gallery, gallery, block=block)
    assert (counts.equal == 7).all()
    whole = retrieval_ranks(gallery, gallery, block=10**6)
    assert (counts.greater == whole.greater).all()
    assert (counts.greater % 7 == 0).all()


def test_constant_embeddings_score_chance() -> None:
    same = np.tile(np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32), (300, 1))
    found = metrics_from_counts(retrieval_ranks(same, same, block=77))
    assert found.r10 == pytest.approx(chance_recall(10, 300)) and found.medr == 150.5
    zero = metrics_from_counts(retrieval_ranks(same * 0, -same * 0))  # zeros of both signs
    assert zero.r1 == pytest.approx(chance_recall(1, 300))


def test_blocks_agree_with_the_matrix_and_with_rotation() -> None:
    rng = np.random.default_rng(1)
    q, g = rng.normal(size=(200, 16)), rng.normal(size=(200, 16))
    g += 0.5 * q
    whole = retrieval_metrics(q @ g.T)
    assert 0 < whole.r1 < 100
    for block in (7, 200):
        assert metrics_from_counts(retrieval_ranks(q, g, block=block)) == whole
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    assert metrics_from_counts(retrieval_ranks(q @ rotation, g @ rotation)) == whole
    order = rng.permutation(200)
    assert metrics_from_counts(retrieval_ranks(q[order], g[order])).r10 == whole.r10


def test_embeddings_that_are_not_finite() -> None:
    q = np.eye(4, dtype=np.float32)
    g = q.copy()
    g[0] = np.nan
    g[1, 0] = np.inf  # inf * 0 is NaN for all queries but the first
    found = metrics_from_counts(retrieval_ranks(q, g))
    assert found.r10 == 50 and found.meanr == (4 + 4 + 1 + 1) / 4


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: retrieval_metrics(np.zeros((2, 3))), "2 queries and 3 gallery items have no diagonal; give the truth"),
        (lambda: retrieval_metrics(np.zeros((2, 3)), truth=[0, 3]), "for each of 2 queries, an index below 3"),
        (lambda: retrieval_metrics(np.zeros((2, 3)), truth=[0]), "for each of 2 queries"),
        (lambda: retrieval_metrics(np.zeros(3)), "must be a matrix of queries by gallery, not of shape \\(3,\\)"),
        (lambda: retrieval_metrics(np.zeros((0, 0))), "must be a matrix"),
        (lambda: retrieval_metrics(np.eye(2), ties="mean"), "ties cannot be 'mean'; choose expected, best or worst"),
        (lambda: retrieval_metrics(np.eye(2), missing="skip"), "missing cannot be 'skip'; choose drop or miss"),
        (lambda: retrieval_ranks(np.zeros((2, 3)), np.zeros((2, 4))), "two matrices of the same width"),
        (lambda: metrics_from_counts(retrieval_ranks(np.zeros((0, 3)), np.zeros((0, 3)))), "no query to score"),
        (lambda: chance_recall(1, 0), "an empty gallery"),
    ],
)
def test_wrong_arguments(call: object, message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        call()  # type: ignore[operator]
