"""Several processes: the few facts and gathers that losses and training need. One process needs no set-up."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def on_any_process(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether `flag` holds on any process: the same answer on all of them, so that they stop or go on together.

    Args:
        flag: Of this process.
        device: Where the backend exchanges tensors.
    """
    if num_processes() == 1:
        return flag
    seen = torch.tensor(int(flag), device=device)
    dist.all_reduce(seen, op=dist.ReduceOp.MAX)
    return bool(seen)


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes, one below the other in rank order, with gradient.

    Args:
        rows: (B_r, ...) on this process; B_r may differ between processes, the other sizes may not.

    Returns:
        (sum of B_r, ...), the same on every process. When every process computes the same loss on it and DDP averages
        the gradients, parameters get exactly the gradient of that one loss: the gather's backward sums the W equal
        contributions, and the average divides by W again.
    """
    if num_processes() == 1:
        return rows
    counts = [torch.zeros((), dtype=torch.long, device=rows.device) for _ in range(num_processes())]
    dist.all_gather(counts, torch.tensor(rows.shape[0], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows
    if (lacking := max(sizes) - rows.shape[0]) > 0:
        padded = torch.cat([rows, rows.new_zeros((lacking, *rows.shape[1:]))])
    parts = _GatherWithGradient.apply(padded.contiguous()) if rows.requires_grad else _all_gather(padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _GatherWithGradient(torch.autograd.Function):
    """all_gather whose backward gives each process the sum over processes of the gradients of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(_all_gather(rows))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        stacked = torch.stack(gradients)
        dist.all_reduce(stacked)
        return stacked[dist.get_rank()]


def _all_gather(rows: Tensor) -> list[Tensor]:
    as_bytes = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    parts = [torch.empty_like(as_bytes) for _ in range(num_processes())]
    dist.all_gather(parts, as_bytes)
    return [part.to(rows.dtype) for part in parts]
