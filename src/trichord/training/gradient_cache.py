"""Large contrast batches in little memory, with the exact gradient: two passes over chunks of the batch.

The loss couples all clips, but only through the outputs of the encoders. So the first pass encodes the batch chunk by chunk
without keeping the graph; the loss of all outputs gives the gradient at each of them; the second pass encodes each chunk again,
this time with its graph, and sends that gradient through it (Gao et al., Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup, 2021). The graph in memory is that of one chunk; the cost is one more forward pass.

Batch norm. Its statistics are those of a chunk, in both passes alike (`norm` = "chunk"): the gradient is exactly that of a
network whose batch norm sees chunks, and differs from that of one which sees the whole batch. With "running" the running
statistics normalise, so that chunks and the whole batch give the same; they then stay as they are. Running statistics are
updated once per chunk and step, by the second pass.

Several processes take as many chunks as the one with the most, of their own rows. Batch norm over all processes then sees the
first chunks of all, then the second ones, and so on: up to `chunk` rows of each process at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from trichord.layers.encoders import Encoded
from trichord.modalities.registry import modality_of_tensor
from trichord.parallel import most

if TYPE_CHECKING:
    from accelerate import Accelerator

Norm = Literal["chunk", "running"]


def chunks_of(num_rows: int, chunk: int) -> list[slice]:
    """Parts of at most `chunk` rows, as even as can be, so that no batch norm sees a rest of a few rows. Several processes
    get the same number of parts, whatever rows they have."""
    count = most(-(-num_rows // chunk))
    bounds = [round(i * num_rows / count) for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


class GradientCache:
    """The two passes of one step.

    Args:
        network: Called with keyword tensors of B rows, it gives `Encoded` by modality; may be wrapped for several processes.
        accelerator: For autocast, and to hold back the exchange of gradients until the last chunk.
        trained: Modalities that train; the others are encoded once, without a gradient.
        chunk: Rows of a chunk, at most.
        norm: What batch norm sees, see the module.
    """

    def __init__(
        self,
        network: nn.Module,
        accelerator: Accelerator,
        trained: Sequence[str],
        *,
        chunk: int,
        norm: Norm = "chunk",
    ) -> None:
        if not (chunk > 0 and norm in ("chunk", "running")):
            raise ValueError(f"chunk is {chunk} and norm '{norm}'; give a chunk above 0, and the norm chunk or running")
        self.trained = tuple(trained)
        self.network, self.accelerator, self.chunk, self.norm = network, accelerator, chunk, norm
        self.leaves: dict[str, Encoded] = {}

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Encoded]:
        """First pass: outputs of all rows, as leaves that collect the gradient of the loss."""
        parts: dict[str, list[Encoded]] = {}
        with torch.no_grad(), _unchanged_norms(self.network, self.norm):
            for rows in self._slices(inputs):
                for modality, out in self._forward(inputs, rows).items():
                    parts.setdefault(modality, []).append(out)
        self.leaves = {m: _joined(several, m in self.trained) for m, several in parts.items()}
        return self.leaves

    def backward(self, inputs: Mapping[str, Tensor]) -> None:
        """Second pass, after `backward` of the loss of `encode`'s outputs: gradients of the parameters."""
        wanted = {m: out for m, out in self.leaves.items() if any(t.grad is not None for t in _tensors(out))}
        some = {name: tensor for name, tensor in inputs.items() if modality_of_tensor(name) in wanted}
        slices = self._slices(some)
        with _norms(self.network, self.norm):
            for number, rows in enumerate(slices):
                last = number == len(slices) - 1
                with nullcontext() if last else self.accelerator.no_sync(self.network):
                    self._backward_chunk(some, rows, wanted)
        self.leaves = {}

    def _backward_chunk(self, inputs: Mapping[str, Tensor], rows: slice, wanted: Mapping[str, Encoded]) -> None:
        roots, gradients = [], []
        for modality, out in self._forward(inputs, rows).items():
            for tensor, leaf in zip(_tensors(out), _tensors(wanted[modality]), strict=True):
                if tensor.requires_grad and leaf.grad is not None:
                    roots.append(tensor)
                    gradients.append(leaf.grad[rows].to(tensor.dtype))
        if roots:
            torch.autograd.backward(roots, gradients)

    def _forward(self, inputs: Mapping[str, Tensor], rows: slice) -> dict[str, Encoded]:
        with self.accelerator.autocast():
            out: dict[str, Encoded] = self.network(**{name: tensor[rows] for name, tensor in inputs.items()})
        return out

    def _slices(self, inputs: Mapping[str, Tensor]) -> list[slice]:
        return chunks_of(len(next(iter(inputs.values()))), self.chunk) if inputs else []


def _tensors(out: Encoded) -> list[Tensor]:
    return [tensor for tensor in out if tensor is not None]


def _joined(several: list[Encoded], trains: bool) -> Encoded:
    def leaf(tensors: list[Any]) -> Any:
        return None if tensors[0] is None else torch.cat(tensors).requires_grad_(trains)

    return Encoded(*(leaf(list(part)) for part in zip(*several, strict=True)))


def _batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]


@contextmanager
def _norms(network: nn.Module, norm: Norm) -> Iterator[None]:
    """Batch norms that train use their running statistics meanwhile, where `norm` asks for it."""
    changed = _batch_norms(network) if norm == "running" else []
    for module in changed:
        module.eval()
    try:
        yield
    finally:
        for module in changed:
            module.train()


@contextmanager
def _unchanged_norms(network: nn.Module, norm: Norm) -> Iterator[None]:
    """`_norms`, and the running statistics are afterwards what they were before."""
    kept = [(buffer, buffer.clone()) for module in _batch_norms(network) for buffer in module.buffers()]
    with _norms(network, norm):
        try:
            yield
        finally:
            for buffer, before in kept:
                buffer.copy_(before)
