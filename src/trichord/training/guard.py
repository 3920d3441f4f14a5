"""The guard that stops training before a loss or gradient that is not finite changes the weights.

Each process checks its own values, and all processes exchange a flag, so either all of them stop or none. The cost per step is
one synchronisation, two small exchanges if there are several processes, and a copy of the buffers (running statistics), which
the forward pass changes. The step is saved by `training.divergence`, and the error names the inputs that were not finite.

With fp16, the loss scaler skips a step with an infinite gradient and halves its scale. At a scale of 1 or below, an infinite
gradient is not caused by the scale and stops the training, too.
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
LEAST_TEMPERATURE = 1e-3  # a smaller one makes scores too large for float32


class Guard:
    """Checks every step of a stage.

    Args:
        accelerator: Processes, and the loss scaler of fp16.
        model: Network, not wrapped for several processes.
        stage: Stage that is trained.
        loss: Loss of the stage.
        reader: Reader of the training clips.
        folder: Folder of the stage, in which `divergence/` is written.
        described: Further content of the description of a diverged step: `settings` (the recipe) and `seed`.
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
        ] = {}  # copies and buffers by data type, which are copied in one call
        for name, buffer in model.named_buffers():
            for tensors, tensor in zip(
                self._copied.setdefault(buffer.dtype, ([], [])), (self._kept[name], buffer), strict=True
            ):
                tensors.append(tensor)

    def begin(self, position: Position, batch: Batch, inputs: Mapping[str, Tensor]) -> None:
        """Save the buffers at the begin of a step. Call this before the forward pass.

        Args:
            position: Position of the step.
            batch: Batch of this process.
            inputs: Inputs of the network, as returned by `batch.model_inputs`.
        """
        self._position, self._batch, self._inputs = position, batch, inputs
        for kept, buffers in self._copied.values():
            torch._foreach_copy_(kept, buffers)

    def check_loss(self, terms: Mapping[str, Tensor]) -> None:
        """Check that the loss is finite on every process. Call this before the backward pass.

        Args:
            terms: The loss under the key `loss`, and its terms.

        Raises:
            Diverged: The loss is not finite on at least one process.
        """
        self._terms = terms
        if on_any_process(not bool(torch.isfinite(terms["loss"]))):
            bad = [name for name, term in terms.items() if name != "loss" and not bool(torch.isfinite(term))]
            self._stop("loss", f"the loss is not finite ({', '.join(bad) or 'the sum of its terms'})", None)

    def check_gradient(self, norm: float) -> None:
        """Check that the gradient is finite on every process. Call this before the step of the optimizer.

        Args:
            norm: Norm of the gradient.

        Raises:
            Diverged: The norm is not finite on at least one process, and the loss scaler cannot correct this.
        """
        if not on_any_process(not math.isfinite(norm)):
            return
        scaler = self.accelerator.scaler
        if scaler is None:
            self._stop("gradient", "the gradient is not finite", norm)
        elif scaler.get_scale() <= LEAST_SCALE:
            self._stop("gradient", f"the gradient is not finite even with a loss scale of {scaler.get_scale():g}", norm)

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
            f"the step could not be saved ({problem})" if problem else f"`trichord reproduce {dump}` repeats the step"
        )
        raise Diverged(
            f"stage {self.stage.chain}, step {self._position.step + 1}: {what}; the weights were not changed: "
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
            return f"the features of {bad[0]}{more} contain NaN or infinity; `trichord store verify {store}` explains what to do"
        temperature = self._temperature()
        if temperature is not None and temperature < LEAST_TEMPERATURE:
            return f"raise loss.temperature, by which scores are divided: it is {temperature:g}, usual values are 0.01 to 1"
        return "lower training.learning_rate" + (", or check the features of the batch" if kind == "loss" else "")
