"""MMS, InfoNCE, MIL-NCE and the reconstruction loss compared with loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.losses import cluster_contrast, info_nce, masked_margin_softmax, mil_nce, reconstruction_loss
from trichord.losses.contrast import softmax_share

Loss = Callable[..., torch.Tensor]


def direction(s: np.ndarray) -> float:
    """Return the mean over rows of -log softmax at the diagonal, with plain sums of exponentials."""
    total = 0.0
    for i in range(len(s)):
        total += -math.log(math.exp(s[i][i]) / sum(math.exp(s[i][j]) for j in range(len(s))))
    return total / len(s)


def sub(s: np.ndarray, valid: list[bool]) -> np.ndarray:
    keep = [i for i, v in enumerate(valid) if v]
    return np.array([[s[i][j] for j in keep] for i in keep]).reshape(len(keep), len(keep))


def slow_mms(s: np.ndarray, margin: float, valid: list[bool]) -> float:
    s = sub(s, valid).copy()
    for i in range(len(s)):
        s[i][i] -= margin
    return direction(s) + direction(s.T) if len(s) else 0.0


def slow_info_nce(s: np.ndarray, temperature: float, valid: list[bool]) -> float:
    s = sub(s, valid) / temperature
    return (direction(s) + direction(s.T)) / 2 if len(s) else 0.0


def slow_mil_nce(s: np.ndarray, positives: np.ndarray, valid: list[bool]) -> float:
    s, positives = sub(s, valid), sub(positives, valid)
    losses = []
    for i in range(len(s)):
        partners = [j for j in range(len(s)) if positives[i][j]]
        if not partners:
            continue
        top = sum(math.exp(s[i][j]) for j in partners)
        bottom = sum(math.exp(s[i][j]) for j in range(len(s)) if j not in partners)
        for j in partners:
            bottom += sum(math.exp(s[k][j]) for k in range(len(s)) if not positives[k][j])
        losses.append(-math.log(top / (top + bottom)))
    return sum(losses) / len(losses) if losses else 0.0


sizes = st.integers(1, 7)
seeds = st.integers(0, 10**6)


def draw(seed: int, n: int, duplicates: bool) -> tuple[np.ndarray, list[bool], np.ndarray]:
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(n, n)) * 3
    if duplicates:
        s[:] = s[0]
    return s, (rng.random(n) < 0.7).tolist(), rng.random((n, n)) < 0.4


@settings(max_examples=100, deadline=None)
@given(sizes, seeds, st.booleans(), st.sampled_from([0.0, 0.001, 0.5]), st.booleans())
def test_mms_oracle(n: int, seed: int, duplicates: bool, margin: float, masked: bool) -> None:
    s, valid, _ = draw(seed, n, duplicates)
    mask = torch.tensor(valid) if masked else None
    expected = slow_mms(s, margin, valid if masked else [True] * n)
    assert masked_margin_softmax(torch.tensor(s), margin, mask).item() == pytest.approx(expected, abs=1e-10)
    single = masked_margin_softmax(torch.tensor(s, dtype=torch.float32), margin, mask)
    assert single.dtype == torch.float32 and single.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(sizes, seeds, st.booleans(), st.sampled_from([0.05, 1.0]), st.booleans())
def test_info_nce_oracle(n: int, seed: int, duplicates: bool, temperature: float, masked: bool) -> None:
    s, valid, _ = draw(seed, n, duplicates)
    mask = torch.tensor(valid) if masked else None
    expected = slow_info_nce(s, temperature, valid if masked else [True] * n)
    assert info_nce(torch.tensor(s), temperature, mask).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(sizes, seeds, st.booleans(), st.sampled_from(["random", "diagonal", "all", "none"]), st.booleans())
def test_mil_nce_oracle(n: int, seed: int, duplicates: bool, kind: str, masked: bool) -> None:
    s, valid, positives = draw(seed, n, duplicates)
    positives = {"random": positives, "diagonal": np.eye(n) > 0, "all": positives | True, "none": positives & False}[
        kind
    ]
    mask = torch.tensor(valid) if masked else None
    expected = slow_mil_nce(s, positives, valid if masked else [True] * n)
    scores = torch.tensor(s, requires_grad=True)
    loss = mil_nce(scores, torch.tensor(positives), mask)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    loss.backward()
    assert scores.grad is not None and scores.grad.isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 16, 200])
def test_values_of_zeros(n: int) -> None:
    zeros = torch.zeros(n, n)
    assert masked_margin_softmax(zeros, margin=0.0).item() == pytest.approx(2 * math.log(n), rel=1e-6, abs=1e-7)
    assert info_nce(zeros).item() == pytest.approx(math.log(n), rel=1e-6, abs=1e-7)
    # One positive against the rest of its row and of its column.
    assert mil_nce(zeros, torch.eye(n, dtype=torch.bool)).item() == pytest.approx(
        math.log(2 * n - 1), rel=1e-6, abs=1e-7
    )


def eye_mil_nce(scores: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    return mil_nce(scores, torch.eye(len(scores), dtype=torch.bool), valid)


ALL = [masked_margin_softmax, info_nce, eye_mil_nce]


@pytest.mark.parametrize("loss", ALL)
def test_none_valid_is_zero_with_a_graph(loss: Loss) -> None:
    scores = torch.full((3, 3), float("nan"), requires_grad=True)
    value = loss(scores * 1.0, valid=torch.zeros(3, dtype=torch.bool))
    assert value.item() == 0.0 and value.requires_grad
    value.backward()
    assert torch.equal(scores.grad, torch.zeros(3, 3))


@pytest.mark.parametrize("loss", ALL)
def test_rows_that_are_not_valid_have_no_influence(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 5, requires_grad=True)
    valid = torch.tensor([True, False, True, True, False])
    spoilt = scores.detach().clone()
    spoilt[~valid] = float("nan")
    spoilt[:, ~valid] = float("inf")
    spoilt.requires_grad_(True)
    values = loss(scores, valid=valid), loss(spoilt, valid=valid)
    assert torch.equal(*values)
    values[0].backward()
    values[1].backward()
    assert torch.equal(scores.grad, spoilt.grad) and not spoilt.grad[~valid].any() and not spoilt.grad[:, ~valid].any()
    assert torch.equal(loss(scores[valid][:, valid]), values[0])


@pytest.mark.parametrize("loss", ALL)
def test_permutation_and_gradient(loss: Loss) -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    order = torch.randperm(6)
    torch.testing.assert_close(loss(scores[order][:, order]), loss(scores))
    assert torch.autograd.gradcheck(loss, (scores,))


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores(loss: Loss, dtype: torch.dtype) -> None:
    scores = (torch.randn(8, 8, generator=torch.Generator().manual_seed(0)) * 300).to(dtype).requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(scores)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(scores.detach().float()))
    value.backward()
    assert scores.grad.isfinite().all()


def test_large_scores_do_not_overflow() -> None:
    scores = torch.eye(4) * 1e4
    assert masked_margin_softmax(scores).item() == 0.0
    assert masked_margin_softmax(-scores).isfinite() and mil_nce(-scores, scores > 0).isfinite()


@settings(max_examples=50, deadline=None)
@given(sizes, st.integers(1, 5), seeds, st.booleans())
def test_reconstruction_oracle(n: int, p: int, seed: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b, valid = rng.normal(size=(n, p)), rng.normal(size=(n, p)), (rng.random(n) < 0.6).tolist()
    rows = [i for i in range(n) if valid[i] or not masked]
    expected = sum(sum((a[i][j] - b[i][j]) ** 2 for j in range(p)) / p for i in rows) / max(1, len(rows))
    x, y = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    loss = reconstruction_loss(x, y, valid=torch.tensor(valid) if masked else None)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    assert y.grad is None and x.grad is not None
    published = reconstruction_loss(x, y, detach_target=False)
    published.backward()
    assert y.grad is not None and y.grad.any()


def test_reconstruction_in_half_precision() -> None:
    x = torch.full((2, 70000), 3.0, dtype=torch.float16, requires_grad=True)
    loss = reconstruction_loss(x, torch.zeros(2, 70000, dtype=torch.float16))
    assert loss.item() == pytest.approx(9.0)
    nothing = reconstruction_loss(x, x, valid=torch.zeros(2, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0.0 and not x.grad.any()


# ---- shares of several processes


@st.composite
def split_batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, list[slice]]:
    """Scores (B, B), valid (B,) and parts of the rows, some of which may be empty."""
    size = draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=3)))
    edges = [0, *cuts, size]
    parts = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    valid = torch.tensor(rng.random(size) < draw(st.sampled_from([0.0, 0.6, 1.0])))
    return torch.tensor(rng.normal(size=(size, size)) * 3), valid, parts


@given(split_batches())
@settings(max_examples=80, deadline=None)
def test_shares_add_up_to_the_contrast_and_so_do_their_gradients(
    batch: tuple[torch.Tensor, torch.Tensor, list[slice]],
) -> None:
    scores, valid, parts = batch
    for whole, weight, options in (
        (lambda s: masked_margin_softmax(s, 0.3, valid), 1.0, {"margin": 0.3}),
        (lambda s: info_nce(s, 0.2, valid), 0.5, {"temperature": 0.2}),
    ):
        one, two = scores.clone().requires_grad_(), scores.clone().requires_grad_()
        expected = whole(one)
        expected.backward()
        summed_loss = two.new_zeros(())
        for part in parts:
            place = torch.arange(len(scores))[part]
            strips = two[part], two.T[part]
            summed_loss = summed_loss + weight * sum(softmax_share(strip, place, valid, **options) for strip in strips)
        summed_loss.backward()
        torch.testing.assert_close(summed_loss, expected)
        torch.testing.assert_close(two.grad, one.grad)


@given(split_batches())
@settings(max_examples=40, deadline=None)
def test_shares_of_reconstruction_and_clusters_add_up(batch: tuple[torch.Tensor, torch.Tensor, list[slice]]) -> None:
    scores, valid, parts = batch
    target, labels = scores.flip(0), torch.arange(len(scores)) % 2
    centroids, count = scores[:1].repeat(2, 1).cumsum(0), valid.sum()
    shares = [
        (
            reconstruction_loss(scores[part], target[part], valid=valid[part], count=count),
            cluster_contrast(scores[part], centroids, labels[part], valid=valid[part], count=count),
        )
        for part in parts
    ]
    summed_losses = [torch.stack(terms).sum() for terms in zip(*shares, strict=True)]
    torch.testing.assert_close(summed_losses[0], reconstruction_loss(scores, target, valid=valid))
    torch.testing.assert_close(summed_losses[1], cluster_contrast(scores, centroids, labels, valid=valid))
