"""Agreement of clusters with labels, computed from the definitions."""

from __future__ import annotations

from itertools import combinations, permutations
from math import comb, log

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trichord.tasks.labels.clusters import agreement, chance_agreement, cluster_embeddings, purity_hits


def slow_nmi(a: list[int], b: list[int]) -> float:
    n = len(a)

    def entropy(values: list) -> float:
        return -sum(values.count(v) / n * log(values.count(v) / n) for v in set(values))

    mutual = entropy(a) + entropy(b) - entropy(list(zip(a, b, strict=True)))
    mean = (entropy(a) + entropy(b)) / 2
    return mutual / mean if mean else 1.0


def slow_ari(a: list[int], b: list[int]) -> float:
    pairs = list(combinations(range(len(a)), 2))
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    in_a, in_b = (sum(x[i] == x[j] for i, j in pairs) for x in (a, b))
    expected, most = in_a * in_b / comb(len(a), 2), (in_a + in_b) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def slow_purity(a: list[int], b: list[int]) -> float:
    of_cluster = [[y for x, y in zip(a, b, strict=True) if x == c] for c in set(a)]
    return sum(max(kinds.count(k) for k in kinds) for kinds in of_cluster) / len(a)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=14))
@settings(deadline=None)  # the first call imports scikit-learn
def test_measures_are_those_of_the_definitions(items: list[tuple[int, int]]) -> None:
    cluster, kind = (list(values) for values in zip(*items, strict=True))
    measured = agreement(np.array(cluster), np.array(kind))
    assert measured.nmi / 100 == pytest.approx(slow_nmi(cluster, kind), abs=1e-9)
    assert measured.ari / 100 == pytest.approx(slow_ari(cluster, kind), abs=1e-9)
    assert measured.purity / 100 == pytest.approx(slow_purity(cluster, kind))
    renamed = agreement(3 - np.array(cluster), np.array(kind))
    assert (renamed.nmi, renamed.ari, renamed.purity) == pytest.approx((measured.nmi, measured.ari, measured.purity))


def test_by_hand() -> None:
    # clusters {0,1,2}, {3,4,5}; labels aab, bbb: purity 5/6. Pairs: 6 in a cluster, 7 of a label (1 + 6), 4 in both, of 15:
    # ARI = (4 - 6 * 7 / 15) / (6.5 - 2.8)
    measured = agreement(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1]))
    assert measured.purity == pytest.approx(500 / 6) and measured.ari == pytest.approx(100 * 1.2 / 3.7)


def test_chance_is_below_the_agreement_of_planted_clusters() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 5
    rows = np.eye(5)[kind] + 0.05 * rng.standard_normal((60, 5))
    lengths = rng.uniform(0.1, 10, (60, 1))  # k-means sees directions alone
    cluster = cluster_embeddings((rows * lengths).astype(np.float32), 5)
    measured, chance = agreement(cluster, kind), chance_agreement(cluster, kind, seed=0)
    assert (measured.nmi, measured.ari, measured.purity) == pytest.approx((100, 100, 100))
    assert chance.nmi < 30 and abs(chance.ari) < 5 and 20 < chance.purity < 50
    assert chance == chance_agreement(cluster, kind, seed=0) != chance_agreement(cluster, kind, seed=1)
    np.testing.assert_array_equal(cluster_embeddings((rows * lengths).astype(np.float32), 5), cluster)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=9), st.integers(0, 99))
@example([(0, 0), (0, 0), (0, 0)], 0)  # all equal
@settings(max_examples=20, deadline=None)
def test_chance_against_a_loop_over_permutations(items: list[tuple[int, int]], seed: int) -> None:
    cluster, kind = (list(values) for values in zip(*items, strict=True))
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(20):
        mixed = [kind[i] for i in rng.permutation(len(kind))]
        drawn.append((slow_nmi(cluster, mixed), slow_ari(cluster, mixed), slow_purity(cluster, mixed)))
    measured = chance_agreement(np.array(cluster), np.array(kind), seed)
    assert (measured.nmi, measured.ari, measured.purity) == pytest.approx(100 * np.mean(drawn, axis=0), abs=1e-7)


def test_chance_is_around_the_mean_over_every_permutation() -> None:
    cluster, kind = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]
    every = [
        (slow_nmi(cluster, p), slow_ari(cluster, p), slow_purity(cluster, p)) for p in map(list, permutations(kind))
    ]
    drawn = [chance_agreement(np.array(cluster), np.array(kind), seed) for seed in range(15)]
    means = np.mean([(one.nmi, one.ari, one.purity) for one in drawn], axis=0)
    error = 100 * np.std(every, axis=0) / (15 * 20) ** 0.5
    assert (np.abs(means - 100 * np.mean(every, axis=0)) < 4 * error).all()
    assert abs(np.mean([ari for _, ari, _ in every])) < 1e-9  # what the adjusted index is adjusted for


def test_collapsed_embeddings_are_one_cluster() -> None:
    cluster = cluster_embeddings(np.ones((8, 3), np.float32), 4)
    measured = agreement(cluster, np.arange(8) % 4)
    assert (measured.nmi, measured.ari, measured.purity) == pytest.approx((0, 0, 25))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=14))
def test_purity_is_the_mean_of_the_contributions_of_items(items: list[tuple[int, int]]) -> None:
    cluster, kind = (list(values) for values in zip(*items, strict=True))
    contributions = purity_hits(np.array(cluster), np.array(kind))
    for i, (c, k) in enumerate(items):
        beside = [y for x, y in items if x == c]
        most = {y for y in beside if beside.count(y) == max(beside.count(z) for z in beside)}
        assert contributions[i] == pytest.approx(1 / len(most) if k in most else 0)
    assert contributions.mean() == pytest.approx(slow_purity(cluster, kind))


def test_purity_of_tied_labels_by_hand() -> None:
    # cluster 0: a a b b c, a and b tie; cluster 4, with none between: c
    contributions = purity_hits(np.array([0, 0, 0, 0, 0, 4]), np.array([0, 0, 1, 1, 2, 2]))
    assert contributions.tolist() == [0.5, 0.5, 0.5, 0.5, 0, 1] and contributions.mean() == pytest.approx((2 + 1) / 6)
