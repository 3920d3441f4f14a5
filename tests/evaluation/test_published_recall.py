"""The published definitions of recall and ours, compared on an example in which all of them differ."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from published_recall import (
    PublishedRecall,
    everything_at_once_recall,
    howto100m_recall,
    mcn_recall,
)
from trichord.evaluation.ranks import retrieval_metrics

# Three queries; the truth is on the diagonal.
# query 0: its truth scores 5, nothing more or alike       -> place 1
# query 1: its truth scores 5, item 0 too                  -> places 1 and 2
# query 2: its truth scores 3 below two, alike with none   -> place 3
SCORES = np.array([[5.0, 1.0, 2.0], [5.0, 5.0, 0.0], [9.0, 7.0, 3.0]])


def test_side_by_side() -> None:
    mcn, howto, eao = mcn_recall(SCORES), howto100m_recall(SCORES), everything_at_once_recall(SCORES)
    ours = retrieval_metrics(SCORES)
    # places from 1 of all truths: 1; 1, 2; 3. Within 1: two of the four; three queries.
    assert mcn.r1 == pytest.approx(100 * 2 / 3) and howto.r1 == pytest.approx(100 * 2 / 4)
    # means of the places: 1; 1.5; 3. Everything at Once counts from 0: 0, 0.5 and 2; below 1 are two.
    assert eao.r1 == pytest.approx(100 * 2 / 3)
    # by chance over the tied: 1, 1/2, 0
    assert ours.r1 == pytest.approx(100 * 1.5 / 3)
    assert (mcn.medr, howto.medr, eao.medr, ours.medr) == (1.5, 1.5, 1.5, 1.5)
    assert mcn.r5 == pytest.approx(100 * 4 / 3), "more than all"
    assert howto.r5 == eao.r5 == ours.r5 == 100


def test_missing_queries_count_in_mcn_recalls_and_not_in_its_median() -> None:
    mcn = mcn_recall(SCORES, num_queries=6)
    missed = retrieval_metrics(SCORES, num_missing=3)
    assert mcn.r1 == pytest.approx(100 * 2 / 6) and missed.r1 == pytest.approx(100 * 1.5 / 6)
    assert mcn.medr == 1.5 == missed.medr_found and missed.medr == 4.5  # 1, 1.5, 3 and three times 6


@pytest.mark.parametrize("n", [20, 1000])
def test_a_collapsed_model(n: int) -> None:
    flat = np.full((n, n), 0.25)
    mcn, howto, eao, ours = (
        mcn_recall(flat),
        howto100m_recall(flat),
        everything_at_once_recall(flat),
        retrieval_metrics(flat),
    )
    assert (mcn.r1, mcn.r5, mcn.r10) == (100, 500, 1000)
    chance = [100 / n, 500 / n, 1000 / n]
    assert [howto.r1, howto.r5, howto.r10] == pytest.approx(chance)
    assert [ours.r1, ours.r5, ours.r10] == pytest.approx(chance)
    assert eao.r1 == 0 and eao.r10 == (100 if (n - 1) / 2 < 10 else 0)
    assert {mcn.medr, howto.medr, eao.medr, ours.medr} == {(n + 1) / 2}


def test_without_ties_all_agree() -> None:
    scores = np.random.default_rng(0).normal(size=(60, 60)) + 2 * np.eye(60)
    ours = retrieval_metrics(scores)
    for recall in (mcn_recall(scores), howto100m_recall(scores), everything_at_once_recall(scores)):
        assert (recall.r1, recall.r5, recall.r10, recall.medr) == pytest.approx((ours.r1, ours.r5, ours.r10, ours.medr))


def places_by_sorting(scores: np.ndarray) -> list[list[int]]:
    """Return, for each query, every position from 0 at which the sorted row holds the score of the correct item."""
    places = []
    for query, row in enumerate(scores.tolist()):
        falling = sorted(row, reverse=True)
        places.append([place for place, score in enumerate(falling) if score == row[query]])
    return places


def values_of(recall: PublishedRecall) -> list[float]:
    return [recall.r1, recall.r5, recall.r10, recall.medr]


@given(
    st.integers(1, 14).flatmap(
        lambda n: hnp.arrays(np.float64, (n, n), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
    ),
    st.integers(0, 3),
)
@example(np.zeros((1, 1)), 0)
@example(np.full((12, 12), -0.0), 2)
@settings(max_examples=150, deadline=None)
def test_published_recalls_with_ties_against_loops(scores: np.ndarray, missing: int) -> None:
    places, n = places_by_sorting(scores), len(scores)
    every = [place for ranks in places for place in ranks]
    # MCN, AVLnet: every tied place, over a fixed number of queries (1,000, missing ones included)
    expected = [100 * sum(place < k for place in every) / (n + missing) for k in (1, 5, 10)] + [median(every) + 1]
    assert values_of(mcn_recall(scores, n + missing)) == pytest.approx(expected)
    assert values_of(mcn_recall(scores)) == pytest.approx([e * (n + missing) / n for e in expected[:3]] + expected[3:])
    # HowTo100M: over the number of places
    expected[:3] = [100 * sum(place < k for place in every) / len(every) for k in (1, 5, 10)]
    assert values_of(howto100m_recall(scores)) == pytest.approx(expected)
    # Everything at Once: the mean of a query's tied places
    means = [sum(ranks) / len(ranks) for ranks in places]
    expected = [100 * sum(mean < k for mean in means) / n for k in (1, 5, 10)] + [median(means) + 1]
    assert values_of(everything_at_once_recall(scores)) == pytest.approx(expected)
