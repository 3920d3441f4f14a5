"""The tensors of a batch of clips, for training and scoring."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trichord.modalities.registry import modality_of_tensor, specification
from trichord.modality import in_order
from trichord.store.clips import Clips

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass
class Batch:
    """Tensors of B clips. A clip that lacks a modality has zeros or padding in its tensors, and `valid` False.

    Attributes:
        inputs: Tensors with B rows, by name; `Modality.tensors` lists the names for each modality.
        valid: Per modality (B,) bool.
        embeddings: Per frozen modality (B, D), computed before (`data.frozen`); in place of its inputs.
        positives: (B', B') bool over the batch of all processes, or None: texts that count as true (MIL-NCE).
        first_half: (B',) bool over the batch of all processes, or None: the first half of each video's clips.
        step_clips: B', clips of the batch of all processes; 0 where nobody counted.
        clips: What was read, for messages; None where nobody noted it.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    valid: dict[str, Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    positives: Tensor | None = None
    first_half: Tensor | None = None
    step_clips: int = 0
    clips: Clips | None = None

    def to(self, device: torch.device) -> Batch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=device.type == "cuda")

        return Batch(
            {name: move(tensor) for name, tensor in self.inputs.items()},
            {name: mask.to(device) for name, mask in self.valid.items()},
            {name: move(tensor) for name, tensor in self.embeddings.items()},
            None if self.positives is None else move(self.positives),
            None if self.first_half is None else move(self.first_half),
            self.step_clips,
            self.clips,
        )

    def model_inputs(self, word_vectors: Tensor) -> dict[str, Tensor]:
        """Keyword arguments of `MCN.forward` and `MCN.embed` for the modalities that the batch holds.

        Args:
            word_vectors: (V, W) the store's word table, on the device of the batch.
        """
        inputs: dict[str, Tensor] = {}
        for name in in_order(modality_of_tensor(tensor) for tensor in self.inputs):
            modality = specification(name)
            own = {tensor: self.inputs[tensor] for tensor in modality.tensors if tensor in self.inputs}
            inputs |= modality.network_inputs(own, word_vectors)
        return inputs
