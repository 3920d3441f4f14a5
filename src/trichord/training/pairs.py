"""Training of the parameters of pairs, which the loss uses and the forward pass of the network does not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from trichord.modality import letter_of
from trichord.nn import MCN
from trichord.nn.pairs import pair_key
from trichord.parallel import num_processes
from trichord.training.stage import Stage


class PairTraining:
    """The parameters of the pairs of a stage while it trains.

    DistributedDataParallel expects all parameters in the forward pass. The parameters of pairs are therefore hidden from it, and
    their gradients are averaged over the processes here.

    Args:
        model: Network, before it is wrapped for several processes.
        stage: Stage that lists the pairs.
        temperature_range: Smallest and largest temperature.
    """

    def __init__(self, model: MCN, stage: Stage, temperature_range: Sequence[float]) -> None:
        self.parts = model.pair_parts(stage.pairs)
        self.least, self.most = temperature_range
        if self.parts and num_processes() > 1:
            names = [
                f"pairs.{pair_key(pair)}.{name}"
                for pair, part in self.parts.items()
                for name, _ in part.named_parameters()
            ]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)

    def average_gradients(self) -> None:
        """Average the gradients over the processes. Call this after the backward pass."""
        gradients = [p.grad for part in self.parts.values() for p in part.parameters() if p.grad is not None]
        if gradients and num_processes() > 1:
            together = torch.cat(gradients)
            dist.all_reduce(together)
            for gradient, mean in zip(gradients, together / num_processes(), strict=True):
                gradient.copy_(mean[None])

    def clamp(self) -> None:
        """Limit the temperatures to their range. Call this after the optimizer step."""
        for part in self.parts.values():
            part.clamp(self.least, self.most)

    def values(self) -> dict[str, float]:
        """Return the temperatures by name, for the log."""
        return {
            f"temperature_{letter_of(a)}{letter_of(b)}": float(part.temperature.detach())
            for (a, b), part in self.parts.items()
        }
