"""The clustering loss compared with loops, and its queue."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.losses import ClusterMemory, assign, cluster_contrast, fit_kmeans


def rows(seed: int, n: int, d: int = 4) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6), st.booleans(), st.sampled_from([1.0, 0.1]))
def test_cluster_contrast_oracle(n: int, k: int, seed: int, masked: bool, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    x, c, labels, valid = rng.normal(size=(n, 3)), rng.normal(size=(k, 3)), rng.integers(k, size=n), rng.random(n) < 0.6
    losses = []
    for i in range(n):
        if masked and not valid[i]:
            labels[i] = -1  # not read
            continue
        logits = [(sum(a * b for a, b in zip(x[i], c[j], strict=True)) - 0.001 * (j == labels[i])) for j in range(k)]
        exps = [math.exp(v / temperature) for v in logits]
        losses.append(-math.log(exps[labels[i]] / sum(exps)))
    expected = sum(losses) / len(losses) if losses else 0.0
    embedding = torch.tensor(x, requires_grad=True)
    loss = cluster_contrast(
        embedding, torch.tensor(c), torch.tensor(labels), 0.001, torch.tensor(valid) if masked else None, temperature
    )
    assert loss.item() == pytest.approx(expected, rel=1e-8, abs=1e-10)
    loss.backward()
    assert embedding.grad.isfinite().all()


def test_cluster_contrast_precision_and_masks() -> None:
    x = (rows(0, 6) * 40).bfloat16().requires_grad_(True)
    centroids, labels = rows(1, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cluster_contrast(x, centroids, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cluster_contrast(x.detach().float(), centroids, labels))
    loss.backward()
    assert x.grad.isfinite().all()
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    torch.testing.assert_close(cluster_contrast(x[order], centroids, labels[order]), loss)
    spoilt = x.detach().float().clone()
    spoilt[0] = float("nan")
    spoilt.requires_grad_(True)
    valid = torch.tensor([False, True, True, True, True, True])
    cluster_contrast(spoilt, centroids, labels, valid=valid).backward()
    assert spoilt.grad.isfinite().all() and not spoilt.grad[0].any()
    nothing = cluster_contrast(spoilt, centroids, labels, valid=valid & False)
    assert nothing.item() == 0.0 and nothing.requires_grad


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 10**6))
def test_the_queue_holds_the_last_rows(size: int, batches: list[int], seed: int) -> None:
    memory = ClusterMemory(num_clusters=size, size=size, refit_every=10**6, max_iterations=1)
    rng = np.random.default_rng(seed)
    kept: list[list[float]] = []
    for i, n in enumerate(batches):
        batch, valid = rows(seed % 1000 + i, n), torch.from_numpy(rng.random(n) < 0.8)
        stored = torch.from_numpy(rng.random(n) < 0.5) if i % 2 else None
        fit = memory.update(batch, valid, stored=stored)
        kept += [row.tolist() for j, row in enumerate(batch) if valid[j] and (stored is None or stored[j])]
        last = kept[-size:]
        assert memory.num_rows == len(last)
        assert sorted(memory.state_dict()["rows"].tolist()) == sorted(last)
        assert (fit is None) == (len(last) < size)
        if fit is not None:
            assert fit[0].shape == (size, 4) and torch.equal(fit[1], assign(batch, fit[0]))


def test_when_it_fits() -> None:
    memory = ClusterMemory(num_clusters=8, size=64, refit_every=3, seed=5)
    assert memory.update(rows(0, 5)) is None
    history = []
    for step in range(1, 9):
        fit = memory.update(rows(step, 5))
        assert fit is not None
        history.append((memory.num_fits, fit[0].clone()))
    assert [fits for fits, _ in history] == [1, 1, 1, 2, 2, 2, 3, 3]
    assert torch.equal(history[0][1], history[2][1]) and not torch.equal(history[2][1], history[3][1])
    first = fit_kmeans(torch.cat([rows(0, 5), rows(1, 5)]), 8, generator=torch.Generator().manual_seed(5 * 1_000_003))
    assert torch.equal(first.centroids, history[0][1])
    warm = fit_kmeans(torch.cat([rows(i, 5) for i in range(5)]), 8, init_centroids=history[0][1])
    assert torch.equal(warm.centroids, history[3][1])


def test_the_last_fit_is_reported_and_saved() -> None:
    memory = ClusterMemory(num_clusters=8, size=64, refit_every=2, max_iterations=7, tolerance=0.0)
    memory.update(rows(0, 5))
    assert memory.objective is None and memory.num_iterations == 0 and not len(memory.state_dict()["last_fit"])
    queue: list[torch.Tensor] = [rows(0, 5)]
    objectives = []
    for step in range(1, 7):
        queue.append(rows(step, 5))
        before = memory.num_fits
        memory.update(queue[-1])
        if memory.num_fits > before:
            data = torch.cat(queue).double().numpy()
            assert memory.centroids is not None
            units = [x / np.linalg.norm(x) for x in data]
            cosines = [max(float(x @ c) for c in memory.centroids.double().numpy()) for x in units]
            assert memory.objective == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-6)
            assert 1 <= memory.num_iterations <= 7
        objectives.append(memory.objective)
    assert objectives[0] == objectives[1] != objectives[2] == objectives[3] != objectives[4]
    memory.reset_centroids()
    assert memory.objective == objectives[-1]
    other = ClusterMemory(num_clusters=8, size=64)
    other.load_state_dict(memory.state_dict())
    assert (other.objective, other.num_iterations) == (memory.objective, memory.num_iterations)
    older = {key: value for key, value in memory.state_dict().items() if key != "last_fit"}
    other.load_state_dict(older)
    assert other.objective is None and other.num_iterations == 0 and other.num_rows == memory.num_rows


def test_reset_draws_afresh() -> None:
    memory = ClusterMemory(num_clusters=8, size=64, refit_every=1000)
    before = memory.update(rows(0, 40))
    memory.reset_centroids()
    after = memory.update(rows(0, 0))
    assert before is not None and after is not None and memory.num_fits == 2 and memory.num_rows == 40
    assert not torch.equal(before[0], after[0])


@pytest.mark.parametrize("steps", [0, 1, 4, 9])
def test_resumed_equals_uninterrupted(steps: int) -> None:
    def make() -> ClusterMemory:
        return ClusterMemory(num_clusters=6, size=20, refit_every=2, seed=3, dtype=torch.float16)

    one, two = make(), make()
    for i in range(steps):
        one.update(rows(i, 5))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    two.load_state_dict(torch.load(file, weights_only=True))
    for i in range(steps, steps + 7):
        a, b = one.update(rows(i, 5)), two.update(rows(i, 5))
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        if i == steps + 3:
            one.reset_centroids(), two.reset_centroids()
    assert all(torch.equal(one.state_dict()[key], two.state_dict()[key]) for key in one.state_dict())


def test_gradient_stays_out_and_state_is_a_copy() -> None:
    memory = ClusterMemory(num_clusters=2, size=6)
    batch = rows(0, 4).requires_grad_(True)
    fit = memory.update(batch * 2)
    assert fit is not None and not fit[0].requires_grad
    state = memory.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    memory.update(rows(1, 4))
    assert all(torch.equal(before[key], state[key]) for key in state)


def test_published_variant() -> None:
    memory = ClusterMemory(num_clusters=3, size=12, normalize=False, empty="zero")
    fit = memory.update(rows(0, 12) * 5)
    assert fit is not None
    centroids, labels = fit
    members = (rows(0, 12) * 5)[labels == labels[0]]
    torch.testing.assert_close(centroids[labels[0]], members.mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "size,clusters,every,message",
    [
        (4, 5, 1, "a queue of 4 rows is too small for 5 clusters; enlarge the queue or request fewer"),
        (4, 0, 1, "num_clusters \\(0\\) and refit_every \\(1\\) must be at least 1"),
        (4, 2, 0, "refit_every \\(0\\)"),
    ],
)
def test_wrong_arguments(size: int, clusters: int, every: int, message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        ClusterMemory(num_clusters=clusters, size=size, refit_every=every)


def test_states_that_do_not_fit() -> None:
    memory = ClusterMemory(num_clusters=2, size=6)
    memory.update(rows(0, 6))
    for size in (4, 9):
        with pytest.raises(TrichordError, match=f"a queue of {size} rows; resume with the queue size of the saved run"):
            ClusterMemory(num_clusters=2, size=size).load_state_dict(memory.state_dict())
    with pytest.raises(TrichordError, match="has 2 clusters instead of 3; resume with the number"):
        ClusterMemory(num_clusters=3, size=6).load_state_dict(memory.state_dict())
    with pytest.raises(TrichordError, match="contains rows of width 4, but the embeddings have width 5"):
        memory.update(rows(0, 3, d=5))


def test_waiting_for_a_full_queue_fits_on_the_batch_alone() -> None:
    """As published, the queue is used only once it is full."""
    torch.manual_seed(0)
    batches = [torch.randn(6, 4) for _ in range(4)]
    memory = ClusterMemory(num_clusters=3, size=20, refit_every=1, seed=5, wait_until_full=True)
    for number, batch in enumerate(batches):
        before = memory.centroids
        fit = memory.update(batch)
        assert fit is not None
        full = memory.num_rows == 20
        assert full == (number == 3)
        data = memory.queue if full else batch
        assert data is not None
        generator = torch.Generator().manual_seed((5 * 1_000_003 + number) % 2**63)
        expected = fit_kmeans(data, 3, init_centroids=before, generator=generator, normalize=True, empty="reseed")
        assert torch.equal(fit[0], expected.centroids)
