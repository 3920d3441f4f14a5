"""What a stage says while it trains: a progress bar or plain lines, JSON lines always, TensorBoard if wanted."""

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
    """Progress of one stage, on the main process only (`enabled`).

    Args:
        folder: Of the stage; gets `metrics.jsonl` and `tensorboard/`.
        title: Printed in front, e.g. `AV→T 2/2`.
        num_steps: Steps of the whole stage.
        first_step: Steps already done; later lines of an interrupted run are cut from `metrics.jsonl`.
        log_every_steps: Distance of plain lines, where there is no terminal.
        tensorboard: Write events.
        enabled: False on all processes but one.
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
        """Bring the lines so far to the disk: a checkpoint that is there must not know of steps that they lack."""
        if self.enabled and self.path.exists():
            sync(self.path)

    def step(self, step: int, epoch: int, values: dict[str, float], num_clips: int) -> None:
        """Record step `step` (0-based), just finished; `num_clips` are those of all processes."""
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
    """Drop the lines of steps that a resumed run does again, and a torn last line. Returns the seconds spent until then."""
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
    """75 -> '1:15'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
