"""Barlow Twins compared with a slow computation in float64, number by number."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from paths import ROOT
from trichord.losses.pair import PairBatch
from trichord.losses.pairwise import barlow_twins
from trichord.losses.pairwise.barlow_twins import BarlowTwins


def slow_barlow_twins(first: np.ndarray, second: np.ndarray, valid: list[bool], weight: float) -> float:
    rows = [i for i in range(len(valid)) if valid[i]]
    if len(rows) < 2:
        return 0.0
    num_dims = first.shape[1]

    def standardised(values: list[float]) -> list[float]:
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        return [(value - mean) / math.sqrt(variance + 1e-5) for value in values]

    columns = [
        [standardised([float(matrix[i, k]) for i in rows]) for k in range(num_dims)] for matrix in (first, second)
    ]
    total = 0.0
    for i in range(num_dims):
        for j in range(num_dims):
            correlation = math.fsum(a * b for a, b in zip(columns[0][i], columns[1][j], strict=True)) / len(rows)
            total += (1 - correlation) ** 2 if i == j else weight * correlation**2
    return total


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 11])
@pytest.mark.parametrize("num_missing", [0, 1, 4, 11])
@pytest.mark.parametrize("weight", [0.0, 0.005, 2.0])
def test_it_is_the_slow_computation(num_rows: int, num_missing: int, weight: float) -> None:
    rng = np.random.default_rng([num_rows, num_missing])
    first, second = rng.standard_normal((num_rows, 5)) * 3 + 1, rng.standard_normal((num_rows, 5))
    second[:, 1:3] += first[:, 1:3]
    first[:, 4] = 0.7  # a constant dimension
    valid = [i >= num_missing for i in range(num_rows)]
    expected = slow_barlow_twins(first, second, valid, weight)
    for dtype, limit in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        rows = torch.tensor(first, dtype=dtype), torch.tensor(second, dtype=dtype)
        loss = BarlowTwins(weight)(PairBatch(*rows, torch.tensor(valid, dtype=torch.bool)))
        assert loss.dtype == dtype and float(loss) == pytest.approx(expected, rel=limit, abs=limit)


def test_equal_modalities_of_independent_dimensions_cost_next_to_nothing() -> None:
    """With four clips whose three dimensions are orthogonal, the correlation is the identity, up to the term added to
    variances.
    """
    rows = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    same = BarlowTwins()(PairBatch(rows, rows, torch.ones(4, dtype=torch.bool)))
    opposite = BarlowTwins()(PairBatch(rows, -rows, torch.ones(4, dtype=torch.bool)))
    assert float(same) < 1e-9 and float(opposite) == pytest.approx(3 * 4, rel=1e-4)


def test_neither_scale_nor_offset_of_an_embedding_matters() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(8, 4, generator=rng, dtype=torch.float64) * 10 for _ in range(2))
    valid = torch.ones(8, dtype=torch.bool)
    moved = PairBatch(first * torch.tensor([1.0, 2, 3, 4]) + 5, second * 7 - 2, valid)
    assert torch.allclose(BarlowTwins()(moved), BarlowTwins()(PairBatch(first, second, valid)), rtol=1e-5)


def test_the_page_about_adding_a_loss_shows_the_file() -> None:
    page = (ROOT / "docs" / "add-a-loss.md").read_text()
    source = Path(barlow_twins.__file__).read_text()
    assert f"```python\n{source}```\n" in page


@pytest.mark.parametrize("num_valid", [0, 1])
def test_fewer_than_two_clips_have_no_loss_and_no_gradient(num_valid: int) -> None:
    first, second = (torch.randn(3, 4).requires_grad_() for _ in range(2))
    loss = BarlowTwins()(PairBatch(first, second, torch.arange(3) < num_valid))
    loss.backward()
    assert float(loss.detach()) == 0 and first.grad is not None and second.grad is not None
    assert not first.grad.any() and not second.grad.any()


def test_descent_leads_to_the_identity() -> None:
    rng = torch.Generator().manual_seed(4)
    first, second = (torch.randn(40, 3, generator=rng).requires_grad_() for _ in range(2))
    optimizer, valid = torch.optim.Adam([first, second], lr=0.05), torch.ones(40, dtype=torch.bool)
    start = float(BarlowTwins(1.0)(PairBatch(first.detach(), second.detach(), valid)))
    for _ in range(200):
        optimizer.zero_grad()
        loss = BarlowTwins(1.0)(PairBatch(first, second, valid))
        loss.backward()
        optimizer.step()
    correlation = torch.corrcoef(torch.cat([first, second], 1).detach().T)[:3, 3:]
    assert start > 1 and float(loss.detach()) < 1e-3 and torch.allclose(correlation, torch.eye(3), atol=0.02)
