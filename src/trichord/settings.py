"""Bounds of numeric settings, the descriptions of settings that docstrings give, and the settings of training.

NaN and infinity lie outside all bounds. This module does not import torch.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from trichord.errors import TrichordError

Value = TypeVar("Value")
ByName = float | dict[str, float]  # one number for all, or numbers by the name of a modality or pair
LARGEST = 1_000_000_000
KEY = "bounds"  # in the metadata of a dataclass field


@dataclass(frozen=True)
class Bounds:
    """The range of numbers that a setting allows.

    Args:
        least: The smallest allowed number.
        most: The largest allowed number.
        above: Whether `least` itself is excluded.
        length: The length that a list of numbers must have; None allows any length.
    """

    least: float
    most: float = LARGEST
    above: bool = False
    length: int | None = None

    def check(self, name: str, value: object) -> None:
        """Check that a number, or each number of a list or dictionary, lies within the bounds. None always passes.

        Args:
            name: The name of the setting, for the error message.
            value: The value to check.

        Raises:
            TrichordError: A number lies outside the bounds, or the list has another length.
        """
        if isinstance(value, dict):
            for key, number in value.items():
                self.check(f"{name}.{key}", number)
            return
        if isinstance(value, list):
            if self.length is not None and len(value) != self.length:
                raise TrichordError(f"{name} is {value}; it must be a list of {self.length} numbers")
            wrong = any(self._is_outside(number) for number in value)
        else:
            wrong = self._is_outside(value)
        if wrong:
            subject = "each number" if isinstance(value, list) else "it"
            raise TrichordError(f"{name} is {value}; {subject} must be {self}")

    def __str__(self) -> str:
        least, most = _text(self.least), _text(self.most)
        if self.above:
            return f"above {least}, and at most {most}"
        return f"at least {least}, and at most {most}"

    def _is_outside(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        inside = self.least < value <= self.most if self.above else self.least <= value <= self.most
        return not inside  # also for NaN


SEED = Bounds(0, 2**63 - 1)
DRAW_SEED = Bounds(0, 2**32 - 1)  # for benchmarks that sample; scikit-learn accepts no larger seed


def bounded(default: Value, least: float, most: float = LARGEST, *, above: bool = False) -> Value:
    """Return a dataclass field with a default and bounds for its value.

    Args:
        default: The default value of the field.
        least: The smallest allowed value.
        most: The largest allowed value.
        above: Whether `least` itself is excluded.
    """
    value: Any = field(default=default, metadata={KEY: Bounds(least, most, above)})
    return value


def bounded_list(default: list[Value], least: float, most: float = LARGEST) -> list[Value]:
    """Return a dataclass field that holds a list of bounded numbers of the same length as its default."""
    bounds = Bounds(least, most, length=len(default))
    value: Any = field(default_factory=lambda: list(default), metadata={KEY: bounds})
    return value


def number_for(setting: ByName, name: str, default: float = 0.0) -> float:
    """Return the number for a modality or pair.

    Args:
        setting: One number for all, or a dictionary of numbers.
        name: Name of the modality or pair.
        default: Number of a name that the dictionary lacks.

    Example:
        >>> from trichord.settings import number_for
        >>> number_for(0.1, "video"), number_for({"text": 0.1}, "video"), number_for({"text": 0.1}, "text")
        (0.1, 0.0, 0.1)
    """
    return setting.get(name, default) if isinstance(setting, dict) else setting


@dataclass
class TrainingSettings:
    """Settings of the training of each stage, with the optimizer Adam.

    Args:
        epochs: Number of passes over the training videos in each stage.
        max_steps: Largest number of steps of a stage; 0 for no limit.
        learning_rate: Learning rate of Adam.
        weight_decay: Weight decay of the weights of encoders and reconstruction heads, without biases and norms. Above 0, the
            optimizer is AdamW. A number for all modalities, or numbers by modality, such as `{video: 0.1, text: 0.01}`.
        select: Weights that are the result of a stage: those after the `last` epoch, or after the `best` epoch by the mean
            log-likelihood of validation clips (`data.val_split`), which are scored once an epoch.
        schedule: Learning rate after the warm-up: `cosine` decays to zero at the last step, `constant` does not change.
        warmup_steps: Number of steps of linear warm-up; at most a tenth of all steps is used, so that short runs reach the full
            rate.
        clip_grad_norm: Largest norm of the gradients, which are scaled down to it; 0 disables clipping (published).
        precision: Precision of the encoders: `no` (float32), `bf16` or `fp16`; losses are always computed in float32.
        batch_norm: Batch statistics of DAVEnet are computed over the rows of all processes (`global`, equal to training in a
            single process), or by each `process` separately, as DataParallel did for the published model. No effect with one
            process.
        shard: `full` divides the trained weights, gradients and Adam moments among the processes (FSDP2 of torch), for encoders
            that do not fit on a device; the results are the same, but more data is exchanged. `none` keeps a copy in every
            process.
        process_timeout_s: Number of seconds that a process waits for the others before it stops with an error.
        checkpoint_every_steps: Number of steps between checkpoints; 0 writes one at the end of each epoch.
        keep_checkpoints: Number of recent checkpoints to keep while a stage trains. They are deleted when the stage is finished.
        keep_best: Number of additional checkpoints to keep, also after the stage: those with the lowest mean training loss since
            the previous checkpoint. `trichord evaluate STAGE/checkpoints/step-N` scores a checkpoint. No validation data is used.
        loader_timeout_s: Number of seconds to wait for a batch before an error names the file that is being read; 0 for no limit.
        log_every_steps: Number of steps between two progress lines if the output is not a terminal.
        tensorboard: Whether to write TensorBoard events in addition to the JSON lines.
        device: `auto` uses a GPU if there is one; `cpu` never uses it.
        frozen_cache: `auto` computes the outputs of frozen encoders once per clip and saves them in the store, if a stage draws
            clips more often than once on average; `off` computes them whenever a clip is drawn.
        frozen_cache_gb: Largest size in gigabytes of the saved outputs of one frozen modality. If the embeddings are larger, the
            narrower output of DAVEnet is saved, or nothing.
        chunk_clips: Number of clips in a forward pass; larger batches are encoded in chunks, twice, with exact gradients, so that
            large contrastive batches need little memory. 0 encodes the whole batch at once.
        chunk_norm: With chunks, batch norm uses the statistics of each `chunk` or its `running` statistics.
        fast: Whether to use the optimized implementations of DAVEnet, k-means, Adam (below float32) and memory, and to divide the
            loss among processes; false uses the reference implementations, whose results are equal up to rounding.
    """

    epochs: int = bounded(30, 1)
    max_steps: int = bounded(0, 0)
    learning_rate: float = bounded(1e-4, 0, 1_000_000, above=True)
    weight_decay: ByName = bounded(0.0, 0, 1_000)
    select: Literal["last", "best"] = "last"
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = bounded(5000, 0)
    clip_grad_norm: float = bounded(0.0, 0)
    precision: Literal["no", "bf16", "fp16"] = "no"
    batch_norm: Literal["global", "process"] = "global"
    shard: Literal["none", "full"] = "none"
    process_timeout_s: int = bounded(1800, 1)
    checkpoint_every_steps: int = bounded(0, 0)
    keep_checkpoints: int = bounded(2, 1)
    keep_best: int = bounded(0, 0)
    loader_timeout_s: float = bounded(300.0, 0)
    log_every_steps: int = bounded(20, 1)
    tensorboard: bool = True
    device: Literal["auto", "cpu"] = "auto"
    frozen_cache: Literal["auto", "off"] = "auto"
    frozen_cache_gb: float = bounded(20.0, 0)
    chunk_clips: int = bounded(0, 0)
    chunk_norm: Literal["chunk", "running"] = "chunk"
    fast: bool = True


def _text(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def summary_of(documented: object) -> str:
    """Return the first line of a docstring without its final period."""
    return (inspect.getdoc(documented) or "").partition("\n")[0].rstrip(".")


def descriptions_of(documented: object) -> dict[str, str]:
    """Return the description of each argument in the docstring of a class or function, each on one line."""
    doc = inspect.getdoc(documented) or ""
    arguments = doc.partition("\nArgs:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
