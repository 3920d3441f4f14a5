"""Weights in parts: of every trained module each process keeps its part of weights, gradients and Adam's moments (torch's
FSDP2), and the whole of a unit only while it computes.

Loss and gradients are those of whole copies. The price is traffic: weights are gathered in the forward and the backward pass.
It pays where a copy of weights, gradients and moments (16 bytes a weight) is much of a device's memory. Frozen modules stay
whole. Checkpoints and models are written whole, so that any number of processes reads them.
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
    """Split what the stage trains over all processes, in place: each gated unit, and what else a module holds."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from trichord.training.stage import trainable_modules

    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for part in trainable_modules(model, stage, heads=heads):
        for unit in part.modules():
            if isinstance(unit, GatedUnit):
                fully_shard(unit, mesh=mesh)
        fully_shard(part, mesh=mesh)


def is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, without gradient. Of one in parts: all processes call it together."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return tensor.detach() if gather is None else gather().detach()


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    local: Any = getattr(tensor, "to_local", None)
    return tensor if local is None else local()


def split_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on all processes, in parts as `like` is; as it is where `like` is whole."""
    if not is_sharded(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def gather_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Weights and buffers of a model, whole, on the CPU of every process. All processes call it."""
    return {name: whole(tensor).cpu() for name, tensor in model.state_dict().items()}


def norm_and_clip(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Norm of the gradients of parameters that are in parts, after which they are scaled to `limit` if it is above 0."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    own = [own_part(g) for g in gradients if is_sharded(g)]
    squares = torch.stack([torch.zeros((), device=gradients[0].device), *(g.float().square().sum() for g in own)]).sum()
    dist.all_reduce(squares)
    alone = [g for g in gradients if not is_sharded(g)]
    norm = float((squares + sum(g.float().square().sum() for g in alone)).sqrt())
    if 0 < limit < norm < float("inf"):
        torch._foreach_mul_([*own, *alone], limit / (norm + 1e-6))
    return norm
