"""k-means against loops in float64, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.losses import assign, fit_kmeans


def unit(x: np.ndarray) -> np.ndarray:
    length = np.sqrt((x**2).sum())
    return x / length if length > 1e-12 else x


def slow_kmeans(data: np.ndarray, start: np.ndarray, normalize: bool, iterations: int) -> tuple[np.ndarray, list[int]]:
    """Plain loops; empty clusters become zero."""
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
    """Spherical, re-seeded: also with duplicates, with more clusters than rows, with zero rows."""
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
