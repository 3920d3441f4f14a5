"""k-means compared with loops in float64, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.losses import assign, fit_kmeans, kmeans
from trichord.losses.kmeans import _decide, _extents, fastest_path


def unit(x: np.ndarray) -> np.ndarray:
    length = np.sqrt((x**2).sum())
    return x / length if length > 1e-12 else x


def slow_kmeans(data: np.ndarray, start: np.ndarray, normalize: bool, iterations: int) -> tuple[np.ndarray, list[int]]:
    """Run k-means with plain loops; empty clusters become zero."""
    centroids = [unit(c) if normalize else c for c in start]
    labels: list[int] = []
    for step in range(iterations + 1):
        labels = [int(np.argmax([unit(x) @ unit(c) for c in centroids])) for x in data]
        if step == iterations:
            break
        for k in range(len(centroids)):
            members = [unit(x) if normalize else x for x, label in zip(data, labels, strict=True) if label == k]
            mean = np.mean(members, axis=0) if members else np.zeros(data.shape[1])
            centroids[k] = unit(mean) if normalize else mean
    return np.array(centroids), labels


def blobs(seed: int, n: int = 120, k: int = 4, d: int = 6, spread: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, d, generator=generator) * 3
    labels = torch.randint(k, (n,), generator=generator)
    return centres[labels] + spread * torch.randn(n, d, generator=generator), labels


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(2, 5), st.integers(0, 10**6), st.booleans(), st.integers(1, 5)
)
def test_oracle(n: int, k: int, d: int, seed: int, normalize: bool, iterations: int) -> None:
    rng = np.random.default_rng(seed)
    data, start = rng.normal(size=(n, d)) * rng.uniform(0.1, 5, size=(n, 1)), rng.normal(size=(k, d))
    expected, labels = slow_kmeans(data, start, normalize, iterations)
    fit = fit_kmeans(
        torch.tensor(data), k, max_iterations=iterations, tolerance=0.0, init_centroids=torch.tensor(start),
        normalize=normalize, empty="zero", block=7,
    )  # fmt: skip
    assert fit.labels.tolist() == labels and fit.iterations <= iterations
    np.testing.assert_allclose(fit.centroids.numpy(), expected, atol=2e-5)
    cosines = [unit(x) @ unit(expected[label]) for x, label in zip(data, labels, strict=True)]
    assert fit.objective == pytest.approx(1 - float(np.mean(cosines)), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0, 1, 3]))
def test_objective_never_rises(n: int, k: int, d: int, seed: int, distinct: int) -> None:
    """Spherical and with re-seeding, also with duplicates, more clusters than rows, and zero rows."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(n, d, generator=generator)
    if distinct:
        data = data[torch.randint(min(distinct, n), (n,), generator=generator)]
        data[0] = 0
    fit = fit_kmeans(data, k, generator=generator, tolerance=0.0, max_iterations=30)
    assert all(b <= a + 1e-6 for a, b in zip(fit.history, fit.history[1:], strict=False))
    assert fit.history[-1] == fit.objective and len(fit.history) == fit.iterations + 1
    assert torch.equal(fit.labels, assign(data, fit.centroids))
    assert fit.centroids.isfinite().all()
    lengths = fit.centroids.norm(dim=1)
    assert ((lengths - 1).abs().lt(1e-5) | lengths.eq(0)).all()


def test_finds_blobs() -> None:
    data, truth = blobs(0)
    fit = fit_kmeans(data, 4, init_centroids=torch.stack([data[truth == k][0] for k in range(4)]))
    assert fit.labels.tolist() == truth.tolist() and fit.iterations < 100


def test_empty_clusters() -> None:
    truth = torch.arange(120) % 4
    data = 5 * torch.eye(4)[truth] + 0.1 * torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    start = data[:1].repeat(4, 1)  # clusters 1 to 3 start empty: each gets the row that fits worst by then
    reseeded = fit_kmeans(data, 4, init_centroids=start)
    assert len({(int(a), int(b)) for a, b in zip(truth, reseeded.labels, strict=True)}) == 4
    assert reseeded.objective < 0.01
    zero = fit_kmeans(data, 4, init_centroids=start, empty="zero", max_iterations=1, normalize=False)
    assert not zero.centroids[1].any() and not zero.centroids[2].any()
    raw = fit_kmeans(data, 4, init_centroids=start, empty="reseed", max_iterations=1, normalize=False)
    assert any(torch.equal(raw.centroids[1], row) for row in data)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("empty", ["reseed", "zero"])
def test_more_clusters_than_rows(normalize: bool, empty: str) -> None:
    data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    fit = fit_kmeans(data, 8, normalize=normalize, empty=empty, generator=torch.Generator().manual_seed(0))
    assert fit.centroids.shape == (8, 2) and fit.objective == pytest.approx(0.0, abs=1e-6)
    assert fit.labels[1] == fit.labels[2] != fit.labels[0]


def test_published_centroids_are_plain_means() -> None:
    data = torch.tensor([[10.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    start = torch.eye(2)
    published = fit_kmeans(data, 2, init_centroids=start, normalize=False, empty="zero")
    torch.testing.assert_close(published.centroids, torch.tensor([[5.5, 0.05], [0.0, 1.0]]))
    spherical = fit_kmeans(data, 2, init_centroids=start)
    mean = torch.nn.functional.normalize(data[:2], dim=1).sum(0)
    torch.testing.assert_close(spherical.centroids[0], mean / mean.norm())


def test_scale_block_dtype_and_start_are_immaterial() -> None:
    data, _ = blobs(2)
    start = data[:4].clone()
    fit = fit_kmeans(data, 4, init_centroids=start)
    assert torch.equal(start, data[:4])
    scaled = fit_kmeans(data * torch.linspace(0.5, 9, 120)[:, None], 4, init_centroids=start)
    assert torch.equal(scaled.labels, fit.labels)
    blocked = fit_kmeans(data, 4, init_centroids=start, block=1)
    assert torch.equal(blocked.labels, fit.labels)
    torch.testing.assert_close(blocked.centroids, fit.centroids)
    half = fit_kmeans(data.half(), 4, init_centroids=start)
    assert half.centroids.dtype == torch.float32
    torch.testing.assert_close(half.centroids, fit.centroids, rtol=1e-2, atol=1e-2)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    turned = fit_kmeans(data @ rotation, 4, init_centroids=start @ rotation)
    torch.testing.assert_close(turned.centroids, fit.centroids @ rotation, rtol=1e-4, atol=1e-5)


def test_the_generator_decides_the_draw() -> None:
    data = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    a, b, c = (fit_kmeans(data, 9, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a.centroids, b.centroids) and not torch.equal(a.centroids, c.centroids)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 9), st.integers(0, 10**6))
def test_assign_oracle(n: int, k: int, block: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data, centroids = torch.randn(n, 3, generator=generator), torch.randn(k, 3, generator=generator)
    centroids[0] = 0
    expected = [int(np.argmax([unit(x) @ unit(c) for c in centroids.double().numpy()])) for x in data.double().numpy()]
    assert assign(data, centroids, block=block).tolist() == expected


def test_ties_go_to_the_first() -> None:
    assert assign(torch.ones(3, 2), torch.ones(4, 2)).tolist() == [0, 0, 0]
    assert assign(torch.zeros(2, 2), torch.ones(4, 2)).tolist() == [0, 0]
    assert assign(torch.zeros(0, 2), torch.ones(4, 2)).shape == (0,)


PATHS = ("float32", "bfloat16")


def skewed(seed: int, n: int, d: int, k: int, mean: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (n, d) of few directions around a mean, with very different lengths, and centroids (k, d)."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(min(d, 6), d, generator=generator)
    rows = torch.randn(n, len(basis), generator=generator) @ basis + mean * torch.randn(d, generator=generator)
    return rows * torch.logspace(-3, 3, n)[:, None], torch.randn(k, len(basis), generator=generator) @ basis + mean


def assert_nearest(data: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor) -> None:
    """Check with loops in float64 that no centroid is nearer than the labelled one beyond float32 rounding."""
    for x, label in zip(data.double().numpy(), labels.tolist(), strict=True):
        cosines = [float(unit(x) @ unit(c)) for c in centroids.double().numpy()]
        assert max(cosines) - cosines[label] <= 4e-7


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 9), st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 30.0])
)
def test_fast_paths_assign_to_the_nearest(n: int, k: int, d: int, seed: int, mean: float) -> None:
    data, centroids = skewed(seed, n, d, k, mean)
    if n > 4:
        data[0], data[1], data[2] = 0, data[3], centroids[0]
    for path in PATHS:
        assert_nearest(data, centroids, assign(data, centroids, path=path))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(20, 200), st.integers(1, 12), st.integers(0, 10**6), st.booleans(), st.sampled_from(["reseed", "zero"])
)
def test_fast_paths_fit_as_the_plain_one(n: int, k: int, seed: int, normalize: bool, empty: str) -> None:
    """Two updates from the same start give the same objective and, unless a row lies between two centroids, the same
    centroids.
    """
    data, start = skewed(seed, n, 24, k)
    options = {"init_centroids": start, "max_iterations": 1, "tolerance": 0.0, "normalize": normalize, "empty": empty}
    for _ in range(2):
        plain = fit_kmeans(data, k, path="plain", block=7, **options)
        for path in PATHS:
            fast = fit_kmeans(data, k, path=path, block=16, **options)
            assert fast.history == pytest.approx(plain.history, abs=3e-6)
            assert_nearest(data, fast.centroids, fast.labels)
            first = [assign(data, options["init_centroids"], path=p) for p in ("plain", path)]
            if torch.equal(*first):
                torch.testing.assert_close(fast.centroids, plain.centroids, rtol=1e-4, atol=1e-5)
        options["init_centroids"] = plain.centroids


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_fast_paths_read_every_type_and_layout(path: str, dtype: torch.dtype) -> None:
    data, centroids = skewed(3, 150, 40, 7)
    data = data.to(dtype)
    assert torch.equal(assign(data, centroids, path=path), assign(data, centroids, path="plain"))
    turned = data.T.contiguous().T
    fit, again = (fit_kmeans(x, 7, init_centroids=centroids, path=path) for x in (data, turned))
    assert torch.equal(fit.labels, again.labels) and torch.equal(fit.centroids, again.centroids)
    plain = fit_kmeans(data, 7, init_centroids=centroids, path="plain")
    torch.testing.assert_close(fit.centroids, plain.centroids, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_fast_paths_give_the_same_bits_again(path: str) -> None:
    data, start = skewed(5, 3000, 96, 12)
    one, two = (fit_kmeans(data, 12, init_centroids=start, max_iterations=9, path=path) for _ in range(2))
    assert torch.equal(one.centroids, two.centroids) and one.history == two.history
    assert torch.equal(one.labels, two.labels)


@pytest.mark.parametrize("path", PATHS)
def test_ties_go_to_the_first_on_fast_paths(path: str) -> None:
    data, centroids = skewed(6, 400, 512, 5)
    doubled = torch.cat([centroids, centroids, centroids * 2])
    assert torch.equal(assign(data, doubled, path=path), assign(data, centroids, path="plain"))
    assert assign(torch.zeros(2, 512), centroids, path=path).tolist() == [0, 0]
    assert assign(data[:0], centroids, path=path).shape == (0,)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 10**6), st.floats(0.0, 3.0), st.sampled_from([1e-3, 1e-2, 0.3]))
def test_bfloat16_decisions_are_certain(d: int, seed: int, mean: float, apart: float) -> None:
    """Decided rows have the label of float64, with a margin that no float32 sum can change; close centroids make it hard."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(d, generator=generator) * mean
    data = middle + torch.randn(40, d, generator=generator)
    centroids = torch.nn.functional.normalize(middle + apart * torch.randn(6, d, generator=generator), dim=1)
    labels, decided = _decide(data, _extents(data, 16), centroids, 16)
    cosines = torch.nn.functional.normalize(data.double(), dim=1) @ centroids.double().T
    top = cosines.topk(2, dim=1)
    assert torch.equal(labels[decided], top.indices[decided, 0])
    assert (top.values[decided, 0] - top.values[decided, 1] > 2 * d * 2.0**-24).all()


@pytest.mark.parametrize("seed", range(4))
def test_bfloat16_decisions_are_certain_for_badly_rounded_rows(seed: int) -> None:
    """Every element loses almost half a step of bfloat16, and all losses favour the other centroid."""
    generator = torch.Generator().manual_seed(seed)
    centroids = torch.randn(1, 64, generator=generator).sign() / 8 * torch.tensor([[1.0], [-1.0]])
    steps = torch.randint(1, 127, (20_000, 64), generator=generator) * 2.0**-7 + 1
    steps *= torch.randn(20_000, 64, generator=generator).sign()
    data = steps + 0.9 * 2.0**-8 * (centroids[0] - centroids[1]).sign()
    labels, decided = _decide(data, _extents(data, 999), centroids, 999)
    expected = (data.double() @ centroids.double().T).argmax(1)
    rounded = (data.bfloat16().double() @ centroids.double().T).argmax(1)
    assert (rounded != expected).sum() > 5 and decided.float().mean() > 0.5
    assert torch.equal(labels[decided], expected[decided])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_bfloat16_decisions_are_certain_for_badly_rounded_centroids(share: float) -> None:
    """The row is exact; rounding of the centroids in one direction reverses the order of two opposite centroids."""
    row = torch.ones(64)
    kept = torch.linspace(1.25, 1.75, 32).bfloat16().float()
    ends = torch.cat([kept, -kept])  # sums to zero with the row
    loss = 0.9 * 2.0**-8
    ends[0] -= round(share * loss * 64 * 128) / 128
    centroid = (ends + loss) / 16
    assert torch.equal(centroid.bfloat16().float() * 16, ends) and float(row @ centroid) > 0 > float(row @ ends)
    _, decided = _decide(row[None], _extents(row[None], 1), torch.stack([centroid, -centroid]), 1)
    assert not decided.any()


@pytest.mark.parametrize("seed", range(4))
def test_bfloat16_decisions_are_certain_for_rounded_results(seed: int) -> None:
    """Two neighbouring centroids are far from the mean, with rows along them: large scores, small differences."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=0)
    second = torch.nn.functional.normalize(first + 0.01 * torch.randn(16, generator=generator), dim=0)
    centroids = torch.stack([first, second, -first])
    data = first + 0.05 * torch.randn(20_000, 16, generator=generator)
    labels, decided = _decide(data, _extents(data, 999), centroids, 999)
    expected = (data.double() @ centroids.double().T).argmax(1)
    assert torch.equal(labels[decided], expected[decided])


def test_bfloat16_decides_most_rows_but_never_nan() -> None:
    data, truth = blobs(1, n=400, k=5, d=64, spread=0.3)
    centroids = torch.nn.functional.normalize(torch.stack([data[truth == k].mean(0) for k in range(5)]), dim=1)
    data[0], data[1, 3], data[2, 5], data[3] = float("nan"), float("inf"), float("nan"), 0
    data[4:8] *= 1e-25
    labels, decided = _decide(data, _extents(data, 16), centroids, 64)
    assert decided[8:].float().mean() > 0.9 and not decided[:8].any()
    assert torch.equal(labels[decided], truth[decided])


def test_a_converged_fit_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no further pass, and its result is that of further passes."""
    data, truth = blobs(0, n=300)
    start = torch.stack([data[truth == k][0] for k in range(4)])
    passes = []
    real = kmeans._fast_sweep
    monkeypatch.setattr(kmeans, "_fast_sweep", lambda *a, **k: passes.append(1) or real(*a, **k))
    fit = fit_kmeans(data, 4, init_centroids=start, tolerance=0.0, path="float32")
    assert len(passes) == fit.iterations == 2 and len(fit.history) == 3
    once = fit_kmeans(data, 4, init_centroids=fit.centroids, tolerance=0.0, max_iterations=1, path="float32")
    assert torch.equal(once.centroids, fit.centroids) and torch.equal(once.labels, fit.labels)
    plain = fit_kmeans(data, 4, init_centroids=start, tolerance=0.0, path="plain")
    assert plain.iterations == fit.iterations and len(plain.history) == len(fit.history)


def test_small_problems_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = blobs(0)
    assert fastest_path(data, 4) == "plain"
    monkeypatch.setattr(kmeans, "_WORTH", 1)
    if torch.backends.mkldnn.is_available():
        for able, path in ((True, "bfloat16"), (False, "float32")):
            monkeypatch.setattr(kmeans, "_multiplies_bfloat16", lambda able=able: able)
            assert fastest_path(data, 4) == path
            monkeypatch.setattr(kmeans, "_fit", lambda *a: a[-1])
            assert fit_kmeans(data, 4) == path
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert fastest_path(data, 4) == "plain"
