"""The interface of a pairwise loss: its settings, and a function of the embeddings of two modalities.

The command line and the recipes read the settings of all losses, so this module and those in `losses/pairwise` do not import
torch at module level.
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
    """The embeddings of B clips in two modalities. Row i of both tensors belongs to clip i.

    With several processes, these are the clips of all processes, and gradients flow back to each of them.

    Attributes:
        first: Embeddings of shape (B, D), float32 or float64. They have unit length if `loss.cosine` is set.
        second: Embeddings of the other modality, with the same shape and data type.
        valid: Mask of the clips that have both modalities, of shape (B,), bool. The rows of other clips hold arbitrary numbers.
        positives: Mask of shape (B, B), bool: entry (i, j) is True if the second modality of clip j counts as a positive for the
            first modality of clip i. None means the diagonal.
        temperature: Learned temperature of the pair, a scalar with a gradient, which a loss with the setting `temperature` uses
            instead of the setting. None if it is not learned.

    Example:
        >>> import torch
        >>> from trichord.losses import PairBatch
        >>> pair = PairBatch(torch.eye(2), 3 * torch.eye(2), valid=torch.tensor([True, True]))
        >>> pair.scores
        tensor([[3., 0.],
                [0., 3.]])
    """

    first: Tensor
    second: Tensor
    valid: Tensor
    positives: Tensor | None = None
    temperature: Tensor | None = None

    @cached_property
    def scores(self) -> Tensor:
        """Dot products of shape (B, B) of the first modality (rows) with the second modality (columns)."""
        return self.first @ self.second.T

    def temperature_or(self, setting: float) -> Tensor | float:
        """Return the learned temperature, or the setting if the temperature is not learned.

        Example:
            >>> import torch
            >>> from trichord.losses import PairBatch
            >>> pair = PairBatch(torch.eye(2), torch.eye(2), torch.ones(2, dtype=torch.bool), temperature=torch.tensor(0.5))
            >>> pair.temperature_or(0.07)
            tensor(0.5000)
        """
        return setting if self.temperature is None else self.temperature


class PairwiseLoss(ABC):
    """A loss that compares two modalities of the same clips.

    A subclass is a frozen dataclass in a module of `losses/pairwise`. The name of the module is the value of `loss.contrast` that
    selects it. The fields of the dataclass are the settings of the loss: the field `x` is the setting `loss.x`. A field is a
    number, a string, a bool or a `Literal` and has a default. A number also has bounds (`trichord.settings.bounded`). Losses may
    share a setting if its type, default and bounds are the same in all of them. The first line of the class docstring names the
    loss, and the section `Args:` describes each setting; both appear in the help of the command line.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from trichord.losses import PairBatch, PairwiseLoss
        >>> @dataclass(frozen=True)
        ... class SquaredDistance(PairwiseLoss):
        ...     def __call__(self, pair):
        ...         return (pair.first - pair.second)[pair.valid].square().sum()
        >>> SquaredDistance()(PairBatch(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([True, False])))
        tensor(3.)
    """

    needs_positives: ClassVar[bool] = False  # whether batches must contain the mask of positive texts of each clip

    @abstractmethod
    def __call__(self, pair: PairBatch) -> Tensor:
        """Return the loss of all clips of the batch as a scalar. If no clip is valid, the loss and its gradient are zero.

        Autocast is disabled, and the embeddings are in float32 or float64.
        """


class DividedLoss(PairwiseLoss):
    """A pairwise loss that is a sum over clips, so that several processes can divide the computation between them.

    Any other pairwise loss is computed in full by each process.

    Example:
        >>> import torch
        >>> from trichord.losses import DividedLoss, PairBatch, pairwise_losses
        >>> loss = pairwise_losses()["info_nce"]()
        >>> isinstance(loss, DividedLoss)
        True
        >>> pair = PairBatch(torch.eye(4), torch.eye(4), torch.ones(4, dtype=torch.bool))
        >>> torch.allclose(loss.share(pair, slice(0, 2)) + loss.share(pair, slice(2, 4)), loss(pair))
        True
    """

    @abstractmethod
    def share(self, pair: PairBatch, part: slice) -> Tensor:
        """Return the contribution of the clips in `part`. The contributions of all clips add up to the loss.

        Example:
            >>> import torch
            >>> from trichord.losses import PairBatch, pairwise_losses
            >>> loss = pairwise_losses()["info_nce"](temperature=0.1)
            >>> pair = PairBatch(torch.eye(4), torch.eye(4), torch.ones(4, dtype=torch.bool))
            >>> parts = [loss.share(pair, slice(row, row + 1)) for row in range(4)]
            >>> torch.allclose(sum(parts), loss(pair))
            True
        """
