"""Everything that a step of training changes, as named tensors and plain numbers, and back: what a checkpoint holds.

A part is checked as a whole before anything is set, so that what does not fit leaves the running objects as they were.
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
from trichord.training.sharding import split_like, whole

Tensors = dict[str, dict[str, Tensor]]


@dataclass
class TrainingState:
    """The running objects of a stage, of which the checkpoint is made.

    Attributes:
        model: Not wrapped. All its weights and buffers count, those that are frozen too.
        optimizer: Its parameters are the model's.
        schedule: Of the learning rate.
        memory: Queue and centroids; None where nothing is clustered.
        scaler: Of the loss, with fp16.
    """

    model: nn.Module
    optimizer: Any
    schedule: torch.optim.lr_scheduler.LRScheduler
    memory: ClusterMemory | None = None
    scaler: Any = None

    def tensors(self) -> Tensors:
        """By part (`model`, `optimizer` and, if any, `clusters`) and name, on the CPU. Those of the optimizer are named
        PARAMETER/WHAT. With several processes, all call it."""
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
        return parts

    def numbers(self) -> dict[str, Any]:
        """What JSON holds: the optimizer's groups with the names of their parameters, schedule and scaler."""
        names = {id(parameter): name for name, parameter in self._parameters().items()}
        groups = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in self.optimizer.param_groups]
        scaler = self.scaler.state_dict() if self.scaler is not None else {}
        return {"groups": groups, "schedule": self.schedule.state_dict(), "scaler": scaler}

    def fault(self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> str:
        """Why these are not of this training; '' if they can be loaded."""
        mine = self.numbers()
        if wrong := _unlike(mine, numbers, "settings"):
            return wrong
        wanted = {"model", "optimizer"} | ({"clusters"} if self.memory is not None else set())
        if set(tensors) != wanted:
            return f"it holds {', '.join(sorted(tensors))} and not {', '.join(sorted(wanted))}"
        model = self.model.state_dict()
        if names := sorted(set(model) ^ set(tensors["model"])):
            return f"its model is another: {names[0]} is not in both"
        for name, tensor in model.items():
            other = tensors["model"][name]
            if other.shape != tensor.shape or other.dtype != tensor.dtype:
                return f"its model is another: {name} is {tuple(other.shape)} {other.dtype}"
        return self._fault_of_optimizer(tensors["optimizer"]) or self._fault_of_clusters(tensors.get("clusters"))

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
        """Go on where these were taken. Call it only when there is no `fault`."""
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

    def _parameters(self) -> dict[str, nn.Parameter]:
        """The optimizer's parameters by name, in its order."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return {names[id(p)]: p for group in self.optimizer.param_groups for p in group["params"]}

    def _fault_of_optimizer(self, tensors: Mapping[str, Tensor]) -> str:
        parameters = self._parameters()
        parts: dict[str, set[str]] = {}
        for key, tensor in tensors.items():
            name, _, what = key.rpartition("/")
            if name not in parameters or (tensor.ndim and tensor.shape != parameters[name].shape):
                return f"its optimizer is another: {key} is of no parameter, or of another shape"
            parts.setdefault(name, set()).add(what)
        return "" if len(set(map(frozenset, parts.values()))) <= 1 else "its optimizer lacks a part"

    def _fault_of_clusters(self, tensors: Mapping[str, Tensor] | None) -> str:
        if self.memory is None or tensors is None:
            return ""
        try:
            copy.copy(self.memory).load_state_dict(tensors)  # it sets attributes alone: the running one stays
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            return f"its clustering is another: {one_line(error)}"
        return ""


def written(tensor: Tensor) -> Tensor:
    """A tensor as it is written: all of it, on the CPU."""
    return whole(tensor).cpu().contiguous()


def _unlike(mine: Any, other: Any, name: str) -> str:
    """Where two JSON values differ in their keys, lengths or kinds; '' where they do not. Numbers may differ."""
    if isinstance(mine, Mapping):
        if not isinstance(other, Mapping) or set(mine) != set(other):
            return f"{name} have other keys"
        return next(filter(None, (_unlike(mine[key], other[key], f"{name}.{key}") for key in mine)), "")
    if isinstance(mine, list | tuple):
        if not isinstance(other, list | tuple) or len(mine) != len(other):
            return f"{name} has another length"
        if mine and isinstance(mine[0], str):
            return "" if list(mine) == list(other) else f"{name} are others"
        return next(filter(None, (_unlike(a, b, name) for a, b in zip(mine, other, strict=True))), "")
    kinds = (int, float) if isinstance(mine, int | float) and not isinstance(mine, bool) else type(mine)
    return (
        "" if isinstance(other, kinds) and isinstance(mine, bool) == isinstance(other, bool) else f"{name} is no number"
    )


def _as_in(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples: those of `own` (Adam's betas) are tuples again."""
    return {key: tuple(value) if isinstance(own[key], tuple) else value for key, value in given.items()}
