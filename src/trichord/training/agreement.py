"""A check that all processes of a launch hold the same model.

Every process computes the queue and the centroids from the same gathered rows, and the weights from the same averaged
gradients. Processes on different hardware or with different library versions could still diverge without notice. Digests of
these tensors are therefore compared after each fit of k-means and at the end of each epoch. A comparison costs one pass over
the tensors and a gather of a few numbers.
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
    """Compares the trained tensors of all processes.

    Args:
        model: Network. Its trained weights are compared, except sharded ones, of which each process holds a different part.
        memory: Queue and centroids. None if the stage has no clustering.
        stage: Stage that the error message names.
    """

    def __init__(self, model: nn.Module, memory: ClusterMemory | None, stage: Stage) -> None:
        self.weights = [p for p in model.parameters() if p.requires_grad and not is_sharded(p)]
        self.memory, self.stage = memory, stage
        self.num_fits = memory.num_fits if memory is not None else 0

    def check_after_fit(self, position: Position) -> None:
        """Call `check` if k-means was fitted since the last check."""
        if self.memory is not None and self.memory.num_fits != self.num_fits:
            self.check(position)

    def check(self, position: Position) -> None:
        """Compare the tensors of all processes, which call this together.

        Args:
            position: Position in the training, which is compared too.

        Raises:
            TrichordError: The processes differ. All processes raise it. The message names the tensors, the step and the
                processes.
        """
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
