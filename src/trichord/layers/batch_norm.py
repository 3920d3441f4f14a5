"""Batch norm whose statistics are those of this process's rows, or of the rows of all processes.

Over all processes the network computes what one process computes on the whole batch, gradients included, however the rows
are split: also with a part of one row or of none, where a process alone has no statistics at all. It works on CPUs and GPUs
(torch's SyncBatchNorm wants GPUs). The cost is one gather of 2 C + 1 numbers in the forward pass and one sum of 2 C numbers
in the backward pass of each norm, C channels.

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
    """`nn.BatchNorm2d`, with the same weights and buffers, and a switch.

    `over_processes`: in train mode statistics are those of the rows of all processes. Every process then has to call it,
    as often as the others. Without it, and in one process, this is `nn.BatchNorm2d`.

    Fewer than two rows have no batch statistics: the running ones are used then, and stay.
    """

    over_processes = False

    def forward(self, x_NCHT: torch.Tensor) -> torch.Tensor:
        """(N, C, H, T) -> the same shape; N may be 0 where other processes have rows."""
        if not self.training:
            return cast(torch.Tensor, super().forward(x_NCHT))
        if not self.over_processes or num_processes() == 1:
            few = x_NCHT.numel() < 2 * x_NCHT.shape[1]
            return self._by_running(x_NCHT) if few else cast(torch.Tensor, super().forward(x_NCHT))
        found = global_statistics(x_NCHT)
        if found.num_rows < 2:
            return self._by_running(x_NCHT)
        self._track(found)
        inverse = (found.variance + self.eps).rsqrt()
        out: torch.Tensor = _Normalised.apply(x_NCHT, self.weight, self.bias, found.mean, inverse, found.num_rows)
        return out

    def _by_running(self, x_NCHT: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(
            x_NCHT, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    @torch.no_grad()
    def _track(self, found: Statistics) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        unbiased = found.variance * (found.num_rows / (found.num_rows - 1))
        self.running_mean.lerp_(found.mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


class Statistics(NamedTuple):
    """num_rows: rows x H x T of all processes. mean, variance (the biased one): (C,) float64, the same bits everywhere."""

    num_rows: int
    mean: torch.Tensor
    variance: torch.Tensor


@torch.no_grad()
def global_statistics(x_NCHT: torch.Tensor) -> Statistics:
    """Of the rows of all processes, from each process's count, means and squared deviations (Chan, Golub and LeVeque,
    1979): no difference of two large sums."""
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
    """Switch all batch norms of a network."""
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.over_processes = on


def _sum_type(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _row(of_C: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return of_C.to(_sum_type(like))[:, None, None]


class _Normalised(torch.autograd.Function):
    """weight * (x - mean) * inverse + bias; its gradient knows that mean and inverse come from the rows of all processes.

    Gradients of weight and bias are those of this process's rows alone: whoever averages gradients over the processes adds
    them up, as those of every other parameter.
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
