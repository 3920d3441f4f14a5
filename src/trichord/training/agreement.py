"""All processes of a launch train one model: that their copies are the same is checked, not hoped.

Queue and centroids are computed by every process from the same gathered rows, weights from the same averaged gradients. Where
processors or versions differ they could drift apart unseen. So digests of them are compared whenever k-means has fitted and
at the end of an epoch; the cost is one pass over the tensors and a gather of a few numbers.
"""

from __future__ import annotations

import torch
from torch import nn

from trichord.losses.clustering import ClusterMemory
from trichord.parallel import digest, num_processes, require_same
from trichord.training.checkpoint import Position
from trichord.training.sharding import is_sharded
from trichord.training.stage import Stage


class Agreement:
    """Compares what this process trains with the others'.

    Args:
        model: Its trained weights are compared, where every process holds them whole.
        memory: Queue and centroids, or None.
        stage: For the message.
    """

    def __init__(self, model: nn.Module, memory: ClusterMemory | None, stage: Stage) -> None:
        self.weights = [p for p in model.parameters() if p.requires_grad and not is_sharded(p)]
        self.memory, self.stage = memory, stage
        self.num_fits = memory.num_fits if memory is not None else 0

    def check_after_fit(self, position: Position) -> None:
        """`check`, if k-means has fitted since the last check."""
        if self.memory is not None and self.memory.num_fits != self.num_fits:
            self.check(position)

    def check(self, position: Position) -> None:
        """Raise TrichordError on all processes where they differ; it names what, the step and the processes."""
        if self.memory is not None:
            self.num_fits = self.memory.num_fits
        if num_processes() == 1:
            return
        memory = self.memory
        whole: dict[str, list[torch.Tensor | None]] = {
            "position": [torch.tensor([position.step, position.epoch, position.epoch_step])],
            "trained weights": [*self.weights],
            "cluster queue": [memory.queue] if memory is not None else [],
            "centroids": [memory.centroids] if memory is not None else [],
        }
        parts = {name: digest(t for t in tensors if t is not None) for name, tensors in whole.items()}
        require_same(parts, f"stage {self.stage.chain}, step {position.step}")
