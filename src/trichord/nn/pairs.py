"""The parameters that belong to a pair of modalities."""

from __future__ import annotations

import math

import torch
from torch import nn

from trichord.modality import Pair


def pair_key(pair: Pair) -> str:
    """Return the name of a pair in the weights of a network.

    Example:
        >>> from trichord.nn.pairs import pair_key
        >>> pair_key(("video", "text"))
        'video-text'
    """
    return "-".join(pair)


class PairParameters(nn.Module):
    """The parameters of a pair: the temperature that divides its scores in the contrastive loss.

    The logarithm is trained, as in CLIP (Radford et al., 2021, section 2.5).

    Args:
        temperature: Initial temperature.

    Example:
        >>> from trichord.nn.pairs import PairParameters
        >>> round(PairParameters(0.07).temperature.item(), 4)
        0.07
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))

    @property
    def temperature(self) -> torch.Tensor:
        """The temperature, a scalar.

        Example:
            >>> from trichord.nn.pairs import PairParameters
            >>> PairParameters(1.0).temperature.shape
            torch.Size([])
        """
        return self.log_temperature.exp()[0]

    @torch.no_grad()
    def clamp(self, least: float, most: float) -> None:
        """Limit the temperature to a range, in place.

        Example:
            >>> from trichord.nn.pairs import PairParameters
            >>> parameters = PairParameters(0.5)
            >>> parameters.clamp(0.01, 0.3)
            >>> round(parameters.temperature.item(), 4)
            0.3
        """
        self.log_temperature.clamp_(math.log(least), math.log(most))
