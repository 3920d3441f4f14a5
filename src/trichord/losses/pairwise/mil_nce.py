"""MIL-NCE."""

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
        temperature: Scores are divided by it.
    """

    needs_positives: ClassVar[bool] = True
    temperature: float = bounded(1.0, 1e-6, 1_000_000)

    def __call__(self, pair: PairBatch) -> Tensor:
        import torch

        from trichord.losses.contrast import mil_nce

        positives = pair.positives
        if positives is None:
            positives = torch.eye(len(pair.valid), dtype=torch.bool, device=pair.valid.device)
        return mil_nce(pair.scores / self.temperature, positives, valid=pair.valid)
