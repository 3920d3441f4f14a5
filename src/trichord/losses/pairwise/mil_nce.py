"""The MIL-NCE loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trichord.losses.pair import PairBatch, PairwiseLoss
from trichord.settings import bounded

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MILNCE(PairwiseLoss):
    """MIL-NCE (Miech et al. 2020), with several candidate texts for each clip.

    Args:
        temperature: Temperature that divides the scores.

    Example:
        >>> import torch
        >>> from trichord.losses import PairBatch
        >>> from trichord.losses.pairwise.mil_nce import MILNCE
        >>> positives = torch.tensor([[True, True], [True, True]])
        >>> pair = PairBatch(torch.eye(2), torch.eye(2), torch.tensor([True, True]), positives)
        >>> float(MILNCE()(pair))  # each row has only positives
        0.0
    """

    needs_positives: ClassVar[bool] = True
    temperature: float = bounded(1.0, 1e-6, 1_000_000)

    def __call__(self, pair: PairBatch) -> Tensor:
        import torch

        from trichord.losses.contrast import mil_nce

        positives = pair.positives
        if positives is None:
            positives = torch.eye(len(pair.valid), dtype=torch.bool, device=pair.valid.device)
        return mil_nce(pair.scores / pair.temperature_or(self.temperature), positives, valid=pair.valid)
