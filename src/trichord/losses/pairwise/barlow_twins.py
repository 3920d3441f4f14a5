"""The Barlow Twins loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trichord.losses.pair import PairBatch, PairwiseLoss
from trichord.settings import bounded

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-5  # added to variances, as by the batch normalization of the published code


@dataclass(frozen=True)
class BarlowTwins(PairwiseLoss):
    """Barlow Twins (Zbontar et al. 2021), which needs no negatives.

    C (D, D) is the correlation of each dimension of the first modality with each dimension of the second one, over the clips that
    have both modalities. The loss pulls C towards the identity: sum_i (1 - C_ii)^2 + redundancy_weight * sum_{i != j} C_ij^2. For
    fewer than two clips, the correlation is undefined, and the loss is 0.

    Args:
        redundancy_weight: Weight of the squared correlations between different dimensions (published value: 0.005).

    Example:
        >>> import torch
        >>> from trichord.losses import PairBatch
        >>> from trichord.losses.pairwise.barlow_twins import BarlowTwins
        >>> rows = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> loss = BarlowTwins()(PairBatch(rows, rows, torch.ones(4, dtype=torch.bool)))
        >>> round(float(loss), 4)
        0.0
    """

    redundancy_weight: float = bounded(0.005, 0)

    def __call__(self, pair: PairBatch) -> Tensor:
        first, second = pair.first[pair.valid], pair.second[pair.valid]
        if len(first) < 2:
            return 0 * (first.sum() + second.sum())
        correlation = _standardised(first).T @ _standardised(second) / len(first)
        diagonal = correlation.diagonal()
        different = correlation - diagonal.diag()
        return (1 - diagonal).square().sum() + self.redundancy_weight * different.square().sum()


def _standardised(rows: Tensor) -> Tensor:
    """Scale the rows to mean 0 and variance 1 in each dimension."""
    centred = rows - rows.mean(0)
    return centred / (centred.square().mean(0) + _EPSILON).sqrt()
