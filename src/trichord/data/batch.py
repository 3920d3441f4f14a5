"""The tensors of a batch of clips, for training and evaluation."""

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
    """The tensors of B clips. For a modality that a clip lacks, its rows are zeros or padding, and its entry in `valid` is False.

    Attributes:
        inputs: Tensors with B rows, by name. `Modality.tensors` lists the names of each modality.
        valid: By modality, mask of shape (B,), bool, of the clips that have it.
        embeddings: By frozen modality, embeddings of shape (B, D) that were computed beforehand (`data.frozen`) and replace its
            inputs.
        targets: By modality whose inputs were changed (`training.noise`), the reconstruction targets (B, P) without the change.
        positives: Mask of shape (B', B'), bool, over the batch of all processes, of the texts that count as positives (MIL-NCE), or
            None.
        first_half: Mask of shape (B',), bool, over the batch of all processes, of the first half of the clips of each video, or
            None.
        step_clips: Number of clips in the batch of all processes, B', or 0 if unknown.
        clips: Clips that were read, for messages, or None if unknown.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    valid: dict[str, Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    positives: Tensor | None = None
    first_half: Tensor | None = None
    step_clips: int = 0
    clips: Clips | None = None

    def to(self, device: torch.device) -> Batch:
        """Return a copy of the batch on a device. Copies to a GPU may be asynchronous."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=device.type == "cuda")

        return Batch(
            {name: move(tensor) for name, tensor in self.inputs.items()},
            {name: mask.to(device) for name, mask in self.valid.items()},
            {name: move(tensor) for name, tensor in self.embeddings.items()},
            {name: move(tensor) for name, tensor in self.targets.items()},
            None if self.positives is None else move(self.positives),
            None if self.first_half is None else move(self.first_half),
            self.step_clips,
            self.clips,
        )

    def model_inputs(self, word_vectors: Tensor) -> dict[str, Tensor]:
        """Compute the keyword arguments of `MCN.forward` and `MCN.embed` for the modalities in the batch.

        Args:
            word_vectors: Word table of the store, of shape (V, W), on the device of the batch.

        Returns:
            The inputs of the network by name.
        """
        inputs: dict[str, Tensor] = {}
        for name in in_order(modality_of_tensor(tensor) for tensor in self.inputs):
            modality = specification(name)
            own = {tensor: self.inputs[tensor] for tensor in modality.tensors if tensor in self.inputs}
            inputs |= modality.network_inputs(own, word_vectors)
        return inputs
