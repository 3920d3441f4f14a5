"""Settings: bounds of numbers that a user gives, what docstrings say about them, and the settings of training. Free of torch.

NaN and infinity are outside of all bounds.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from trichord.errors import TrichordError

Value = TypeVar("Value")
LARGEST = 1_000_000_000
KEY = "bounds"  # in the metadata of a dataclass field


@dataclass(frozen=True)
class Bounds:
    """The numbers from `least` to `most`.

    Args:
        least: The smallest number that is allowed.
        most: The largest one.
        above: `least` itself is not allowed.
        length: Of a list: how many numbers it has.
    """

    least: float
    most: float = LARGEST
    above: bool = False
    length: int | None = None

    def check(self, name: str, value: object) -> None:
        """Raise TrichordError when a number, or one of a list of numbers, is outside. None is never outside."""
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
DRAW_SEED = Bounds(0, 2**32 - 1)  # of what a benchmark draws: scikit-learn takes no larger one


def bounded(default: Value, least: float, most: float = LARGEST, *, above: bool = False) -> Value:
    """Return a dataclass field with a default and bounds."""
    value: Any = field(default=default, metadata={KEY: Bounds(least, most, above)})
    return value


def bounded_list(default: list[Value], least: float, most: float = LARGEST) -> list[Value]:
    """Return a dataclass field of a list of numbers, as many as its default has."""
    bounds = Bounds(least, most, length=len(default))
    value: Any = field(default_factory=lambda: list(default), metadata={KEY: bounds})
    return value


@dataclass
class TrainingSettings:
    """How a stage is trained: Adam, one loop.

    Args:
        epochs: Passes over the training videos of each stage.
        max_steps: Stop a stage after this many steps; 0 sets no bound.
        learning_rate: Adam's rate.
        schedule: After the warm-up: `cosine` to zero at the last step, or `constant`.
        warmup_steps: Linear warm-up; at most a tenth of the steps is used, so that short runs reach their rate.
        clip_grad_norm: Gradients are scaled down to this norm; 0 leaves them (published).
        precision: `no` (float32), `bf16` or `fp16` for the encoders; losses stay in float32.
        batch_norm: Batch statistics of DAVEnet over the rows of all processes (`global`: several processes train what one
            would), or of each `process` by itself, as DataParallel did for the published model. One process: the same.
        shard: `full`: of what trains, each process keeps a part of weights, gradients and Adam's moments (torch's FSDP2),
            for encoders of which copies do not fit; the same results, more traffic. `none`: each has a copy.
        process_timeout_s: Seconds that a process waits for the others before it gives up.
        checkpoint_every_steps: Steps between checkpoints; 0 writes one at the end of each epoch.
        keep_checkpoints: The newest ones that are kept while a stage trains. All go when it is finished.
        keep_best: As many checkpoints of the lowest mean training loss since the one before stay too, and after the stage;
            `trichord evaluate STAGE/checkpoints/step-N` scores one. No validation data takes part.
        loader_timeout_s: Seconds to wait for a batch; then the file that is being read is named. 0 waits for ever.
        log_every_steps: Steps between two progress lines where there is no terminal.
        tensorboard: Write TensorBoard events beside the JSON lines.
        device: `auto`, or `cpu` to leave a GPU alone.
        frozen_cache: `auto`: what frozen encoders give for every clip is computed once and kept in the store, where a
            stage draws clips more often than there are; `off`: at every step, as often as a clip is drawn.
        frozen_cache_gb: Most gigabytes for what one frozen modality gives; where embeddings take more, the narrower
            output of DAVEnet is kept, or nothing.
        chunk_clips: Clips of one forward pass; a larger batch is encoded in chunks, twice, and the gradient is exact:
            large contrast batches in little memory. 0: the whole batch at once.
        chunk_norm: With chunks, batch norm sees each `chunk` by itself, or its `running` statistics.
        fast: Use the fast paths of DAVEnet and Adam (below float32), k-means and memory, and let the processes divide the
            loss; false takes the plain ones, which give the same to rounding.
    """

    epochs: int = bounded(30, 1)
    max_steps: int = bounded(0, 0)
    learning_rate: float = bounded(1e-4, 0, 1_000_000, above=True)
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
    """Return the first line of a docstring, without its full stop."""
    return (inspect.getdoc(documented) or "").partition("\n")[0].rstrip(".")


def descriptions_of(documented: object) -> dict[str, str]:
    """Return what the docstring of a class or function says about each of its arguments, each text on one line."""
    doc = inspect.getdoc(documented) or ""
    arguments = doc.partition("\nArgs:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
