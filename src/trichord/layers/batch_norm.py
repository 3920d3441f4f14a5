"""Batch normalization with the statistics of the rows of one process, or of the rows of all processes.

With the statistics of all processes, the network computes the same outputs and gradients as one process does on the whole batch,
however the rows are split. This includes processes with one row or none, which have no statistics of their own. It works on CPUs
and GPUs, whereas `torch.nn.SyncBatchNorm` requires GPUs. Each layer costs one gather of 2 C + 1 numbers in the forward pass and
one sum of 2 C numbers in the backward pass.

Shape letters: N rows of this process, C channels, H and T the axes that are pooled with the rows, W processes.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from trichord.parallel import gather_rows, num_processes

AXES = (0, 2, 3)


class BatchNorm2d(nn.BatchNorm2d):
    """A variant of `nn.BatchNorm2d` that can use the batch statistics of all processes.

    It has the same parameters and buffers. Batch statistics are undefined for fewer than two rows; the running statistics are
    then used and not updated.

    Attributes:
        over_processes: Whether train mode uses the statistics of the rows of all processes. Every process must then call the layer
            equally often. If False, or in a single process, the layer behaves like `nn.BatchNorm2d`.
    """

    over_processes = False

    def forward(self, x_NCHT: torch.Tensor) -> torch.Tensor:
        """Normalize a tensor of shape (N, C, H, T). N may be 0 if other processes have rows."""
        if not self.training:
            return cast(torch.Tensor, super().forward(x_NCHT))
        if not self.over_processes or num_processes() == 1:
            few = x_NCHT.numel() < 2 * x_NCHT.shape[1]
            return self._by_running(x_NCHT) if few else cast(torch.Tensor, super().forward(x_NCHT))
        statistics = global_statistics(x_NCHT)
        if statistics.num_rows < 2:
            return self._by_running(x_NCHT)
        self._track(statistics)
        inverse = (statistics.variance + self.eps).rsqrt()
        out: torch.Tensor = _Normalised.apply(
            x_NCHT, self.weight, self.bias, statistics.mean, inverse, statistics.num_rows
        )
        return out

    def _by_running(self, x_NCHT: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(
            x_NCHT, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    @torch.no_grad()
    def _track(self, statistics: Statistics) -> None:
        """Update the running statistics."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        unbiased = statistics.variance * (statistics.num_rows / (statistics.num_rows - 1))
        self.running_mean.lerp_(statistics.mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


class Statistics(NamedTuple):
    """Batch statistics over the rows of all processes. They are bit-equal in all processes.

    Attributes:
        num_rows: Number of values per channel in all processes (N x H x T).
        mean: Mean of each channel, of shape (C,), float64.
        variance: Biased variance of each channel, of shape (C,), float64.
    """

    num_rows: int
    mean: torch.Tensor
    variance: torch.Tensor


@torch.no_grad()
def global_statistics(x_NCHT: torch.Tensor) -> Statistics:
    """Compute the statistics of the rows of all processes.

    They are combined from the count, mean and squared deviations of each process (Chan, Golub and LeVeque, 1979), which avoids the
    difference of two large sums.

    Args:
        x_NCHT: Rows of this process, of shape (N, C, H, T).

    Returns:
        The statistics over all processes.
    """
    channels = x_NCHT.shape[1]
    count = x_NCHT.numel() // channels
    own = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x_NCHT.device)
    if count:
        variance, mean = torch.var_mean(x_NCHT.to(_sum_type(x_NCHT)), AXES, correction=0)
        own = torch.cat([own.new_tensor([count]), mean.double(), variance.double() * count])
    all_W = gather_rows(own[None])
    counts_W1, means_WC, squares_WC = all_W[:, :1], all_W[:, 1 : channels + 1], all_W[:, channels + 1 :]
    total = counts_W1.sum().clamp(min=1)
    mean = (counts_W1 * means_WC).sum(0) / total
    squares = squares_WC + counts_W1 * (means_WC - mean).square()
    return Statistics(int(counts_W1.sum()), mean, squares.sum(0) / total)


def set_over_processes(network: nn.Module, on: bool) -> None:
    """Set `over_processes` of all batch normalization layers of a network.

    Args:
        network: Network whose layers are changed.
        on: Whether the layers use the statistics of all processes.
    """
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.over_processes = on


def _sum_type(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _row(values_C: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Reshape one value per channel for broadcasting, in the type in which `like` is summed."""
    return values_C.to(_sum_type(like))[:, None, None]


class _Normalised(torch.autograd.Function):
    """Compute weight * (x - mean) * inverse + bias, where mean and inverse depend on the rows of all processes.

    The gradients of weight and bias cover the rows of this process only. They are combined over the processes together with the
    gradients of all other parameters.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor, count: int
    ) -> torch.Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.count = count
        unit = (x.to(_sum_type(x)) - _row(mean, x)) * _row(inverse, x)
        return torch.addcmul(_row(bias, x), unit, _row(weight, x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        grad = grads[0].to(_sum_type(x))
        unit = (x.to(_sum_type(x)) - _row(mean, x)) * _row(inverse, x)
        own_2C = torch.stack([grad.sum(AXES), (grad * unit).sum(AXES)])
        sums_2C = own_2C.to(torch.float64, copy=True)
        dist.all_reduce(sums_2C)
        means_2C = sums_2C / ctx.count
        inner = grad - _row(means_2C[0], x) - unit * _row(means_2C[1], x)
        grad_x = (inner * _row(inverse * weight, x)).to(x.dtype)
        return grad_x, own_2C[1].to(weight.dtype), own_2C[0].to(weight.dtype), None, None, None
