"""The dual softmax compared with exact arithmetic: scores of any size and sign, shares that underflow as floats."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.evaluation.counts import BestCounts
from trichord.tasks.retrieval import dual_softmax
from trichord.tasks.retrieval.dual_softmax import dual_softmax_ranks


class Exact(NamedTuple):
    """A re-weighted score S', the score that it is made from, and the sum over the queries that it is divided by."""

    value: Decimal
    score: Decimal
    total: Decimal


def exact(queries: np.ndarray, gallery: np.ndarray, scale: float) -> list[list[Exact]]:
    """Return S' with 60 digits, from scores without rounding; the exponent of a Decimal can have a million digits."""

    def decimal(x: Fraction) -> Decimal:
        return Decimal(x.numerator) / Decimal(x.denominator)

    with localcontext() as context:
        context.prec = 60
        s = [
            [
                decimal(sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0)))
                for b in gallery
            ]
            for a in queries
        ]
        power = [[(Decimal(scale) * x).exp() for x in row] for row in s]
        total = [sum(row[j] for row in power) for j in range(len(gallery))]
        return [
            [Exact(x * p / t, x, t) for x, p, t in zip(row, powers, total, strict=True)]
            for row, powers in zip(s, power, strict=True)
        ]


def counts_of(row: list[Exact], own: Exact) -> tuple[int, int]:
    """Return the numbers of greater and equal values; values that agree in 40 digits are equal."""
    close = [abs(x.value - own.value) <= abs(own.value) * Decimal("1e-40") for x in row]
    return sum(x.value > own.value and not c for x, c in zip(row, close, strict=True)), sum(close)


def undecided(row: list[Exact], own: Exact) -> int:
    """Return the number of values, made from other scores or sums, that float64 cannot distinguish from `own` by their logarithms.

    These may be equal: 2 exp(x) / 2 is exp(x), but log 2 + x - log 2 need not be x in float64.
    """
    return sum(abs(x.value - own.value) <= abs(own.value) * Decimal("1e-8") and x[1:] != own[1:] for x in row)


def check(greater: int, equal: int, row: list[Exact], own: Exact) -> None:
    expected, close = counts_of(row, own), undecided(row, own)
    assert expected[0] - close <= greater <= expected[0] + close
    assert expected[1] - close <= equal <= expected[1] + close
    assert close or (greater, equal) == expected


def test_shares_that_underflow_are_distinguished() -> None:
    """Query 0 has the shares 2e-78, less than 1e-113, and 0, which would all tie as floats."""
    queries = np.array([[2.0, 0], [0, 2]], np.float32)
    gallery = np.array([[1, 1.9], [0.5, 1.8], [0, 2]], np.float32)
    counts = [
        dual_softmax_ranks(queries, gallery, scale=100.0, truth=np.array([truth, 2])) for truth in range(len(gallery))
    ]
    assert [(int(c.greater[0]), int(c.equal[0])) for c in counts] == [(0, 1), (1, 1), (2, 1)]


def test_negative_scores_count_by_their_share() -> None:
    """Of two negative scores, the one with the smaller share ranks higher, however small the shares are."""
    queries = np.array([[-1.0], [30.0]], np.float32)
    gallery = np.array(
        [[1.0], [2.0], [3.0]], np.float32
    )  # query 0 scores -1, -2, -3, with shares e^-3100, e^-6200, e^-9300
    counts = [dual_softmax_ranks(queries, gallery, scale=100.0, truth=np.array([i, 0])) for i in range(3)]
    assert [(int(c.greater[0]), int(c.equal[0])) for c in counts] == [(2, 1), (1, 1), (0, 1)]
    zero = dual_softmax_ranks(queries, np.array([[0.0], [0.0], [5.0], [-5.0]]), scale=100.0, truth=np.array([0, 0]))
    assert (zero.greater.tolist(), zero.equal.tolist()) == ([1, 1], [2, 2])


def test_equal_values_that_rounding_separates_are_undecided() -> None:
    (row,) = exact(np.array([[1.0]]), np.array([[2.0], [2.0], [1.0]]), 1.0)
    assert counts_of(row, row[0]) == (0, 2) and undecided(row, row[0]) == 0
    twice = row[0]._replace(score=4 * row[0].score, total=4 * row[0].total)
    assert counts_of([row[0], twice], row[0]) == (0, 2) and undecided([row[0], twice], row[0]) == 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_against_exact_arithmetic(data: st.DataObject) -> None:
    """Values are sixteenths times powers of two, so that dot products and ties are exact."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    q, more, d = data.draw(st.integers(1, 7)), data.draw(st.integers(0, 7)), data.draw(st.integers(1, 3))
    scale = data.draw(st.sampled_from([0.25, 1.0, 20.0, 100.0]))
    size = 2.0 ** data.draw(st.sampled_from([-6, -4, -2, 0, 3, 8]))
    values = data.draw(st.sampled_from([2, 16]))
    queries = size * rng.integers(-values, values + 1, (q, d)) / 16
    gallery = rng.integers(-values, values + 1, (q + more, d)) / 16
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    queries, gallery = queries.astype(dtype), gallery.astype(dtype)
    block = data.draw(st.integers(1, 9))
    reweighted = exact(queries, gallery, scale)
    truth = rng.integers(q + more, size=q)
    counts = dual_softmax_ranks(queries, gallery, truth=truth, scale=scale, block=block)
    for i in range(q):
        check(int(counts.greater[i]), int(counts.equal[i]), reweighted[i], reweighted[i][truth[i]])
    owner = np.concatenate([rng.permutation(q), rng.integers(q, size=more)])
    several = dual_softmax_ranks(queries, gallery, owner=owner, scale=scale, block=block)
    assert isinstance(several, BestCounts)
    for i in range(q):
        own_scores = [reweighted[i][j] for j in np.flatnonzero(owner == i)]
        check(int(several.greater[i]), int(several.equal[i]), reweighted[i], max(own_scores))
        equal, close = counts_of(own_scores, max(own_scores))[1], undecided(own_scores, max(own_scores))
        assert several.truths[i] >= 1 and equal <= several.truths[i] + close and several.truths[i] <= equal + close


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_real_numbers_against_exact_arithmetic(size: float) -> None:
    rng = np.random.default_rng(3)
    queries, gallery = (size * rng.normal(size=(9, 4))).astype(np.float32), rng.normal(size=(14, 4)).astype(np.float32)
    reweighted = exact(queries, gallery, 100.0)
    for j in range(14):
        counts = dual_softmax_ranks(queries, gallery, truth=np.full(9, j), scale=100.0, block=4)
        expected = [counts_of(row, row[j]) for row in reweighted]
        assert list(zip(counts.greater.tolist(), counts.equal.tolist(), strict=True)) == expected


@pytest.mark.parametrize("seed", range(10))
def test_the_same_scores_in_another_order_tie(seed: int) -> None:
    """The other queries have the same scores for items 0 and 1 in another order, so that sums are added in another order."""
    rng = np.random.default_rng(seed)
    others = rng.normal(size=(300, 1))
    queries = np.concatenate([[[1.0, 1.0]], np.concatenate([others, rng.permutation(others)], axis=1)])
    for truth in (0, 1):
        counts = dual_softmax_ranks(queries, np.eye(2), truth=np.full(301, truth), scale=1.0, block=64)
        assert (counts.greater[0], counts.equal[0]) == (0, 2)


def test_a_value_that_is_not_finite_affects_only_its_query() -> None:
    rng = np.random.default_rng(1)
    queries, gallery = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    whole = dual_softmax_ranks(queries, gallery, scale=50.0)
    for bad in (np.nan, np.inf, -np.inf):
        more = np.concatenate([queries, np.full((1, 3), bad)])
        truth = np.array([0, 1, 2, 3, 4, 5, 0])
        with np.errstate(all="raise"):
            counts = dual_softmax_ranks(more, gallery, truth=truth, scale=50.0, block=2)
        assert counts.greater.tolist() == [*whole.greater.tolist(), 6] and counts.equal.tolist() == [1] * 7
    lost = np.concatenate([gallery, np.full((1, 3), np.nan)])
    best = dual_softmax_ranks(queries, lost, owner=np.array([0, 1, 2, 3, 4, 5, 0]), scale=50.0)
    assert isinstance(best, BestCounts) and best.greater.tolist() == whole.greater.tolist()


def test_memory_is_bounded_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    products = dual_softmax._products

    def watched(part: np.ndarray, items: np.ndarray) -> np.ndarray:
        rows.append(len(part))
        return products(part, items)

    monkeypatch.setattr(dual_softmax, "_products", watched)
    monkeypatch.setattr(dual_softmax, "MOST_CELLS", 100)
    rng = np.random.default_rng(2)
    queries, gallery = rng.normal(size=(35, 2)), rng.normal(size=(35, 2))
    few = dual_softmax_ranks(queries, gallery, scale=10.0)
    assert max(rows) == 2 and len(rows) == 2 * 18
    monkeypatch.setattr(dual_softmax, "MOST_CELLS", 1 << 22)
    whole = dual_softmax_ranks(queries, gallery, scale=10.0)
    assert all(np.array_equal(a, b) for a, b in zip(few, whole, strict=True))
