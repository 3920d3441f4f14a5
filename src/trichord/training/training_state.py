"""The state of a training as named tensors and JSON values: everything that a step changes and a checkpoint contains.

The values of a checkpoint are checked before any of them is loaded, so that a checkpoint that does not fit leaves the state
unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trichord.errors import one_line
from trichord.losses.clustering import ClusterMemory
from trichord.training.selection import Selection
from trichord.training.sharding import split_like, whole

Tensors = dict[str, dict[str, Tensor]]


@dataclass
class TrainingState:
    """The objects of a stage whose state a checkpoint contains.

    Attributes:
        model: Network, not wrapped. All its weights and buffers are saved, including frozen ones.
        optimizer: Optimizer of the parameters of the model.
        schedule: Schedule of the learning rate.
        memory: Queue and centroids. None without clustering.
        scaler: Loss scaler. None without fp16.
        selection: Best weights so far. None if the last weights are the result.
    """

    model: nn.Module
    optimizer: Any
    schedule: torch.optim.lr_scheduler.LRScheduler
    memory: ClusterMemory | None = None
    scaler: Any = None
    selection: Selection | None = None

    def tensors(self) -> Tensors:
        """Return the tensors of the state on the CPU. All processes call this together.

        Returns:
            Tensors by part (`model`, `optimizer` and, if they are used, `clusters` and `selection`) and name. The names of the part
            `optimizer` are PARAMETER/STATE, such as `video.weight/exp_avg`.
        """
        parts = {
            "model": {name: written(tensor) for name, tensor in self.model.state_dict().items()},
            "optimizer": {
                f"{name}/{what}": written(tensor)
                for name, parameter in self._parameters().items()
                for what, tensor in self.optimizer.state.get(parameter, {}).items()
            },
        }
        if self.memory is not None:
            parts["clusters"] = {name: written(tensor) for name, tensor in self.memory.state_dict().items()}
        if self.selection is not None:
            parts["selection"] = {name: written(tensor) for name, tensor in self.selection.tensors().items()}
        return parts

    def numbers(self) -> dict[str, Any]:
        """Return the JSON values of the state: parameter groups of the optimizer, schedule and loss scaler."""
        names = {id(parameter): name for name, parameter in self._parameters().items()}
        groups = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in self.optimizer.param_groups]
        scaler = self.scaler.state_dict() if self.scaler is not None else {}
        return {"groups": groups, "schedule": self.schedule.state_dict(), "scaler": scaler}

    def fault(self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> str:
        """Return why the values of a checkpoint do not fit this training, or '' if they can be loaded.

        Args:
            tensors: Tensors by part and name, as returned by `tensors`.
            numbers: JSON values, as returned by `numbers`.
        """
        mine = self.numbers()
        if wrong := _unlike(mine, numbers, "settings"):
            return wrong
        wanted = {"model", "optimizer"} | ({"clusters"} if self.memory is not None else set())
        wanted |= {"selection"} if self.selection is not None else set()
        if set(tensors) != wanted:
            return f"it contains {', '.join(sorted(tensors)) or 'nothing'} instead of {', '.join(sorted(wanted))}"
        model = self.model.state_dict()
        if names := sorted(set(model) ^ set(tensors["model"])):
            return f"it is of another model: only one of them has {names[0]}"
        for name, tensor in model.items():
            other = tensors["model"][name]
            if other.shape != tensor.shape or other.dtype != tensor.dtype:
                return f"it is of another model: {name} has shape {tuple(other.shape)} and type {other.dtype}"
        if self.selection is not None and (wrong := self.selection.fault(tensors["selection"])):
            return wrong
        return self._fault_of_optimizer(tensors["optimizer"]) or self._fault_of_clusters(tensors.get("clusters"))

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
        """Set the state to the values of a checkpoint. Call this only if `fault` returns ''.

        Args:
            tensors: Tensors by part and name, as returned by `tensors`.
            numbers: JSON values, as returned by `numbers`.
        """
        own = self.model.state_dict()
        self.model.load_state_dict({name: split_like(tensor, own[name]) for name, tensor in tensors["model"].items()})
        parameters = self._parameters()
        places = {name: place for place, name in enumerate(parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors["optimizer"].items():
            name, _, what = key.rpartition("/")
            state.setdefault(places[name], {})[what] = split_like(tensor, parameters[name])
        groups = [
            {**_as_in(own, given), "params": [places[name] for name in given["params"]]}
            for own, given in zip(self.optimizer.param_groups, numbers["groups"], strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.schedule.load_state_dict(dict(numbers["schedule"]))
        if self.scaler is not None:
            self.scaler.load_state_dict(dict(numbers["scaler"]))
        if self.memory is not None:
            self.memory.load_state_dict(tensors["clusters"])
        if self.selection is not None:
            self.selection.load(tensors["selection"])

    def _parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the optimizer by name, in its order."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return {names[id(p)]: p for group in self.optimizer.param_groups for p in group["params"]}

    def _fault_of_optimizer(self, tensors: Mapping[str, Tensor]) -> str:
        parameters = self._parameters()
        parts: dict[str, set[str]] = {}
        for key, tensor in tensors.items():
            name, _, what = key.rpartition("/")
            if name not in parameters or (tensor.ndim and tensor.shape != parameters[name].shape):
                return f"it is of another optimizer: {key} belongs to no parameter, or has another shape"
            parts.setdefault(name, set()).add(what)
        return "" if len(set(map(frozenset, parts.values()))) <= 1 else "the state of its optimizer is incomplete"

    def _fault_of_clusters(self, tensors: Mapping[str, Tensor] | None) -> str:
        if self.memory is None or tensors is None:
            return ""
        try:
            copy.copy(self.memory).load_state_dict(tensors)  # sets only attributes of the copy
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            return f"it is of another clustering: {one_line(error)}"
        return ""


def written(tensor: Tensor) -> Tensor:
    """Return a tensor as it is saved: whole, contiguous and on the CPU."""
    return whole(tensor).cpu().contiguous()


def _unlike(mine: Any, other: Any, name: str) -> str:
    """Return how two JSON values differ in their keys, lengths or types, or ''. Numbers may differ."""
    if isinstance(mine, Mapping):
        if not isinstance(other, Mapping) or set(mine) != set(other):
            return f"its {name} have other keys"
        return next(filter(None, (_unlike(mine[key], other[key], f"{name}.{key}") for key in mine)), "")
    if isinstance(mine, list | tuple):
        if not isinstance(other, list | tuple) or len(mine) != len(other):
            return f"its {name} have another length"
        if mine and isinstance(mine[0], str):
            return "" if list(mine) == list(other) else f"its {name} have other values"
        return next(filter(None, (_unlike(a, b, name) for a, b in zip(mine, other, strict=True))), "")
    kinds = (int, float) if isinstance(mine, int | float) and not isinstance(mine, bool) else type(mine)
    return (
        ""
        if isinstance(other, kinds) and isinstance(mine, bool) == isinstance(other, bool)
        else f"its {name} have another type"
    )


def _as_in(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert lists to tuples where `own` has tuples (such as the betas of Adam), since JSON has no tuples."""
    return {key: tuple(value) if isinstance(own[key], tuple) else value for key, value in given.items()}
