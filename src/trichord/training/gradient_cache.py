"""Gradient caching: exact gradients of large contrastive batches in little memory, by two passes over chunks of the batch.

The loss couples all clips, but only through the outputs of the encoders. The first pass encodes the batch chunk by chunk
without storing the graph. The loss of all outputs then yields the gradient with respect to each output. The second pass encodes
each chunk again, this time with its graph, and propagates this gradient through it (Gao et al., Scaling Deep Contrastive
Learning Batch Size under Memory Limited Setup, 2021). Memory holds the graph of a single chunk. The cost is a second forward
pass.

Batch norm: with `norm="chunk"`, both passes normalise with the statistics of the chunk. The gradient is then exactly that of a
network whose batch norm sees chunks, and differs from that of a network whose batch norm sees the whole batch. The second pass
updates the running statistics, once per chunk and step. With `norm="running"`, both passes normalise with the running
statistics, which do not change, so chunks and the whole batch give the same result.

Several processes use the same number of chunks: the largest number that any of them needs for its rows. Batch norm over all
processes sees the first chunk of each process, then the second ones, and so on, with up to `chunk` rows of each process.
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
    """Split rows into chunks of nearly equal size, so that batch norm never sees a remainder of a few rows.

    Several processes get the same number of chunks, even if their numbers of rows differ.

    Args:
        num_rows: Number of rows of this process.
        chunk: Largest number of rows of a chunk.

    Returns:
        The slices of the chunks.
    """
    count = most(-(-num_rows // chunk))
    bounds = [round(i * num_rows / count) for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


class GradientCache:
    """The two passes of a training step.

    Args:
        network: Module that takes tensors of B rows as keyword arguments and returns `Encoded` by modality. It may be wrapped
            for several processes.
        accelerator: Provides autocast, and delays the exchange of gradients until the last chunk.
        trained: Modalities that are trained. The others are encoded once, without a gradient.
        chunk: Largest number of rows of a chunk.
        norm: Statistics that batch norm uses: `chunk` or `running`, see the description of the module.

    Raises:
        ValueError: `chunk` or `norm` is invalid.
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
            raise ValueError(
                f"chunk is {chunk} and norm is '{norm}'; expected a chunk above 0, and norm chunk or running"
            )
        self.trained = tuple(trained)
        self.network, self.accelerator, self.chunk, self.norm = network, accelerator, chunk, norm
        self.leaves: dict[str, Encoded] = {}

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Encoded]:
        """Run the first pass.

        Args:
            inputs: Tensors of B rows by name.

        Returns:
            The outputs of all rows by modality. They are leaf tensors, which accumulate the gradient of the loss.
        """
        parts: dict[str, list[Encoded]] = {}
        with torch.no_grad(), _unchanged_norms(self.network, self.norm):
            for rows in self._slices(inputs):
                for modality, out in self._forward(inputs, rows).items():
                    parts.setdefault(modality, []).append(out)
        self.leaves = {m: _joined(several, m in self.trained) for m, several in parts.items()}
        return self.leaves

    def backward(self, inputs: Mapping[str, Tensor]) -> None:
        """Run the second pass, which accumulates the gradients of the parameters.

        Call `backward` of the loss of the outputs of `encode` before.

        Args:
            inputs: The tensors that `encode` was called with.
        """
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
    """Let batch norms in train mode use their running statistics in the block, if `norm` is `running`."""
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
    """Apply `_norms` and restore the running statistics after the block."""
    kept = [(buffer, buffer.clone()) for module in _batch_norms(network) for buffer in module.buffers()]
    with _norms(network, norm):
        try:
            yield
        finally:
            for buffer, before in kept:
                buffer.copy_(before)
