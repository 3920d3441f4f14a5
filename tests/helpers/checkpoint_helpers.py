"""A small training run whose checkpoints hold everything, with functions that compare and interrupt it."""

from __future__ import annotations

import builtins
import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from torch import nn

from trichord.logs import passing_messages
from trichord.losses.clustering import ClusterMemory
from trichord.training.checkpoint import Position, load_newest, save_checkpoint
from trichord.training.random_states import random_states
from trichord.training.training_state import TrainingState

CPU = torch.device("cpu")


def small_state(seed: int = 0) -> TrainingState:
    """Return weights, batch norm, Adam with two groups, a schedule and a queue that is not full."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 4))
    optimizer = torch.optim.Adam([{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 0.01}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return TrainingState(model, optimizer, schedule, ClusterMemory(3, 32, refit_every=2))


def train(state: TrainingState, steps: int) -> None:
    """Run steps that use every global random state."""
    for _ in range(steps):
        noise = random.random() + random.gauss(0, 1) + float(np.random.randn())
        rows = state.model(torch.randn(7, 6) + noise)
        state.optimizer.zero_grad()
        rows.square().mean().backward()
        state.optimizer.step()
        state.schedule.step()
        assert state.memory is not None
        state.memory.update(rows)


def digest(state: TrainingState) -> str:
    """Return a digest of everything that a step changes, bit for bit."""
    hasher = hashlib.sha256()
    parts = {**state.tensors(), "random": random_states(CPU)}
    for part, tensors in sorted(parts.items()):
        for name, tensor in sorted(tensors.items()):
            hasher.update(f"{part} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            hasher.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    hasher.update(repr(state.numbers()).encode())
    return hasher.hexdigest()


def save(state: TrainingState, folder: Path, step: int, **policy: Any) -> Path:
    return save_checkpoint(Accelerator(cpu=True), state, folder, Position(step, 0, step), **policy)


def load(state: TrainingState, folder: Path, lines: list[str] | None = None) -> Position | None:
    with passing_messages((lines if lines is not None else []).append):
        return load_newest(Accelerator(cpu=True), state, folder)


class Killed(BaseException):
    """Represents the death of the process: nothing that it would do afterwards reaches the disk."""


class Killer:
    """Counts calls that change the disk, and interrupts call number `at` in the middle of writing."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def begin(self) -> bool:
        """Return whether the current call is the one to interrupt."""
        self.calls += 1
        if self.calls > self.at:
            raise Killed
        return self.calls == self.at


CHANGES = ("replace", "rename", "mkdir", "rmdir", "unlink", "fsync")


@contextmanager
def killed_at(at: int) -> Iterator[Killer]:
    """Count every change of the disk; complete number `at` only by half (files) or not at all, and let all later ones fail."""
    killer = Killer(at)
    kept: dict[tuple[Any, str], Any] = {(os, name): getattr(os, name) for name in CHANGES}
    kept |= {(safetensors.torch, "save_file"): safetensors.torch.save_file, (Path, "write_text"): Path.write_text}
    kept |= {(Path, "open"): Path.open}

    def changed(original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if killer.begin():
                raise Killed
            return original(*arguments, **options)

        return call

    def torn_text(path: Path, text: str, *arguments: Any, **options: Any) -> int:
        dies = killer.begin()
        with builtins.open(path, "w", encoding="utf-8") as file:
            file.write(text[: len(text) // 2] if dies else text)
        if dies:
            raise Killed
        return len(text)

    def torn_tensors(tensors: Any, path: Path, *arguments: Any, **options: Any) -> None:
        dies = killer.begin()
        kept[safetensors.torch, "save_file"](tensors, path, *arguments, **options)
        if dies:
            os.truncate(path, path.stat().st_size // 2)
            raise Killed

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "w" in mode or "a" in mode:
            dies = killer.begin()
            file = builtins.open(path, mode, *arguments, **options)  # noqa: SIM115 - the caller closes it
            if dies:
                file.close()
                raise Killed
            return file
        return kept[Path, "open"](path, mode, *arguments, **options)

    try:
        for (where, name), original in kept.items():
            setattr(where, name, changed(original))
        Path.write_text = torn_text  # type: ignore[assignment,method-assign]
        Path.open = opened  # type: ignore[assignment,method-assign]
        safetensors.torch.save_file = torn_tensors
        yield killer
    except Killed:
        pass
    finally:
        for (where, name), original in kept.items():
            setattr(where, name, original)
