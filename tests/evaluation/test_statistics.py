"""Intervals, differences, Holm, winner, interaction and power compared with oracles, scipy's tests and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trichord.errors import TrichordError
from trichord.evaluation.comparison import compare_orders, interaction, what_it_takes
from trichord.evaluation.power import predicted_power, queries_needed, seeds_needed
from trichord.evaluation.ranks import retrieval_metrics
from trichord.evaluation.statistics import (
    binomial_interval,
    chance_interval,
    difference_spread,
    hits_at,
    holm,
    median_rank_interval,
    paired_difference,
    recall_interval,
    wilson,
)
from trichord.evaluation.variance import Components, Spread, components, half_width, spread, two_sided


def study(
    rng: np.random.Generator,
    recalls: tuple[float, ...],
    seeds: int,
    queries: int,
    seed_sd: float = 0.1,
    studies: int = 1,
) -> np.ndarray:
    """Return hits (orders, studies, S, N) of a probit world whose recalls hold over all seeds and queries."""
    scale = math.sqrt(1 + 1 + seed_sd**2)
    difficulty = rng.standard_normal((studies, 1, queries))
    out = []
    for recall in recalls:
        shift = seed_sd * rng.standard_normal((studies, seeds, 1))
        noise = rng.standard_normal((studies, seeds, queries))
        out.append(stats.norm.ppf(recall) * scale + difficulty + shift + noise > 0)
    return np.stack(out).astype(float)


tables = st.integers(0, 10_000).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(1, 5), st.integers(3, 40), st.floats(0.05, 0.95))
)


def random_pair(case: tuple[int, int, int, float]) -> tuple[np.ndarray, np.ndarray]:
    seed, seeds, queries, recall = case
    hits = study(np.random.default_rng(seed), (recall, recall), seeds, queries)
    return hits[0, 0], hits[1, 0]


def test_mean_squares_against_loops() -> None:
    values = np.random.default_rng(0).random((4, 7))
    mean, rows, columns = values.mean(), values.mean(1), values.mean(0)
    left = sum((values[s, q] - rows[s] - columns[q] + mean) ** 2 for s in range(4) for q in range(7)) / (3 * 6)
    of_seeds = 7 * sum((r - mean) ** 2 for r in rows) / 3
    of_queries = 4 * sum((c - mean) ** 2 for c in columns) / 6
    estimated = components(values)
    assert estimated.residual == pytest.approx(left)
    assert estimated.seed == pytest.approx(max((of_seeds - left) / 7, 0))
    assert estimated.query == pytest.approx(max((of_queries - left) / 4, 0))


def test_components_are_recovered() -> None:
    rng = np.random.default_rng(1)
    values = 0.3 * rng.standard_normal((60, 1)) + 0.5 * rng.standard_normal((1, 4000)) + rng.standard_normal((60, 4000))
    estimated = components(values)
    assert (estimated.seed, estimated.query, estimated.residual) == pytest.approx((0.09, 0.25, 1.0), rel=0.35)
    estimated_spread = spread(values)
    assert estimated_spread.between == pytest.approx(estimated.seed / 60 + estimated.residual / 240_000)
    assert estimated_spread.within == pytest.approx(estimated.query / 4000)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_tail_is_that_of_the_sum_of_two_ts(seeds: int) -> None:
    rng = np.random.default_rng(2)
    both = Spread(0.0, np.float64(2.0), np.float64(0.7), 100, seeds - 1)
    drawn = math.sqrt(2) * rng.standard_t(100, 400_000) + math.sqrt(0.7) * rng.standard_t(seeds - 1, 400_000)
    for distance in (0.5, 2.0, 5.0):
        assert float(two_sided(distance, both)) == pytest.approx(np.mean(np.abs(drawn) > distance), abs=0.004)
    alone = Spread(0.0, np.float64(0.0), np.float64(1.0), 100, seeds - 1)
    assert float(half_width(alone, 0.05)) == pytest.approx(stats.t.isf(0.025, seeds - 1), rel=2e-3)


def bisected_half_width(spread_of_mean: Spread, alpha: float) -> np.ndarray:
    """Return the half width by bisection alone, from the same upper bound as `half_width`."""
    high = stats.t.isf(alpha / 2, spread_of_mean.query_df) ** 2 * spread_of_mean.within
    if spread_of_mean.seed_df:
        high = high + stats.t.isf(alpha / 2, spread_of_mean.seed_df) ** 2 * spread_of_mean.between
    high = 1.5 * np.sqrt(high)
    low = np.zeros_like(high)
    for _ in range(32):
        middle = (low + high) / 2
        is_outside = two_sided(middle, spread_of_mean) < alpha
        low, high = np.where(is_outside, low, middle), np.where(is_outside, middle, high)
    return (low + high) / 2


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, 4.5, 9]), st.sampled_from([1e-4, 0.05 / 6, 0.05, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_half_width_is_bit_for_bit_that_of_bisection(seed: int, seed_df: float, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    within, between = (rng.exponential(size=5) * 10.0 ** rng.integers(-8, 1, 5) * (rng.random(5) < 0.8) for _ in "ab")
    both = Spread(0.0, within, between if seed_df else np.zeros(5), int(rng.choice([1, 5, 59, 499])), seed_df)
    np.testing.assert_array_equal(half_width(both, alpha), bisected_half_width(both, alpha))


@given(st.floats(0, 5), st.floats(0.01, 5), st.integers(0, 12), st.floats(0.001, 0.3))
@settings(max_examples=60, deadline=None)
def test_half_width_is_where_the_tail_is_alpha(within: float, between: float, seed_df: int, alpha: float) -> None:
    both = Spread(0.0, np.float64(within + 0.01), np.float64(between if seed_df else 0.0), 50, seed_df)
    assert float(two_sided(half_width(both, alpha), both)) == pytest.approx(alpha, rel=1e-4)


def test_one_seed_is_the_paired_t_test() -> None:
    hits = study(np.random.default_rng(3), (0.35, 0.3), 1, 3350)[:, 0, 0]
    assert float(two_sided(spread((hits[0] - hits[1])[None]).mean, spread((hits[0] - hits[1])[None]))) == pytest.approx(
        stats.ttest_rel(hits[0], hits[1]).pvalue, rel=1e-9
    )
    difference = paired_difference(hits[0], hits[1])
    interval = stats.ttest_rel(hits[0], hits[1]).confidence_interval()
    assert (difference.low, difference.high) == pytest.approx((100 * interval.low, 100 * interval.high), abs=0.01)
    assert "one seed" in difference.note


def test_one_seed_agrees_with_mcnemar() -> None:
    rng = np.random.default_rng(4)
    for recall in (0.2, 0.32):
        a, b = study(rng, (recall, 0.3), 1, 2000)[:, 0, 0]
        won, lost = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
        exact = stats.binomtest(won, won + lost).pvalue
        difference = paired_difference(a, b)
        assert difference.estimate == pytest.approx(100 * (won - lost) / 2000)
        assert abs(math.log(difference.p) - math.log(exact)) < 0.1 * max(1.0, -math.log(exact))
        assert difference.p > exact * 0.5


def test_few_wins_are_not_overrated() -> None:
    a, b = np.zeros(131), np.zeros(131)
    a[:4] = 1
    assert paired_difference(a, b).p > 0.05  # exact McNemar: 0.125; the plain t-test: 0.045
    assert stats.ttest_rel(a, b).pvalue < 0.05


def test_recall_interval_is_wilsons_with_one_seed() -> None:
    hits = np.zeros(2000)
    hits[:600] = 1
    wanted = stats.binomtest(600, 2000).proportion_ci(method="wilson")
    interval = recall_interval(hits)
    assert interval.estimate == pytest.approx(30)
    assert (interval.low, interval.high) == pytest.approx((100 * wanted.low, 100 * wanted.high), abs=0.01)
    assert str(interval) == "30.0 [28.0, 32.0]"


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_hit_and_every_hit_still_have_an_interval(value: float, seeds: int) -> None:
    intervals = recall_interval(np.full((seeds, 131), value))
    assert intervals.high - intervals.low == pytest.approx(2.85, abs=0.05)  # 1.96^2 / (131 + 1.96^2)
    assert intervals.low == 0 if value == 0 else intervals.high == 100


def test_interval_against_a_brute_force_bootstrap() -> None:
    """With many seeds and queries, where the bootstrap over both is valid."""
    rng = np.random.default_rng(5)
    hits = study(rng, (0.3,), 40, 400, seed_sd=0.3)[0, 0]
    drawn = [hits[rng.integers(0, 40, 40)][:, rng.integers(0, 400, 400)].mean() for _ in range(3000)]
    low, high = 100 * np.quantile(drawn, [0.025, 0.975])
    interval = recall_interval(hits)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_unpaired_seeds_against_a_brute_force_bootstrap() -> None:
    rng = np.random.default_rng(6)
    hits = study(rng, (0.4, 0.3), 40, 400, seed_sd=0.3)
    a, b = hits[0, 0], hits[1, 0, :30]

    def once() -> float:
        queries = rng.integers(0, 400, 400)
        return float(a[rng.integers(0, 40, 40)][:, queries].mean() - b[rng.integers(0, 30, 30)][:, queries].mean())

    low, high = 100 * np.quantile([once() for _ in range(3000)], [0.025, 0.975])
    difference = paired_difference(a, b)
    assert not difference.paired_seeds and difference.components is None and difference.num_seeds == 30
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=0.15 * (high - low))
    assert paired_difference(a, b[:1]).note.startswith("one seed")


@given(tables)
@settings(max_examples=60, deadline=None)
def test_orders_of_queries_and_seeds_do_not_matter_and_swapping_flips(case: tuple[int, int, int, float]) -> None:
    a, b = random_pair(case)
    rng = np.random.default_rng(case[0])
    seeds, queries = rng.permutation(len(a)), rng.permutation(a.shape[1])
    one, other = paired_difference(a, b), paired_difference(a[seeds][:, queries], b[seeds][:, queries])
    assert (one.estimate, one.low, one.high, one.p) == pytest.approx(
        (other.estimate, other.low, other.high, other.p), rel=1e-6, abs=1e-9
    )
    swapped = paired_difference(b, a)
    assert (one.estimate, one.low, one.high, one.p) == pytest.approx(
        (-swapped.estimate, -swapped.high, -swapped.low, swapped.p), rel=1e-6, abs=1e-9
    )
    assert (one.p < 0.05) == (one.low > 0 or one.high < 0) or abs(one.p - 0.05) < 1e-6
    recall, again = recall_interval(a), recall_interval(a[seeds][:, queries])
    assert (recall.low, recall.high) == pytest.approx((again.low, again.high), rel=1e-6, abs=1e-9)
    assert 0 <= recall.low <= recall.estimate <= recall.high <= 100


@given(tables)
@settings(max_examples=30, deadline=None)
def test_identical_runs_do_not_differ(case: tuple[int, int, int, float]) -> None:
    hits, _ = random_pair(case)
    difference = paired_difference(hits, hits)
    assert difference.estimate == 0 and difference.p == 1 and difference.low < 0 < difference.high


def test_hits_agree_with_the_metrics_under_ties() -> None:
    rng = np.random.default_rng(7)
    scores = rng.integers(0, 4, (50, 50)).astype(float)
    own = np.diag(scores)[:, None]
    greater, equal = (scores > own).sum(1), (scores == own).sum(1)
    metrics = retrieval_metrics(scores)
    ranks = 1 + greater + (equal - 1) / 2
    for k, wanted in ((1, metrics.r1), (5, metrics.r5), (10, metrics.r10)):
        assert recall_interval(hits_at(ranks, k, equal)).estimate == pytest.approx(wanted)
    assert median_rank_interval(ranks).estimate == metrics.medr
    assert hits_at([1, 5, 6], 5).tolist() == [1, 1, 0]


def test_median_rank_interval_is_that_of_the_order_statistics() -> None:
    ranks = np.random.default_rng(8).permutation(1001)[:401] + 1.0
    ordered = np.sort(ranks)
    low, high = int(stats.binom.ppf(0.025, 401, 0.5)), int(stats.binom.isf(0.025, 401, 0.5))
    interval = median_rank_interval(ranks)
    assert interval.estimate == np.median(ranks)
    assert abs(np.searchsorted(ordered, interval.low) - low) <= 2
    assert abs(np.searchsorted(ordered, interval.high) - high) <= 2
    constant = median_rank_interval(np.full((3, 10), 4.0))
    assert (constant.estimate, constant.low, constant.high) == (4, 4, 4)


def test_median_rank_covers() -> None:
    rng, inside = np.random.default_rng(9), 0
    for _ in range(200):
        logs = rng.standard_normal((1, 150)) + 0.2 * rng.standard_normal((5, 1)) + rng.standard_normal((5, 150))
        interval = median_rank_interval(1 + np.exp(3 + logs))
        inside += interval.low <= 1 + math.exp(3) <= interval.high
    assert 184 <= inside <= 200


def test_chance_and_published_rows() -> None:
    interval = chance_interval(1, 1000, 1000)
    assert interval.estimate == pytest.approx(0.1) and (interval.low, interval.high) == (0.0, pytest.approx(0.3))
    assert chance_interval(10, 5, 20).estimate == 100
    row = binomial_interval(0.18, 1000)
    wanted = stats.binomtest(2, 1000).proportion_ci(method="wilson")
    assert (row.low, row.high) == pytest.approx((100 * wanted.low, 100 * wanted.high))
    other = binomial_interval(0.14, 1000)
    assert other.low < row.estimate < other.high  # 0.18 and 0.14 are not told apart


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_against_its_definition(p: list[float]) -> None:
    """Finds the smallest level at which the step-down procedure rejects by trying all levels at which its decision changes."""

    def rejected(level: float) -> set[int]:
        out: set[int] = set()
        for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] * (len(p) - step) > level:
                break
            out.add(i)
        return out

    adjusted = holm(p)
    levels = sorted({min(x * m, 1.0) for x in p for m in range(1, len(p) + 1)})
    for i, adjusted_p in enumerate(adjusted):
        slow = next((level for level in levels if i in rejected(level)), 1.0)
        assert adjusted_p == pytest.approx(slow, abs=1e-12)


def test_a_clear_winner_and_none() -> None:
    rng = np.random.default_rng(10)
    clear = study(rng, (0.5, 0.2, 0.25), 5, 800)[:, 0]
    comparison = compare_orders(dict(zip(("vt>a", "at>v", "av>t"), clear, strict=True)))
    assert comparison.winner == "vt>a" and comparison.verdict.startswith("vt>a beats every other order")
    assert len(comparison.differences) == 3
    assert all(pair.p <= pair.p_adjusted for pair in comparison.differences)
    tied = study(np.random.default_rng(1), (0.5, 0.5, 0.25), 5, 800)[:, 0]
    comparison = compare_orders(dict(zip(("vt>a", "at>v", "av>t"), tied, strict=True)))
    assert comparison.winner is None and comparison.verdict.startswith("not distinguishable: ")
    assert "power 0.8 needs" in comparison.verdict and "\n" not in comparison.verdict
    assert compare_orders({"a": tied[0], "b": tied[1]}, explain=False).verdict == "not distinguishable"


def test_one_seed_never_wins() -> None:
    hits = study(np.random.default_rng(11), (0.8, 0.2), 1, 3000)[:, 0]
    comparison = compare_orders({"a": hits[0], "b": hits[1]})
    assert comparison.differences[0].p < 1e-9 and comparison.winner is None and "one seed" in comparison.verdict
    assert "one seed" in interaction({"a": hits[0], "b": hits[1]}, {"a": hits[1], "b": hits[0]})[1]


def test_at_a_tie_no_order_is_called_ahead() -> None:
    hits = np.array([[1.0, 0.0, 1.0, 0.0]])
    level = compare_orders({"avt": hits, "av>t": hits[:, ::-1], "at>v": 0 * hits})
    assert (
        level.winner is None
        and "avt and av>t are tied, but with one seed" in level.verdict
        and "ahead" not in level.verdict
    )
    several = {name: np.repeat(values, 3, 0) for name, values in (("a", hits), ("b", hits[:, ::-1]))}
    assert "a and b are tied (adjusted p 1)" in compare_orders(several).verdict


def test_interaction() -> None:
    rng = np.random.default_rng(12)
    one, more, crossed, same = (
        dict(zip("ab", study(rng, recalls, 5, 600)[:, 0], strict=True))
        for recalls in ((0.5, 0.3), (0.7, 0.25), (0.2, 0.45), (0.5, 0.3))
    )
    pairs, verdict = interaction(one, crossed)
    assert verdict == "a beats b on benchmark 1, and b beats a on benchmark 2"
    assert pairs[0].p_crossing == pytest.approx(max(pairs[0].first.p, pairs[0].second.p) / 2)
    assert pairs[0].estimate == pytest.approx(pairs[0].first.estimate - pairs[0].second.estimate)
    pairs, verdict = interaction(one, more)
    assert verdict.startswith("differences vary between the benchmarks (a against b)") and pairs[0].p_crossing == 1
    assert interaction(one, same)[1].startswith("not distinguishable")
    fewer = {name: values[:4, :300] for name, values in crossed.items()}
    assert interaction(one, fewer)[0][0].p_crossing < 0.01


def test_power_against_simulation() -> None:
    rng = np.random.default_rng(13)
    parts = Components(seed=0.0004, query=0.08, residual=0.2, num_seeds=50, num_queries=5000)
    for seeds, queries, d in ((1, 300, 5.0), (3, 400, 6.0), (5, 1000, 4.0)):
        seed = 0.0 if seeds == 1 else parts.seed
        values = (
            d / 100
            + math.sqrt(seed) * rng.standard_normal((1500, seeds, 1))
            + math.sqrt(parts.query) * rng.standard_normal((1500, 1, queries))
            + math.sqrt(parts.residual) * rng.standard_normal((1500, seeds, queries))
        )
        estimated = difference_spread(values, np.zeros_like(values), True)
        simulated_power = float(((two_sided(estimated.mean, estimated) < 0.05) & (estimated.mean > 0)).mean())
        assert predicted_power(d, seeds, queries, parts) == pytest.approx(simulated_power, abs=0.05)


def test_seeds_and_queries_that_are_needed() -> None:
    parts = Components(seed=0.0004, query=0.08, residual=0.2, num_seeds=5, num_queries=1000)
    for needed in queries_needed(4.0, parts, (3, 5, 10), num_pairs=6):
        if needed.num_queries is not None:
            assert predicted_power(4.0, needed.num_seeds, needed.num_queries, parts, num_pairs=6) >= 0.8
            fewer = int(needed.num_queries * 0.98)
            assert predicted_power(4.0, needed.num_seeds, fewer, parts, num_pairs=6) < 0.8
    assert "no number of queries" in str(queries_needed(1.0, parts, (2,))[0])
    seeds = seeds_needed(4.0, 1000, parts)
    assert seeds is not None and predicted_power(4.0, seeds, 1000, parts) >= 0.8
    assert predicted_power(4.0, seeds - 1, 1000, parts) < 0.8
    assert seeds_needed(0.1, 100, parts) is None
    hits = study(np.random.default_rng(14), (0.31, 0.3), 3, 200)[:, 0]
    assert "points ahead of" in what_it_takes(paired_difference(hits[0], hits[1]))


def test_errors_have_one_line() -> None:
    good = np.zeros((2, 131))
    cases = {
        "av>t has 131 queries and vt>a has 130": lambda: compare_orders({"av>t": good, "vt>a": np.zeros((2, 130))}),
        "needs at least two orders": lambda: compare_orders({"a": good}),
        "a has 131 queries and b has 9": lambda: paired_difference(good, np.zeros((2, 9))),
        "their seeds cannot be paired": lambda: paired_difference(good, good[:1], paired_seeds=True),
        "hits must lie in [0, 1]": lambda: recall_interval([[3.0, 1.0]]),
        "at least two queries": lambda: recall_interval([[1.0]]),
        "the level is 95": lambda: recall_interval(good, level=95),
        "of at least 1": lambda: median_rank_interval([0.0, 2.0]),
        "compare the same orders": lambda: interaction({"a": good, "b": good}, {"a": good, "c": good}),
        "p-values must be": lambda: holm([2.0]),
        "from two or more seeds": lambda: predicted_power(1, 2, 100, components(np.eye(5)[:1])),
        "give a percentage and a positive number of queries": lambda: binomial_interval(120, 100),
    }
    for text, call in cases.items():
        with pytest.raises(TrichordError) as caught:
            call()
        assert text in str(caught.value) and "\n" not in str(caught.value)


def _coverage(rng: np.random.Generator, seeds: int, queries: int, studies: int) -> tuple[float, float]:
    hits = study(rng, (0.3, 0.25), seeds, queries, studies=studies)
    spread_of_hits = spread(hits[0])
    low, high = wilson(spread_of_hits.mean, half_width(spread_of_hits, 0.05), 0.05, queries, seeds)
    between = difference_spread(hits[0], hits[1], True)
    paired = two_sided(between.mean - 0.05, between) >= 0.05
    return float(((low <= 0.3) & (high >= 0.3)).mean()), float(paired.mean())


@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_of_two_hundred_studies(seeds: int) -> None:
    for share in _coverage(np.random.default_rng(seeds), seeds, 150, 200):
        assert 0.91 <= share <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "queries"), [(3, 1000), (5, 131), (5, 1000), (10, 131)])
def test_coverage_of_two_thousand_studies(seeds: int, queries: int) -> None:
    for share in _coverage(np.random.default_rng(seeds), seeds, queries, 2000):
        assert 0.94 <= share <= (0.985 if seeds == 3 else 0.975)


def test_no_winner_among_equals() -> None:
    rng = np.random.default_rng(15)
    hits = study(rng, (0.2, 0.2, 0.2), 3, 150, studies=60)
    won = sum(
        compare_orders(dict(zip("abc", x, strict=True)), explain=False).winner is not None for x in hits.swapaxes(0, 1)
    )
    assert won <= 5
