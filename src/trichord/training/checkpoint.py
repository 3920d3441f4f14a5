"""Checkpoints of a stage: written to the side, renamed into place, checked on reading.

`checkpoints/step-00000040/` holds what accelerate saves (model, optimizer, scaler, random states, registered objects)
and `progress.json` with the position. The newest complete one is used; two are kept.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.errors import TrichordError, one_line

if TYPE_CHECKING:
    from accelerate import Accelerator

KEPT = 2


@dataclass(frozen=True)
class Position:
    """Where training goes on: `step` of the stage, which is step `epoch_step` of epoch `epoch` (all 0-based)."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0


def save_checkpoint(accelerator: Accelerator, folder: Path, position: Position) -> Path:
    """Write a checkpoint of everything that `accelerator` holds and remove the oldest ones."""
    final = folder / f"step-{position.step:08d}"
    partial = folder / f".{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(partial / "progress.json", asdict(position))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        for old in complete_checkpoints(folder)[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "progress.json").is_file())


def load_newest(accelerator: Accelerator, folder: Path) -> Position | None:
    """Load the newest checkpoint into what `accelerator` holds. None when there is none."""
    found = complete_checkpoints(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        position = Position(**json.loads((newest / "progress.json").read_text()))
        accelerator.load_state(str(newest))
    except Exception as error:  # whatever a torn file makes its reader raise
        raise TrichordError(
            f"{newest}: the checkpoint cannot be read ({one_line(error)}); delete that folder to go on from the one before"
        ) from error
    return position


def write_json(path: Path, content: object) -> None:
    """Write JSON beside `path` and rename it into place, so that a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
