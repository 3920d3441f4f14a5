"""Sharding of trained weights over processes with PyTorch FSDP2.

Each process stores a part of the weights, the gradients and the moments of Adam of each trained module. The whole weights of a
unit exist only while it computes. Loss and gradients are the same as without sharding. The cost is communication: weights are
gathered in the forward and the backward pass. Sharding is useful if weights, gradients and moments (16 bytes per weight) fill
much of the memory of a device. Frozen modules are not sharded. Checkpoints and models contain whole tensors, so that any number
of processes can read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trichord.layers.gating import GatedUnit

if TYPE_CHECKING:
    from trichord.nn import MCN
    from trichord.training.stage import Stage


def shard_trained(model: MCN, stage: Stage, *, heads: bool) -> None:
    """Shard the modules that a stage trains over all processes, in place. Each gated unit is a unit of its own.

    The few parameters of pairs are not sharded.

    Args:
        model: Network on the device of the training.
        stage: Stage that lists the trained modalities.
        heads: Whether the reconstruction heads are trained.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from trichord.training.stage import modules_of

    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for part in modules_of(model, stage, stage.train + stage.thawed, heads=heads):
        for unit in part.modules():
            if isinstance(unit, GatedUnit):
                fully_shard(unit, mesh=mesh)
        fully_shard(part, mesh=mesh)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether each process stores only a part of the tensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor, without gradient. All processes call this together for a sharded tensor."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return tensor.detach() if gather is None else gather().detach()


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process stores."""
    local: Any = getattr(tensor, "to_local", None)
    return tensor if local is None else local()


def split_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Shard a tensor.

    Args:
        tensor: Whole tensor, the same on all processes.
        like: Tensor of the same shape whose sharding is used.

    Returns:
        The sharded tensor, or `tensor` if `like` is not sharded.
    """
    if not is_sharded(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def gather_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Return the whole weights and buffers of a model on the CPU of every process. All processes call this together."""
    return {name: whole(tensor).cpu() for name, tensor in model.state_dict().items()}


def norm_and_clip(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Compute the global norm of the gradients of sharded parameters, and clip the gradients. All processes call this together.

    Args:
        parameters: Parameters, of which at least one is sharded and has a gradient.
        limit: Largest norm. The gradients are scaled down to it if it is above 0.

    Returns:
        The norm before clipping.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    own = [own_part(g) for g in gradients if is_sharded(g)]
    squares = torch.stack([torch.zeros((), device=gradients[0].device), *(g.float().square().sum() for g in own)]).sum()
    dist.all_reduce(squares)
    alone = [g for g in gradients if not is_sharded(g)]
    norm = float((squares + sum(g.float().square().sum() for g in alone)).sqrt())
    if 0 < limit < norm < float("inf"):
        torch._foreach_mul_([*own, *alone], limit / (norm + 1e-6))
    return norm
