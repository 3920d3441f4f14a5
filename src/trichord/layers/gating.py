"""The gated embedding unit (Miech, Laptev and Sivic, Learning a Text-Video Embedding from Incomplete and Heterogeneous
Data, 2018)."""

from __future__ import annotations

import torch
from torch import nn


class GatedUnit(nn.Module):
    """A linear map followed by a context gate: z = W1 x + b1, output z * sigmoid(W2 z + b2).

    `(..., input_dim)` -> `(..., output_dim)`. An all-zero input does not give zeros, because of the biases.
    """

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(input_dim, output_dim)
        self.gate = nn.Linear(output_dim, output_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.fc(x)
        return z * torch.sigmoid(self.gate(z))
