"""Contributions of units to a figure: their mean is the figure, and their variance that of sampled units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.evaluation.contributions import aligned, ratio_contributions
from trichord.evaluation.statistics import mean_interval, recall_interval

units = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=30)


@given(units)
@settings(max_examples=200, deadline=None)
def test_the_mean_is_the_mean_of_the_groups_ratios(rows: list[tuple[int, int, str]]) -> None:
    top = [min(a, b) for a, b, _ in rows]
    below, group = [b for _, b, _ in rows], [g for _, _, g in rows]
    known = {g for g, b in zip(group, below, strict=True) if b}
    if not known:
        with pytest.raises(TrichordError, match="all denominators are 0"):
            ratio_contributions(top, below, group)
        return
    slow = []
    for g in known:
        members = [i for i in range(len(rows)) if group[i] == g]
        slow.append(sum(top[i] for i in members) / sum(below[i] for i in members))
    values = ratio_contributions(top, below, group)
    assert np.nanmean(values) == pytest.approx(np.mean(slow))
    assert [np.isnan(v) for v in values] == [g not in known for g in group]


def test_equal_denominators_give_the_units_own_shares() -> None:
    np.testing.assert_allclose(ratio_contributions([0, 1, 1, 0.5], [1, 1, 1, 1]), [0, 1, 1, 0.5])


def test_groups_of_one_unit_give_their_ratios() -> None:
    np.testing.assert_allclose(ratio_contributions([1, 1, 3], [2, 4, 4], ["a", "b", "c"]), [0.5, 0.25, 0.75])


def test_the_interval_of_a_ratio_has_its_nominal_coverage() -> None:
    """Takes 400 samples of 150 videos whose numbers of steps and recalls are correlated; the truth comes from a million
    videos.
    """
    rng = np.random.default_rng(0)

    def sample(count: int) -> tuple[np.ndarray, np.ndarray]:
        steps = rng.integers(1, 12, count)
        return rng.binomial(steps, 0.2 + 0.05 * steps), steps

    hits, steps = sample(1_000_000)
    truth, covered, plain = 100 * hits.sum() / steps.sum(), 0, 0
    for _ in range(400):
        hits, steps = sample(150)
        interval = mean_interval(ratio_contributions(hits, steps))
        covered += interval.low <= truth <= interval.high
        apart = recall_interval(np.repeat(hits / steps, steps))  # as if each step were a unit of its own
        plain += apart.low <= truth <= apart.high
    assert 0.925 <= covered / 400 <= 0.98
    assert plain < covered


def test_values_in_range_have_the_interval_of_a_recall_and_others_stay_within_bounds() -> None:
    hits = np.array([0, 1, 1, 0, 1.0])
    assert mean_interval(hits) == recall_interval(hits)
    wide = mean_interval(np.array([-0.5, 1.5, 0.2, 0.4]))
    assert wide.estimate == pytest.approx(40.0) and 0 <= wide.low < 40 < wide.high <= 100


def test_aligned_places_values_among_those_that_do_not_count() -> None:
    np.testing.assert_array_equal(aligned([1, 2], np.array([2, 0]), 4), [2, np.nan, 1, np.nan])
    np.testing.assert_array_equal(aligned([1], np.array([1]), 2, 0.0), [0, 1])


def test_shares_that_scatter_little_have_the_interval_of_their_scatter() -> None:
    """Recalls of videos with eight steps each vary less than single hits; the coverage in 1,500 samples of 40 is nominal."""
    rng = np.random.default_rng(2)
    covered, widths, wide = 0, [], []
    for _ in range(1500):
        skill = rng.beta(12, 2, 40)
        recalls = rng.binomial(8, skill) / 8
        interval = mean_interval(recalls, shares=True)
        covered += interval.low <= 100 * 12 / 14 <= interval.high
        if len(widths) < 100:
            as_hits = recall_interval(recalls)
            widths.append(interval.high - interval.low)
            wide.append(as_hits.high - as_hits.low)
    assert 0.93 <= covered / 1500 <= 0.97
    assert np.mean(widths) < 0.6 * np.mean(wide)
    hits = np.array([0, 1, 1, 0, 1.0])
    assert mean_interval(hits, shares=True).low == pytest.approx(mean_interval(hits).low, abs=2)
    same = mean_interval(np.full(9, 0.5), shares=True)
    assert same.low < 50 < same.high  # nothing scatters: as if hits
