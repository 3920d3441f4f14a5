"""The masked margin softmax loss (MMS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trichord.losses.pair import DividedLoss, PairBatch
from trichord.settings import bounded

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaskedMarginSoftmax(DividedLoss):
    """Masked margin softmax (Ilharco et al. 2019), as in AVLnet and MCN.

    Args:
        margin: Margin that is subtracted from the score of a true pair.

    Example:
        >>> import torch
        >>> from trichord.losses import PairBatch
        >>> from trichord.losses.pairwise.mms import MaskedMarginSoftmax
        >>> pair = PairBatch(torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
        >>> MaskedMarginSoftmax(margin=0.0)(pair)  # 2 ln 4
        tensor(2.7726)
    """

    margin: float = bounded(0.001, -1_000_000, 1_000_000)

    def __call__(self, pair: PairBatch) -> Tensor:
        from trichord.losses.contrast import masked_margin_softmax

        return masked_margin_softmax(pair.scores, margin=self.margin, valid=pair.valid)

    def share(self, pair: PairBatch, part: slice) -> Tensor:
        """Return the contribution of the clips in `part` to the loss."""
        from trichord.losses.contrast import softmax_shares

        return softmax_shares(pair, part, margin=self.margin)
