"""Several processes: the few facts and gathers that losses and training need. One process needs no set-up."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


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
    import torch.distributed.nn.functional as dist_nn

    counts = [torch.zeros((), dtype=torch.long, device=rows.device) for _ in range(num_processes())]
    dist.all_gather(counts, torch.tensor(rows.shape[0], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows
    if (lacking := max(sizes) - rows.shape[0]) > 0:
        padded = torch.cat([rows, rows.new_zeros((lacking, *rows.shape[1:]))])
    gather = dist_nn.all_gather if rows.requires_grad else _plain_all_gather
    parts = gather(padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _plain_all_gather(rows: Tensor) -> list[Tensor]:
    as_bytes = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    parts = [torch.empty_like(as_bytes) for _ in range(num_processes())]
    dist.all_gather(parts, as_bytes)
    return [part.to(rows.dtype) for part in parts]
