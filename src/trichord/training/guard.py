"""Stops a step whose loss or gradient is not finite, before the weights are touched, on all processes alike.

Each process looks at its own values and all exchange one flag: none steps alone, and none waits for one that stopped. The
cost is one synchronisation a step, two small exchanges where there are several processes, and a copy of the buffers (running
statistics), which the forward pass moves. What it finds is written down (`training.divergence`), and the error names the
input that was bad, if one was.

With fp16 an infinite gradient is the scaler's affair: it leaves the step out and halves its scale. Below a scale of 1 there
is nothing left to halve, so an infinite gradient there stops the training too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trichord.data.reader import Batch, ClipReader
from trichord.errors import Diverged
from trichord.losses.combined import CombinedLoss
from trichord.modality import further_letters
from trichord.nn import MCN
from trichord.parallel import on_any_process
from trichord.training.checkpoint import Position
from trichord.training.divergence import FOLDER, BadInput, write_dump
from trichord.training.stage import Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

LEAST_SCALE = 1.0
LEAST_TEMPERATURE = 1e-3  # below it scores leave what floats tell apart


class Guard:
    """Looks at every step of a stage.

    Args:
        accelerator: Knows the processes, and the scaler of fp16.
        model: As it was before it was wrapped for several processes.
        stage, loss, reader: Of the stage.
        folder: Of the stage; gets `divergence/`.
        described: What a reproduction needs beside that: `settings` (the recipe), `seed`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: MCN,
        stage: Stage,
        loss: CombinedLoss,
        reader: ClipReader,
        folder: Path,
        described: Mapping[str, Any],
    ) -> None:
        self.accelerator, self.model, self.stage, self.loss = accelerator, model, stage, loss
        self.reader, self.folder, self.described = reader, folder, described
        self._kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._copied: dict[
            torch.dtype, tuple[list[Tensor], list[Tensor]]
        ] = {}  # of each kind at once: copies and buffers
        for name, buffer in model.named_buffers():
            for tensors, tensor in zip(
                self._copied.setdefault(buffer.dtype, ([], [])), (self._kept[name], buffer), strict=True
            ):
                tensors.append(tensor)

    def begin(self, position: Position, batch: Batch, inputs: Mapping[str, Tensor]) -> None:
        """A step begins: call it before the forward pass."""
        self._position, self._batch, self._inputs = position, batch, inputs
        for kept, buffers in self._copied.values():
            torch._foreach_copy_(kept, buffers)

    def check_loss(self, terms: Mapping[str, Tensor]) -> None:
        """Raises Diverged unless the loss is finite on every process; call it before the backward pass."""
        self._terms = terms
        if on_any_process(not bool(torch.isfinite(terms["loss"]))):
            bad = [name for name, term in terms.items() if name != "loss" and not bool(torch.isfinite(term))]
            self._stop("loss", f"the loss is not finite ({', '.join(bad) or 'their sum'})", None)

    def check_gradient(self, norm: float) -> None:
        """Raises Diverged unless the gradient's norm is finite on every process; call it before the optimizer's step."""
        if not on_any_process(not math.isfinite(norm)):
            return
        scaler = self.accelerator.scaler
        if scaler is None:
            self._stop("gradient", "the gradient is not finite", norm)
        elif scaler.get_scale() <= LEAST_SCALE:
            self._stop("gradient", f"the gradient is not finite even at the loss scale {scaler.get_scale():g}", norm)

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.model.state_dict().items():
            yield name, self._kept.get(name, tensor)

    def _stop(self, kind: str, what: str, norm: float | None) -> None:
        scaler, memory = self.accelerator.scaler, self.loss.memory
        described = {
            "kind": kind,
            "stage": self.stage.to_dict(),
            "step": self._position.step,
            "epoch": self._position.epoch,
            "epoch_step": self._position.epoch_step,
            "num_processes": self.accelerator.num_processes,
            "terms": {name: str(float(term.detach())) for name, term in self._terms.items()},  # JSON knows no NaN
            "grad_norm": None if norm is None else str(norm),
            "loss_scale": 1.0 if scaler is None else scaler.get_scale(),
            "model": self.model.arguments,
            "modalities": further_letters(self.model.modalities),
            "store": {"path": str(self.reader.store.path), "fingerprint": self.reader.store.fingerprint},
            **self.described,
        }
        bad, problem = write_dump(
            self.folder,
            self.accelerator,
            described=described,
            state=self._state(),
            memory=None if memory is None else memory.state_dict(),
            batch=self._batch,
            inputs=self._inputs,
            reader=self.reader,
        )
        dump = self.folder / FOLDER
        advice = (
            f"the step could not be written down ({problem})"
            if problem
            else f"`trichord reproduce {dump}` shows it again"
        )
        raise Diverged(
            f"stage {self.stage.chain}, step {self._position.step + 1}: {what}; the weights were not touched: "
            f"{self._advice(kind, bad)}; {advice}"
        )

    def _temperature(self) -> float | None:
        settings = self.described.get("settings")
        loss = settings.get("loss") if isinstance(settings, Mapping) else None
        value = loss.get("temperature") if isinstance(loss, Mapping) else None
        return float(value) if isinstance(value, int | float) else None

    def _advice(self, kind: str, bad: list[BadInput]) -> str:
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            store = self.reader.store.path
            return (
                f"the features of {bad[0]}{more} hold NaN or infinity; `trichord store verify {store}` says what to do"
            )
        temperature = self._temperature()
        if temperature is not None and temperature < LEAST_TEMPERATURE:
            return f"raise loss.temperature, by which scores are divided: it is {temperature:g}, usual are 0.01 to 1"
        return "lower training.learning_rate" + (", or look at the batch's features" if kind == "loss" else "")
