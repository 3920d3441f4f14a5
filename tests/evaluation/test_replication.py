"""The runs that count as seeds: estimates, pairs and intervals with shared first stages, against oracles and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trichord.evaluation.comparison import compare_orders, interaction
from trichord.evaluation.replication import Runs, matched, mean_over_first_stages, seeds_text, weighted_rank
from trichord.evaluation.statistics import mean_interval, median_rank_interval, paired_difference


def runs_of(values: np.ndarray, sharing: tuple[int, ...], first: int = 0) -> Runs:
    """Return rows whose first stages, with seeds `first`, `first` + 1, ..., are shared by the given numbers of runs."""
    firsts = np.repeat(np.arange(len(sharing)) + first, sharing)
    return Runs(values, tuple(firsts.tolist()), tuple(range(len(values))))


def nested(
    rng: np.random.Generator, recall: float, sharing: tuple[int, ...], queries: int, stage_sd: float, later_sd: float
) -> tuple[Runs, float]:
    """Return runs of a probit world, and the recall that their intervals should cover."""
    stage = stage_sd * rng.standard_normal((len(sharing), 1))
    rows = np.repeat(stage + 0.3 * rng.standard_normal((len(sharing), queries)), sharing, axis=0)
    later = later_sd * rng.standard_normal((len(rows), 1))
    variance = 1 + 1 + 0.3**2 + later_sd**2
    offset = stats.norm.ppf(recall) * np.sqrt(variance + stage_sd**2)
    level = offset + rng.standard_normal(queries) + rows + later
    truth = stats.norm.cdf((offset + stage[0, 0]) / np.sqrt(variance)) if len(sharing) == 1 else recall
    return runs_of((level + rng.standard_normal(level.shape) > 0).astype(float), sharing), float(truth)


def test_independent_runs_are_rows_of_an_array() -> None:
    hits = (np.random.default_rng(0).random((4, 50)) < 0.3).astype(float)
    runs = runs_of(hits, (1, 1, 1, 1))
    assert mean_interval(runs) == mean_interval(hits) and runs.replicates is hits
    assert median_rank_interval(runs.with_values(1 + 9 * hits)) == median_rank_interval(1 + 9 * hits)


def test_every_first_stage_weighs_the_same() -> None:
    values = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    runs = runs_of(values, (1, 3))
    assert runs.replicates.tolist() == [[1.0, 1.0], pytest.approx([1 / 3, 1 / 3])]
    interval = mean_interval(runs)
    assert interval.estimate == pytest.approx(100 * 2 / 3) and (interval.num_seeds, interval.num_runs) == (2, 4)
    assert interval.estimate == pytest.approx(
        mean_over_first_stages((100 * values.mean(1)).tolist(), runs.first_stages)
    )
    assert (
        "4 runs share 2 first stages" in interval.note
        and "two seeds" in interval.note
        and seeds_text(2, 4) == "2 (4 runs)"
    )
    ranks = runs.with_values(np.array([[9.0, 9.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    assert median_rank_interval(ranks).estimate == 5.0, "half of the weight lies at 9"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=12), st.floats(0, 1))
def test_weighted_ranks_are_those_of_repeated_values(pairs: list[tuple[int, int]], share: float) -> None:
    values, weights = (np.array(part, float) for part in zip(*pairs, strict=True))
    repeated = np.repeat(values, weights.astype(int))
    for method in ("lower", "higher"):
        assert weighted_rank(values, weights.astype(int), share, method) == np.quantile(repeated, share, method=method)


def test_one_first_stage_conditions_the_interval_and_names_no_winner() -> None:
    rng = np.random.default_rng(1)
    good, bad = ((rng.random((4, 400)) < p).astype(float) for p in (0.8, 0.2))
    shared, own = runs_of(good, (4,), first=7), runs_of(bad, (1, 1, 1, 1))
    interval = mean_interval(shared)
    assert (interval.low, interval.high) == (mean_interval(good).low, mean_interval(good).high), "over the later stages"
    assert (interval.num_seeds, interval.num_runs) == (1, 4) and "for this first stage only" in interval.note
    pair = paired_difference(shared, own)
    assert (
        pair.paired_seeds and pair.num_seeds == 1 and pair.components is None and "this first stage only" in pair.note
    )
    assert pair.low == pytest.approx(paired_difference(good, bad).low)
    assert (
        compare_orders({"a": shared, "b": own}).winner is None and compare_orders({"a": good, "b": bad}).winner == "a"
    )
    assert "one seed" in interaction({"a": shared, "b": own}, {"a": own, "b": shared})[1]


def test_orders_are_paired_by_the_seeds_of_their_first_stages() -> None:
    values = np.arange(12, dtype=float).reshape(6, 2) / 12
    one, two = runs_of(values, (2, 2, 2)), runs_of(values[:3], (1, 1, 1), first=1)
    first, second = matched(one, two)
    assert first.labels == second.labels == (1, 2)
    assert np.array_equal(first.values, one.replicates[1:]) and np.array_equal(second.values, values[:2])
    apart = runs_of(values[:2], (1, 1), first=9)
    assert matched(one, apart) == (one, apart) and not paired_difference(one, apart).paired_seeds


@pytest.mark.parametrize(
    ("sharing", "least"), [((3,), 93), ((3, 3), 93), ((1, 1, 4), 93), ((3, 3, 3, 3, 3), 93)], ids=str
)  # fmt: skip
def test_intervals_cover(sharing: tuple[int, ...], least: float) -> None:
    """300 studies, with a limit of three standard errors below the required coverage."""
    rng, inside = np.random.default_rng(2), 0
    for _ in range(300):
        runs, truth = nested(rng, 0.3, sharing, 200, 0.15, 0.1)
        interval = mean_interval(runs)
        inside += interval.low <= 100 * truth <= interval.high
    assert inside / 3 >= least - 3 * np.sqrt(least * (100 - least) / 300)


def test_runs_that_share_a_first_stage_are_not_independent() -> None:
    """The reason for the rule: if nine runs of three first stages counted as nine seeds, coverage would be far too low."""
    rng, inside = np.random.default_rng(3), np.zeros(2)
    for _ in range(200):
        runs, truth = nested(rng, 0.3, (3, 3, 3), 400, 0.3, 0.05)
        intervals = mean_interval(runs), mean_interval(runs.values)
        inside += [interval.low <= 100 * truth <= interval.high for interval in intervals]
    assert inside[0] / 200 > 0.9 and inside[1] / 200 < 0.8
