"""Retrieval metrics compared with loops: ties, NaN, missing queries, and ranks from embeddings in blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import threadpoolctl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.evaluation import products as module
from trichord.evaluation import retrieval_metrics, retrieval_ranks
from trichord.evaluation.counts import RankCounts, matrix_counts, row_counts
from trichord.evaluation.ranks import chance_recall, metrics_from_counts


def slow_metrics(scores: np.ndarray, truth: list[int]) -> tuple[float, float, float]:
    """Return (R@1, R@2 as fractions, mean rank), averaged over every order of the gallery that breaks the ties."""
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
    metrics = retrieval_metrics(scores, truth=truth)
    assert metrics.r1 == pytest.approx(100 * r1) and metrics.meanr == pytest.approx(mean)
    greater = np.array([sum(x > row[t] for x in row) for row, t in zip(scores, truth, strict=True)])
    equal = np.array([sum(x == row[t] for x in row) for row, t in zip(scores, truth, strict=True)])
    assert r2 == pytest.approx(np.clip((min(2, g) - greater) / equal, 0, 1).mean())
    best, worst = (retrieval_metrics(scores, truth=truth, ties=t) for t in ("best", "worst"))
    assert best.r1 >= metrics.r1 >= worst.r1 and best.meanr <= metrics.meanr <= worst.meanr
    assert best.meanr == pytest.approx((1 + greater).mean()) and worst.meanr == pytest.approx((greater + equal).mean())


@pytest.mark.parametrize("n", [1, 2, 7, 50, 968])
@pytest.mark.parametrize("value", [0.0, 3.5, -np.inf, np.inf])
def test_a_collapsed_model_scores_chance(n: int, value: float) -> None:
    metrics = retrieval_metrics(np.full((n, n), value))
    for k, recall in ((1, metrics.r1), (5, metrics.r5), (10, metrics.r10)):
        assert recall == pytest.approx(chance_recall(k, n)) == pytest.approx(100 * min(k, n) / n)
    assert metrics.medr == metrics.meanr == (n + 1) / 2


def test_random_youcook2_median() -> None:
    zeros = retrieval_metrics(np.zeros((3350, 3350), np.float32))
    assert zeros.medr == 1675.5  # the mean rank of 3,350 tied items; "1675" of the literature is its floor
    ranks = np.random.default_rng(0).permutation(3350)
    assert abs(np.median(ranks + 1) - 1675.5) < 1


def test_perfect_and_worst() -> None:
    eye = np.eye(20)
    metrics = retrieval_metrics(eye)
    assert (metrics.r1, metrics.r5, metrics.r10, metrics.medr, metrics.meanr) == (100, 100, 100, 1, 1)
    metrics = retrieval_metrics(-eye)
    assert (metrics.r1, metrics.r5, metrics.r10, metrics.medr) == (0, 0, 0, 20)
    assert "R@1 0.0  R@5 0.0  R@10 0.0  MedR 20  MeanR 20.0  (20 queries, gallery of 20)" in str(metrics)


def test_nan_is_the_worst_and_never_a_hit() -> None:
    for n in (3, 50):
        nan = retrieval_metrics(np.full((n, n), np.nan))
        assert (nan.r1, nan.r5, nan.r10, nan.medr, nan.meanr) == (0, 0, 0, n, n)
    scores = np.eye(4)
    scores[0, 0] = np.nan  # a truth
    scores[1, 2] = np.nan  # another item: no better than a low score
    metrics = retrieval_metrics(scores)
    assert metrics.r1 == 75 and metrics.r10 == 75 and metrics.meanr == (4 + 1 + 1 + 1) / 4
    lowest = retrieval_metrics(np.array([[-np.inf, np.nan], [np.nan, -np.inf]]))
    assert lowest.r1 == 100


def test_missing_queries() -> None:
    """The case of MSR-VTT: 968 of 1,000 clips were scored."""
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


@pytest.mark.parametrize("block", [7, 64, 100, 257, 4096])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_tie_whatever_the_block(block: int, dtype: type) -> None:
    """Equal gallery rows tie exactly at any position in a block, also in wide rows whose sums are rounded."""
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
    metrics = metrics_from_counts(retrieval_ranks(same, same, block=77))
    assert metrics.r10 == pytest.approx(chance_recall(10, 300)) and metrics.medr == 150.5
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
    metrics = metrics_from_counts(retrieval_ranks(q, g))
    assert metrics.r10 == 50 and metrics.meanr == (4 + 4 + 1 + 1) / 4


def plain_counts(queries: object, gallery: object, truth: np.ndarray) -> tuple[list[int], list[int]]:
    """Compute every score by one float64 product of distinct rows, rounded to float32 unless an input is float64."""
    q, g = (x.float().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (queries, gallery))
    places: dict[tuple[float, ...], int] = {}
    rows = [places.setdefault(tuple((row + 0).tolist()), len(places)) for row in g]
    first = [rows.index(place) for place in range(len(places))]
    with np.errstate(all="ignore"):
        scores = q.astype(np.float64) @ g[first].astype(np.float64).T
        if np.result_type(q, g) != np.float64:
            scores = scores.astype(np.float32)
    scores = scores[:, rows]
    own = scores[np.arange(len(q)), truth][:, None]
    nan = np.isnan(own[:, 0])
    greater, equal = (scores > own).sum(1), (scores == own).sum(1)
    return np.where(nan, len(g), greater).tolist(), np.where(nan, 1, equal).tolist()


def same(counts: RankCounts, expected: tuple[list[int], list[int]]) -> bool:
    return (counts.greater.tolist(), counts.equal.tolist()) == expected


KINDS = ("normal", "coarse", "close", "alike", "wild", "tiny", "huge", "not finite", "one of each")


def rows_of(kind: str, rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    normal = rng.normal(size=(n, d))
    if kind == "coarse":
        return rng.integers(-1, 2, size=(n, d)) * rng.choice([1.0, -0.0], size=(n, 1))
    if kind == "close":  # float32 products cannot tell them apart
        return np.random.default_rng(0).normal(size=d) + 1e-6 * normal
    if kind == "alike":
        return np.tile(normal[:1], (n, 1))
    if kind == "wild":
        return normal * 10.0 ** rng.integers(-12, 12, size=(n, d))
    if kind in ("tiny", "huge"):  # scores below and above the range of float32
        return normal * (1e-24 if kind == "tiny" else 1e25)
    if kind == "not finite":
        return np.where(rng.random((n, d)) < 0.1, rng.choice([np.nan, np.inf, -np.inf], size=(n, d)), normal)
    if kind == "one of each":
        return np.stack([rows_of(KINDS[int(rng.integers(8))], rng, 1, d)[0] for _ in range(n)])
    return normal


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
    st.integers(1, 50),
    st.sampled_from([0, 2, 128]),
    st.integers(0, 10**6),
)
def test_filtered_counts_are_those_of_float64(
    size: tuple[int, int, int], kinds: tuple[str, str], dtype: str, block: int, most: int, seed: int
) -> None:
    num_queries, num_gallery, d = size
    rng = np.random.default_rng(seed)
    queries, gallery = rows_of(kinds[0], rng, num_queries, d), rows_of(kinds[1], rng, num_gallery, d)
    gallery = gallery[rng.integers(num_gallery, size=num_gallery)] if seed % 2 else gallery  # copies
    with np.errstate(all="ignore"):
        q, g = (
            torch.from_numpy(x).to(torch.bfloat16) if dtype == "bfloat16" else x.astype(dtype)
            for x in (queries, gallery)
        )
    truth = rng.integers(num_gallery, size=num_queries)
    expected = plain_counts(q, g, truth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_OPEN", most)
        assert same(retrieval_ranks(q, g, truth, block), expected)
        assert same(retrieval_ranks(q, g, truth, block, "float64"), expected)
        tensors = [x if isinstance(x, torch.Tensor) else torch.from_numpy(x) for x in (q, g)]
        assert same(module.product_counts(*tensors, truth, block, "filtered"), expected)  # what a GPU runs


@pytest.mark.parametrize("kind", ["normal", "close", "planted", "one huge"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filter_over_many_tiles(kind: str, dtype: type) -> None:
    rng = np.random.default_rng(3)
    gallery = rows_of("close" if kind == "close" else "normal", rng, 1100, 96)
    queries = gallery + rng.normal(size=gallery.shape) if kind == "planted" else rng.normal(size=(1100, 96))
    if kind == "one huge":
        gallery[700] *= 1e30
    q, g = queries.astype(dtype), gallery.astype(dtype)
    expected = plain_counts(q, g, np.arange(1100))
    for block in (100, 1024):
        assert same(retrieval_ranks(q, g, block=block), expected)
    assert same(
        module.product_counts(torch.from_numpy(q), torch.from_numpy(g), np.arange(1100), 20, "filtered"), expected
    )


def test_only_hard_queries_are_compared_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    whole = module._ranks_float64
    monkeypatch.setattr(module, "_ranks_float64", lambda q, *rest: (asked.append(len(q)), whole(q, *rest))[1])
    rng = np.random.default_rng(0)
    q, g = rng.normal(size=(600, 64)).astype(np.float32), rng.normal(size=(600, 64)).astype(np.float32)
    q[3], q[5, 0], q[7] = 0, np.inf, np.nan  # all scores alike; an infinite one; no score
    g[11] = np.nan
    counts = retrieval_ranks(q, g)
    assert asked == [2] and same(counts, plain_counts(q, g, np.arange(600)))
    assert counts.greater[7] == counts.greater[11] == 600 and counts.equal[3] == 599


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e15])
@pytest.mark.parametrize("d", [1, 3, 512, 6144])
def test_thresholds_hold_for_the_worst_products(d: int, scale: float) -> None:
    """Sums of terms that all round in the same direction, and that cancel, in float32, one after another."""
    rng = np.random.default_rng(d)
    for sign in (1, -1):
        q = (scale * (1 + rng.random((20, d)))).astype(np.float32)
        g = (1 + rng.random((20, d)) * np.where(np.arange(d) % 2, sign, 1)).astype(np.float32)
        exact = (q.astype(np.float64) * g).sum(1)
        own = exact.astype(np.float32).astype(np.float64)
        product = np.zeros(20, np.float32)
        for k in range(d):
            product += q[:, k] * g[:, k]
        norms = [np.linalg.norm(x.astype(np.float64), axis=1) for x in (q, g)]
        low, high, sure = module._thresholds(own, norms[0], norms[1].max(), d)
        assert sure.all() and (low <= product).all() and (product <= high).all()  # never sure of what ties
        assert ((high - low) <= 4 * (d + 4) * 2.0**-24 * norms[0] * norms[1].max() + 4 * np.spacing(abs(high))).all()


@pytest.mark.parametrize("d", [1, 40, 6144])
def test_thresholds_where_the_bound_is_reached(d: int) -> None:
    """1 + 2^-24 is always rounded to 1 in float32; below its range, each product is rounded up by nearly half a step."""
    for small, first in ((2.0**-12, 1.0), (0.775 * 2.0**-74.5, 0.775 * 2.0**-74.5)):
        q = np.full((1, d), small, np.float32)
        q[0, 0] = first
        exact = (q.astype(np.float64) ** 2).sum(1)
        product = np.zeros(1, np.float32)
        for k in range(d):
            product += q[:, k] * q[:, k]
        norm = np.sqrt(exact)
        assert d < 40 or (abs(exact - product) > 0.6 * d * np.float32(2.0**-24 if first == 1 else 2.0**-150)).all()
        for own in exact, product.astype(np.float64):
            low, high, sure = module._thresholds(own, norm, norm[0], d)
            assert sure.all() and (low <= product).all() and (product <= high).all()
        tie = np.nextafter(exact.astype(np.float32), np.float32(0)).astype(np.float64)
        assert d == 1 or first < 1 or module._thresholds(tie, norm, norm[0], d)[1][0] > product[0]


def test_counts_of_wide_rows_do_not_overflow() -> None:
    for width in (1, 8, 2040, 2048, 5000, 8192):
        assert row_counts(np.ones((3, width), bool)).tolist() == [width] * 3


def test_torch_settings_neither_matter_nor_change(monkeypatch: pytest.MonkeyPatch) -> None:
    precisions: list[str] = []
    compare = module._compare
    monkeypatch.setattr(
        module, "_compare", lambda *x: (precisions.append(torch.get_float32_matmul_precision()), compare(*x))[1]
    )
    rng = np.random.default_rng(0)
    q, g = (torch.from_numpy(rng.normal(size=(300, 512)).astype(np.float32)) for _ in range(2))
    expected = plain_counts(q, g, np.arange(300))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert same(module.product_counts(q, g, np.arange(300), 1024, "filtered"), expected)
        assert torch.get_float32_matmul_precision() == "medium" and set(precisions) == {"highest"}
    finally:
        torch.set_float32_matmul_precision(before)


def test_threads_give_the_same_and_are_given_back() -> None:
    rng = np.random.default_rng(0)
    q, g = rng.normal(size=(3000, 200)).astype(np.float32), rng.normal(size=(3000, 200)).astype(np.float32)
    q[5, :2] = np.inf  # NaN scores warn in every thread, unless told not to
    scores = rng.integers(9, size=(8000, 8000)).astype(np.int8)
    results = []
    for count in (1, 2):
        with threadpoolctl.threadpool_limits(count, "blas"):
            ranks = retrieval_ranks(q, g)
            results.append((ranks.greater.tolist(), ranks.equal.tolist(), retrieval_metrics(scores)))
            blas = [x["num_threads"] for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"]
            assert set(blas) == {count}
    assert results[0] == results[1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200), st.sampled_from([1, 7, 8, 255, 256, 2039, 2040, 2041, 4096]), st.integers(1, 9), st.integers(0, 10**6),
    st.sampled_from(["float32", "float64", "float16", "int64", "bfloat16"]), st.booleans(),
)  # fmt: skip
def test_counts_of_a_matrix(q: int, g: int, levels: int, seed: int, dtype: str, turned: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(g, q)).T if turned else rng.integers(levels, size=(q, g))
    truth = rng.integers(g, size=q)
    own = scores[np.arange(q), truth][:, None]
    expected = (scores > own).sum(1).tolist(), (scores == own).sum(1).tolist()
    matrix = torch.from_numpy(scores).to(torch.bfloat16) if dtype == "bfloat16" else scores.astype(dtype, order="K")
    assert same(matrix_counts(matrix, truth), expected)
    assert same(matrix_counts(torch.as_tensor(matrix), truth, on_device=True), expected)
    assert retrieval_metrics(matrix, truth=truth) == metrics_from_counts(matrix_counts(matrix, truth))


@pytest.mark.parametrize(
    "call,message",
    [
        (
            lambda: retrieval_metrics(np.zeros((2, 3))),
            "2 queries and 3 gallery items, so the truth cannot be the diagonal",
        ),
        (lambda: retrieval_metrics(np.zeros((2, 3)), truth=[0, 3]), "an index from 0 to 2 for each of 2 queries"),
        (lambda: retrieval_metrics(np.zeros((2, 3)), truth=[0]), "for each of 2 queries"),
        (
            lambda: retrieval_metrics(np.zeros(3)),
            "must be a matrix with the shape .queries, gallery., but their shape is \\(3,\\)",
        ),
        (lambda: retrieval_metrics(np.zeros((0, 0))), "must be a matrix"),
        (
            lambda: retrieval_metrics(np.eye(2), ties="mean"),
            "unknown tie policy 'mean'; expected 'expected', 'best' or 'worst'",
        ),
        (
            lambda: retrieval_metrics(np.eye(2), missing="skip"),
            "unknown policy for missing queries 'skip'; expected 'drop' or 'miss'",
        ),
        (lambda: retrieval_ranks(np.zeros((2, 3)), np.zeros((2, 4))), "must be matrices of the same width"),
        (
            lambda: retrieval_ranks(np.eye(2), np.eye(2), arithmetic="float16"),
            "unknown arithmetic 'float16'; expected 'filtered' or 'float64'",
        ),
        (lambda: metrics_from_counts(retrieval_ranks(np.zeros((0, 3)), np.zeros((0, 3)))), "no queries to score"),
        (lambda: chance_recall(1, 0), "an empty gallery"),
    ],
)
def test_wrong_arguments(call: object, message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        call()  # type: ignore[operator]
