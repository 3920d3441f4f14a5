"""The interface of a pairwise loss: its settings, and a function of the embeddings of two modalities.

The command line and recipes read the settings of all losses, so this file and those in `losses/pairwise` do not import torch at
their top.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class PairBatch:
    """The embeddings of two modalities of B clips: row i of both belongs to clip i.

    With several processes these are the clips of all processes, and gradients flow back to each of them.

    Attributes:
        first: (B, D), float32 or float64, of length one where `loss.cosine` is set.
        second: (B, D), of the same kind.
        valid: (B,) bool, the clips that have both modalities. The rows of the others hold arbitrary numbers.
        positives: (B, B) bool, the clips whose second modality counts as true for the first modality of each clip. None stands
            for the diagonal.
    """

    first: Tensor
    second: Tensor
    valid: Tensor
    positives: Tensor | None = None

    @cached_property
    def scores(self) -> Tensor:
        """(B, B), the dot product of the first modality of each row's clip with the second of each column's."""
        return self.first @ self.second.T


class PairwiseLoss(ABC):
    """A loss that compares two modalities of the same clips.

    A subclass is a frozen dataclass in a module of `losses/pairwise`; `loss.contrast` knows it by the name of that module. Its
    fields are its settings: numbers, texts, switches or a `Literal`, with a default, and with bounds where they are numbers
    (`trichord.settings.bounded`). The field `x` is the setting `loss.x`. Losses may share a setting; its type, default and
    bounds are then the same in all of them. The docstring says in its first line what the loss is, and under `Args:` what each
    setting means.
    """

    needs_positives: ClassVar[bool] = False  # whether batches are to tell which texts count as true for which clips

    @abstractmethod
    def __call__(self, pair: PairBatch) -> Tensor:
        """Return the loss, a scalar, of all clips of the batch. It is 0, with a zero gradient, where no clip is valid.

        Autocast is off, and the embeddings are in float32 or float64.
        """


class DividedLoss(PairwiseLoss):
    """A pairwise loss that is a sum over clips, so that processes can divide it. Without this, each computes all of it."""

    @abstractmethod
    def share(self, pair: PairBatch, part: slice) -> Tensor:
        """Return what the clips `part` contribute. The shares of all clips add up to the loss."""
