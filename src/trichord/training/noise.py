"""Random changes of the inputs in training: dropout of features and words, and masks of spectrograms.

The changes of a step depend only on the stage, the seed and the step, and are drawn for the batch of all processes. A resumed
training, several processes and a batch in chunks therefore see the same inputs as an uninterrupted training in one process. The
inputs of frozen modalities are not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trichord.data.batch import Batch
from trichord.modalities.base import Noise
from trichord.modalities.registry import modality_of_tensor, specification


class InputNoise:
    """The random changes of the batches of a stage.

    Args:
        noises: Noise of each modality whose inputs are changed.
        seed: Text that names the stage and its seed.
        process: Index of this process.
        num_processes: Number of processes that share a batch.
    """

    def __init__(self, noises: Mapping[str, Noise], seed: str, *, process: int = 0, num_processes: int = 1) -> None:
        self.noises = {m: noise for m, noise in noises.items() if noise}
        self.seed, self.process, self.num_processes = seed, process, num_processes

    def applied(self, batch: Batch, step: int) -> Batch:
        """Return a batch with changed inputs, and with the unchanged ones as targets where they are reconstructed.

        Args:
            batch: Batch of this process, whose `step_clips` is the number of clips of all processes.
            step: Number of the step.
        """
        changed, targets = dict(batch.inputs), {}
        for modality, noise in self.noises.items():
            own = {name: tensor for name, tensor in batch.inputs.items() if modality_of_tensor(name) == modality}
            if own:
                changed |= specification(modality).with_noise(own, noise, self._draws(batch, step, modality))
            if (name := specification(modality).target_input) in own:
                targets[modality] = own[name]
        return replace(batch, inputs=changed, targets=targets)

    def _draws(self, batch: Batch, step: int, modality: str) -> _Draws:
        digest = hashlib.sha256(f"{self.seed} {step} {modality}".encode()).digest()
        rows = np.array_split(np.arange(batch.step_clips), self.num_processes)[self.process]
        device = next(iter(batch.inputs.values())).device
        return _Draws(int.from_bytes(digest[:8], "little") >> 1, batch.step_clips, rows, device)


class _Draws:
    """Draws uniform numbers for the clips of all processes, and returns those of the clips of this process."""

    def __init__(self, seed: int, num_clips: int, rows: np.ndarray, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.num_clips, self.device = num_clips, device
        self.rows = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Return uniform numbers in [0, 1) of shape (B, *shape)."""
        return torch.rand((self.num_clips, *shape), generator=self.generator, device=self.device)[self.rows]
