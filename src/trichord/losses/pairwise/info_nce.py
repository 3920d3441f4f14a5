"""The symmetric InfoNCE loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trichord.losses.pair import DividedLoss, PairBatch
from trichord.settings import bounded

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class InfoNCE(DividedLoss):
    """Symmetric InfoNCE (van den Oord et al. 2018), as in CLIP.

    Args:
        temperature: Temperature that divides the scores.

    Example:
        >>> import torch
        >>> from trichord.losses import PairBatch
        >>> from trichord.losses.pairwise.info_nce import InfoNCE
        >>> InfoNCE(temperature=0.1)(PairBatch(torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool)))  # ln 4
        tensor(1.3863)
    """

    temperature: float = bounded(1.0, 1e-6, 1_000_000)

    def __call__(self, pair: PairBatch) -> Tensor:
        from trichord.losses.contrast import info_nce

        return info_nce(pair.scores, temperature=pair.temperature_or(self.temperature), valid=pair.valid)

    def share(self, pair: PairBatch, part: slice) -> Tensor:
        """Return the contribution of the clips in `part` to the loss."""
        from trichord.losses.contrast import softmax_shares

        return softmax_shares(pair, part, temperature=pair.temperature_or(self.temperature), weight=0.5)
