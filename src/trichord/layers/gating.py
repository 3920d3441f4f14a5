"""The gated embedding unit."""

from __future__ import annotations

import torch
from torch import nn


class GatedUnit(nn.Module):
    """A gated embedding unit, which is a linear map followed by a context gate.

    The output is z * sigmoid(W2 z + b2) with z = W1 x + b1 (Miech, Laptev and Sivic, Learning a Text-Video Embedding from
    Incomplete and Heterogeneous Data, 2018). Because of the biases, the output for an all-zero input is not zero.

    Args:
        input_dim: Width of the input.
        output_dim: Width of the output.

    Example:
        >>> import torch
        >>> from trichord.nn import GatedUnit
        >>> GatedUnit(6, 4)(torch.zeros(2, 3, 6)).shape
        torch.Size([2, 3, 4])
    """

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(input_dim, output_dim)
        self.gate = nn.Linear(output_dim, output_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input_dim) to (..., output_dim).

        Example:
            >>> import torch
            >>> from trichord.nn import GatedUnit
            >>> GatedUnit(6, 4)(torch.zeros(8, 6)).shape
            torch.Size([8, 4])
        """
        z = self.fc(x)
        return z * torch.sigmoid(self.gate(z))
