"""Communication between the processes of a launch: gathering rows, sums, checks that all processes agree.

In a single process, all functions work without any set-up and have no cost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from trichord.errors import TrichordError, one_line

T = TypeVar("T")
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
REPORT_S = 5.0  # time that a process gives process 0 to report their common error
BLOCK = 1 << 22  # number of words that `digest` reads at a time
GOLDEN = (
    -7046029254386353131
)  # 2**64 / golden ratio as int64, so that multipliers of neighbouring words differ in many bits


def num_processes() -> int:
    """Return the number W of processes of the launch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if num_processes() > 1 else 0


def most(number: int) -> int:
    """Return the largest number over all processes."""
    if num_processes() == 1:
        return number
    numbers = torch.tensor(number, device=_device())
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


def _device() -> str:
    """Return the device on which the backend of this launch expects tensors."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def on_main(function: Callable[[], T]) -> T:
    """Call a function on the main process and return its result on all processes.

    The result is sent as a pickle between the processes of the launch. A TrichordError that the function raises is raised on all
    processes; for any other error, the other processes raise a TrichordError.
    """
    if num_processes() == 1:
        return function()
    shared: list[Any] = [None, None]  # result, error
    failure: Exception | None = None
    if process_index() == 0:
        try:
            shared[0] = function()
        except TrichordError as error:
            shared[1] = error
        except Exception as error:  # raised here, and reported to the other processes, which are waiting
            failure = error
            shared[1] = TrichordError(f"the main process failed: {type(error).__name__}: {one_line(error)}")
    dist.broadcast_object_list(shared)
    if failure is not None:
        raise failure
    if shared[1] is not None:
        raise shared[1]
    return cast(T, shared[0])


def leave() -> None:
    """Wait for all processes and end the process group, so that no process closes a connection that another one still uses."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def loss_of_others(error: Exception) -> str | None:
    """Return an error message if an error of the backend means that another process has ended or does not answer, else None."""
    if num_processes() == 1:
        return None
    text = str(error)
    slow = any(sign in text for sign in ("imed out", "imeout"))
    gone = any(sign in text for sign in ("Connection closed", "Connection reset", "Connection refused", "Broken pipe"))
    if not (slow or gone) or not (
        isinstance(error, RuntimeError) and any(s in text for s in ("gloo", "NCCL", "TCPStore"))
    ):
        return None
    what = "did not answer within training.process_timeout_s" if slow else "has ended"
    return (
        f"another process of this launch {what} (this is process {dist.get_rank()} of {num_processes()}); see its output "
        "and the state of its machine; run the same command again to continue"
    )


def first_to_fail() -> bool:
    """Return whether no other process of this launch has failed before. Each process calls this function at most once.

    If a process fails, the others lose their connection to it soon after. Only the first failure is reported. Before the process
    group exists, all processes fail in the same way and process 0 reports it; the others give it time, since the launcher ends all
    processes when one ends.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if int(os.environ.get("RANK", 0)) == 0:
            return True
        time.sleep(REPORT_S)
        return False
    try:
        return int(dist.distributed_c10d._get_default_store().add("trichord/failed", 1)) == 1
    except RuntimeError:  # the process that keeps the count has ended and reported its error
        return False


def digest(tensors: Iterable[Tensor]) -> int:
    """Return a 64-bit checksum of tensors, computed in one pass over each tensor on its device.

    Tensors that differ in one bit always have different checksums. Other differences, such as exchanged rows, are found with
    high probability. The checksum is not secure against forgery.
    """
    total = torch.zeros((), dtype=torch.int64)
    for tensor in tensors:
        words = tensor.detach().contiguous().view(-1).view(WORDS[tensor.element_size()])
        for start in range(0, len(words), BLOCK):
            block = words[start : start + BLOCK].to(torch.int64) + 1
            places = torch.arange(start, start + len(block), device=block.device)
            weights = places * GOLDEN
            # Weights are not linear in the place, so that exchanged rows with equal sums are noticed. They are made odd because the
            # product with an odd factor modulo 2**64 can be inverted and thus loses no bit of a word.
            weights = (weights ^ (weights >> 29)) * GOLDEN
            total = total * 1_000_003 + (block * (weights | 1)).sum().cpu()
    return int(total)


def require_same(digests: Mapping[str, int], place: str) -> None:
    """Check that all processes have the same checksums.

    Args:
        digests: 64-bit checksums by name. All processes must use the same names.
        place: Stage and step, for the error message.

    Raises:
        TrichordError: A checksum differs. The error is raised on all processes.
    """
    if num_processes() == 1 or not digests:
        return
    numbers = gather_rows(torch.tensor([list(digests.values())], dtype=torch.int64, device=_device())).cpu()
    differs = numbers != numbers[0]
    if not bool(differs.any()):
        return
    names = [name for name, column in zip(digests, differs.any(0).tolist(), strict=True) if column]
    ranks = [str(rank) for rank in differs.any(1).nonzero().flatten().tolist()]
    raise TrichordError(
        f"{place}: process {', '.join(ranks)} of {num_processes()} differs from process 0 in its {' and '.join(names)}, so "
        "they no longer train the same model; use equal machines and versions, or set training.fast to false, and resume"
    )


def on_any_process(flag: bool) -> bool:
    """Return whether `flag` is true on any process. All processes get the same result, so they stop or continue together."""
    return bool(most(int(flag)))


def rows_of_each(num_rows: int, device: torch.device | str) -> list[int]:
    """Return the number of rows of each process, in rank order."""
    if num_processes() == 1:
        return [num_rows]
    counts = _all_gather(torch.tensor([num_rows], device=device))
    return [int(count) for count in counts]


def gather_rows(rows: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Concatenate the rows of all processes in rank order, with gradient.

    Args:
        rows: Rows (B_r, ...) of this process. B_r may differ between processes, but not the other sizes.
        sizes: B_r of every process, if known; otherwise the processes exchange them.

    Returns:
        Rows (sum of B_r, ...), equal on all processes. The backward pass sums the gradients of a row over the W losses, and DDP
        averages the gradients of parameters over processes. Parameters therefore receive the gradient of the mean of the W
        losses. This is the gradient of the loss if every process computes the whole loss, or if the loss is divided between
        processes and added by `sum_over_processes`.
    """
    if num_processes() == 1:
        return rows
    sizes = rows_of_each(rows.shape[0], rows.device) if sizes is None else sizes
    padded = rows
    if (lacking := max(sizes) - rows.shape[0]) > 0:
        padded = torch.cat([rows, rows.new_zeros((lacking, *rows.shape[1:]))])
    parts = _GatherWithGradient.apply(padded.contiguous()) if rows.requires_grad else _all_gather(padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def sum_over_processes(values: Tensor) -> Tensor:
    """Return the sum of the values of all processes, added in rank order and therefore bit-identical on all processes.

    The backward pass returns W times the gradient; DDP averages over the W processes, which gives the gradient of the sum.
    """
    return values if num_processes() == 1 else cast(Tensor, _SumOfShares.apply(values))


class _SumOfShares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return torch.stack(_all_gather(values.contiguous())).sum(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * dist.get_world_size()


class _GatherWithGradient(torch.autograd.Function):
    """Gather rows; the backward pass returns to each process the gradients of its rows, summed over processes."""

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
