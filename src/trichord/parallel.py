"""Several processes: the few facts, gathers and agreements that losses, training and studies need. One process needs no
set-up, and all of this is nothing there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from trichord.errors import TrichordError, one_line

T = TypeVar("T")
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
BLOCK = 1 << 22  # words that a digest reads at a time
GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as int64: neighbouring words get far multipliers


def num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    return dist.get_rank() if num_processes() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return num_processes() == 1 or dist.get_rank() == 0


def most(number: int) -> int:
    """The largest of the processes' numbers."""
    if num_processes() == 1:
        return number
    numbers = torch.tensor(number, device=_device())
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


def _device() -> str:
    """Where the backend of this launch wants small tensors."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def on_main(function: Callable[[], T]) -> T:
    """What `function` returns on the main process, on all of them; a TrichordError of it is raised on all of them too.

    What it returns is pickled on its way, among processes of one launch.
    """
    if num_processes() == 1:
        return function()
    told: list[Any] = [None, None]
    failure: Exception | None = None
    if is_main():
        try:
            told[0] = function()
        except TrichordError as error:
            told[1] = error
        except Exception as error:  # the others must not wait for ever; this process tells of it
            failure = error
            told[1] = TrichordError(f"the main process failed: {type(error).__name__}: {one_line(error)}")
    dist.broadcast_object_list(told)
    if failure is not None:
        raise failure
    if told[1] is not None:
        raise told[1]
    return cast(T, told[0])


def leave() -> None:
    """Wait for the others and end what is shared, so that no process tears a connection that another still uses."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def loss_of_others(error: Exception) -> str | None:
    """What an error of the backend means to a user: that another process of this launch is gone or hangs. None: it is
    another error."""
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
        f"another process of this launch {what} (this is process {dist.get_rank()} of {num_processes()}): see its output "
        "and its machine's; the same command goes on where this one stopped"
    )


def first_to_fail() -> bool:
    """Whether no other process of this launch failed before: of several that fail, one tells why. Asked once a process.

    Where one process fails, the others lose their connection to it soon after: that is no news.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return int(os.environ.get("RANK", 0)) == 0  # nothing is shared yet: all fail alike
    try:
        return int(dist.distributed_c10d._get_default_store().add("trichord/failed", 1)) == 1
    except RuntimeError:  # the process that keeps the count has ended, and told why
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
            weights = (
                weights ^ (weights >> 29)
            ) * GOLDEN  # not linear in the place: rows of equal sums may be exchanged
            # The product with an odd factor modulo 2**64 can be inverted, so no bit of a word is lost.
            total = total * 1_000_003 + (block * (weights | 1)).sum().cpu()
    return int(total)


def require_same(digests: Mapping[str, int], place: str) -> None:
    """Raise TrichordError on all processes alike where a named digest is not the same on all of them.

    Args:
        digests: Names, the same everywhere, and numbers of 64 bits.
        place: Put in front of the message: which stage, which step.
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
        "they no longer train one model; use machines and versions of one kind, or set training.fast to false, and resume"
    )


def on_any_process(flag: bool) -> bool:
    """Return whether `flag` is true on any process. All processes get the same answer, so that they stop or continue together."""
    return bool(most(int(flag)))


def rows_of_each(num_rows: int, device: torch.device | str) -> list[int]:
    """How many rows each process has, in rank order."""
    if num_processes() == 1:
        return [num_rows]
    counts = _all_gather(torch.tensor([num_rows], device=device))
    return [int(count) for count in counts]


def gather_rows(rows: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Rows of all processes, one below the other in rank order, with gradient.

    Args:
        rows: (B_r, ...) on this process; B_r may differ between processes, the other sizes may not.
        sizes: B_r of every process, where they are known; else the processes tell each other.

    Returns:
        (sum of B_r, ...), the same on every process. The gather's backward sums what the W processes' losses say of a row,
        and DDP averages gradients over processes, so that parameters get the gradient of the mean of the W losses: of
        the one loss where every process computes the same, or where they divide it as `sum_over_processes` says.
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
    """The sum of the processes' values, added in rank order, so the same bits on all of them.

    Its backward gives W times the gradient: DDP averages over the W processes, which leaves the gradient of the sum.
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
