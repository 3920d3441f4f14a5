"""The log of a stage: a progress bar or plain lines, JSON lines in `metrics.jsonl`, and optionally TensorBoard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from trichord.files.reading import read_text
from trichord.files.writing import open_itself, sync, write_text
from trichord.logs import main_process_logger, on_terminal

logger = main_process_logger(__name__)


class StageLog:
    """Log of a stage, which only the main process writes.

    Args:
        folder: Folder of the stage, in which `metrics.jsonl` and `tensorboard/` are written.
        title: Start of each line, such as `AV→T 2/2`.
        num_steps: Number of steps of the whole stage.
        first_step: Number of steps that are already done. Lines of later steps, which an interrupted run wrote, are removed from
            `metrics.jsonl`.
        log_every_steps: Number of steps between two plain lines, which are printed where there is no terminal.
        tensorboard: Whether to write events for TensorBoard.
        enabled: Whether to log. False on all processes except the main process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        num_steps: int,
        first_step: int = 0,
        log_every_steps: int = 20,
        tensorboard: bool = True,
        enabled: bool = True,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.title, self.num_steps, self.first_step = title, num_steps, first_step
        self.log_every_steps, self.enabled = log_every_steps, enabled
        self.started, self.earlier_s, self.clips = time.monotonic(), 0.0, 0
        self.writer: Any = None
        self.bar: Progress | None = None
        if not enabled:
            return
        self.earlier_s = cut_lines(self.path, first_step)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        if on_terminal():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self.bar = Progress(
                *columns,
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(),
            )
            self.task = self.bar.add_task(title, total=num_steps, completed=first_step, note="")
            self.bar.start()

    def __enter__(self) -> StageLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.writer is not None:
            self.writer.close()

    def sync(self) -> None:
        """Flush `metrics.jsonl` to disk, so that it contains all steps up to the checkpoint that is written next."""
        if self.enabled and self.path.exists():
            sync(self.path)

    def step(self, step: int, epoch: int, values: dict[str, float], num_clips: int) -> None:
        """Log a finished step.

        Args:
            step: Index of the step in the stage, starting at 0.
            epoch: Index of the epoch, starting at 0.
            values: Values to log by name. `loss` is required.
            num_clips: Number of clips of the step in all processes.
        """
        if not self.enabled:
            return
        self.clips += num_clips
        seconds = time.monotonic() - self.started
        total_s = round(self.earlier_s + seconds, 3)
        with open(self.path, "a", encoding="utf-8", opener=open_itself) as lines:
            lines.write(
                json.dumps({"step": step, "epoch": epoch, "clips": num_clips, "seconds": total_s, **values}) + "\n"
            )
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        done = step + 1 - self.first_step
        rate = self.clips / max(seconds, 1e-9)
        note = f"loss {values['loss']:.3f}  {rate:.0f} clips/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=step + 1, note=note)
        elif (step + 1) % self.log_every_steps == 0 or step + 1 == self.num_steps:
            left_s = seconds / done * (self.num_steps - step - 1)
            logger.info(
                f"{self.title}  epoch {epoch + 1}  step {step + 1}/{self.num_steps}  {note}  {clock(left_s)} left"
            )


def cut_lines(path: Path, num_steps: int) -> float:
    """Remove the lines of steps that a resumed run repeats, and an incomplete last line.

    Args:
        path: The file `metrics.jsonl`.
        num_steps: Number of steps to keep.

    Returns:
        The training time of the steps that are kept, in seconds.
    """
    if not path.is_file():
        return 0.0
    kept, seconds = [], 0.0
    for line in read_text(path, errors="replace").splitlines():
        try:
            values = json.loads(line)
            if values["step"] < num_steps:
                kept.append(line)
                seconds = float(values.get("seconds", 0.0))
        except (ValueError, KeyError, TypeError, RecursionError, ArithmeticError):
            break
    write_text(path, "".join(f"{line}\n" for line in kept))
    return seconds


def clock(seconds: float) -> str:
    """Format a duration: 75 gives `1:15`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
