"""Checkpoints of a stage, from which interrupted training continues with bit-identical results.

A folder such as `checkpoints/step-00000040/` contains `model.safetensors`, `optimizer.safetensors`, `clusters.safetensors`,
`random-0.safetensors` (one file per process), `state.json` (position, parameter groups, schedule, loss scaler), `model.json`
(the description of the model, which lets `trichord evaluate` read the folder) and `checkpoint.json` (the list of the files).

The newest `training.keep_checkpoints` checkpoints are kept, and the `training.keep_best` ones with the lowest mean training loss
since the preceding checkpoint. The training loss is used because the study has no validation split. At the end of the stage,
only the best ones are kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError, one_line
from trichord.files.folders import is_real_folder, remove_folder
from trichord.files.writing import replace_folder
from trichord.logs import main_process_logger
from trichord.training.checkpoint_folder import (
    MANIFEST,
    Damaged,
    check_files,
    read_manifest,
    read_numbers,
    read_tensors,
    seal,
    write_numbers,
    write_tensors,
)
from trichord.training.random_states import fault_of_random_states, random_states, set_random_states
from trichord.training.training_state import Tensors, TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

logger = main_process_logger(__name__)

FOLDER, STATE = "checkpoints", "state.json"
UNUSED = "unused-"  # prefix of the name of a checkpoint that could not be used
FILES = re.compile(  # files of a checkpoint, including those that the first versions wrote with accelerate
    r"(?:[a-z_]+|random-\d+)\.safetensors|(?:state|model|checkpoint|progress)\.json"
    r"|(?:optimizer|scheduler|sampler|dl_state_dict)(?:_\d+)?\.bin|(?:random_states|custom_checkpoint)_\d+\.pkl|scaler\.pt"
)
_CHECKPOINT = re.compile(r"step-\d{8,18}")
_REMAINS = re.compile(r"\.(?:unused-)?step-\d{8,18}\.(?:partial|old)|\.\.step-\d{8,18}\.partial\.old")


@dataclass(frozen=True)
class Position:
    """Position at which training continues.

    Attributes:
        step: Number of steps that the stage has finished.
        epoch: Index of the epoch, starting at 0.
        epoch_step: Number of steps that the epoch has finished.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0


def save_checkpoint(
    accelerator: Accelerator,
    state: TrainingState,
    folder: Path,
    position: Position,
    *,
    mean_loss: float = 0.0,
    keep_last: int = 2,
    keep_best: int = 0,
    description: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint and remove older ones that are no longer needed. All processes call this together.

    Args:
        accelerator: Processes and device.
        state: State of the training, which is written.
        folder: Folder `checkpoints` of the stage.
        position: Position at which training continues from this checkpoint.
        mean_loss: Mean training loss since the preceding checkpoint, which determines the best checkpoints.
        keep_last: Number of newest checkpoints to keep.
        keep_best: Number of checkpoints to keep in addition: those with the lowest `mean_loss`.
        description: Content of `model.json`. None omits the file.

    Returns:
        The folder of the checkpoint.
    """
    final = folder / _name(position.step)
    partial = folder / f".{final.name}.partial"
    tensors, numbers = state.tensors(), state.numbers()
    if accelerator.is_main_process:
        remove_folder(partial, FILES)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    write_tensors(partial / _random(accelerator.process_index), random_states(accelerator.device))
    if accelerator.is_main_process:
        for part, named in tensors.items():
            write_tensors(partial / f"{part}.safetensors", named)
        write_numbers(partial / STATE, {"position": asdict(position), **numbers})
        if description is not None:
            write_numbers(partial / "model.json", description)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        seal(
            partial,
            {
                "stage": folder.parent.name,
                "step": position.step,
                "mean_loss": mean_loss,
                "processes": accelerator.num_processes,
                "parts": sorted(tensors),
            },
        )
        replace_folder(partial, final, FILES)
        _apply_policy(folder, keep_last, keep_best)
    accelerator.wait_for_everyone()
    return final


def load_newest(accelerator: Accelerator, state: TrainingState, folder: Path) -> Position | None:
    """Load the newest complete checkpoint of the stage. All processes call this together.

    A checkpoint that is incomplete, was changed or belongs to another training is renamed with a warning, and the preceding one
    is tried.

    Args:
        accelerator: Processes and device.
        state: State of the training, which is set together with the global random states.
        folder: Folder `checkpoints` of the stage.

    Returns:
        The position at which training continues, or None if there is no usable checkpoint.
    """
    import torch
    from accelerate.utils import broadcast

    step = -1
    if accelerator.is_main_process:
        _clear_remains(folder)
        step = _newest_whole(state, folder)
    shared_step: Tensor = torch.tensor(step, device=accelerator.device)
    step = int(broadcast(shared_step)) if accelerator.num_processes > 1 else step
    if step < 0:
        return None
    path = folder / _name(step)
    manifest = read_manifest(path)
    tensors, numbers, position = _read(path, manifest)
    state.load(tensors, numbers)
    mine = _random(accelerator.process_index)
    if mine in manifest["files"]:
        set_random_states(read_tensors(path / mine), accelerator.device)
    if manifest["processes"] != accelerator.num_processes:
        logger.warning(
            f"{path}: written by {manifest['processes']} processes and continued by {accelerator.num_processes}: "
            "the batches are the same, but sums are rounded differently, and random states of new processes start afresh"
        )
    accelerator.wait_for_everyone()
    return position


def finish_checkpoints(folder: Path, keep_best: int) -> None:
    """Remove the checkpoints of a finished stage except the `keep_best` best ones, and the folder if it is then empty."""
    if not is_real_folder(folder):
        return
    _clear_remains(folder)
    _apply_policy(folder, 0, keep_best)
    for unused in folder.glob(f"{UNUSED}*"):
        if _CHECKPOINT.fullmatch(unused.name.removeprefix(UNUSED)):
            remove_folder(unused, FILES)
    with suppress(OSError):  # the folder is not empty
        folder.rmdir()


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the folders that have the name of a checkpoint, oldest first."""
    entries = folder.iterdir() if os.path.isdir(folder) else ()
    return sorted((path for path in entries if _CHECKPOINT.fullmatch(path.name)), key=_step)


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the lowest mean training loss (the earlier one of equals), or None if there is none."""
    losses = _mean_losses(folder)
    return min(losses, key=lambda path: (losses[path], _step(path)), default=None)


def _newest_whole(state: TrainingState, folder: Path) -> int:
    """Return the step of the newest usable checkpoint, or -1. Unusable ones are renamed."""
    checkpoints = checkpoints_of(folder)
    for path in reversed(checkpoints):
        try:
            manifest = read_manifest(path)
            if manifest.get("stage") != folder.parent.name or manifest.get("step") != _step(path):
                raise Damaged(f"it belongs to stage {manifest.get('stage')}, step {manifest.get('step')}")
            check_files(path, manifest)
            tensors, numbers, _ = _read(path, manifest)
            fault = state.fault(tensors, numbers)
            for process in range(manifest["processes"]):
                fault = fault or fault_of_random_states(read_tensors(path / _random(process)))
            if fault:
                raise Damaged(fault)
        except Damaged as error:
            aside = path.with_name(f"{UNUSED}{path.name}")
            if not remove_folder(aside, FILES):
                raise TrichordError(
                    f"{aside}: contains files that trichord did not write; move it away, then run the command again"
                ) from None
            path.rename(aside)
            logger.warning(f"{path}: the checkpoint cannot be used ({one_line(error)}); it was renamed to {aside.name}")
            continue
        if path != checkpoints[-1]:
            logger.warning(f"{path}: training continues from this checkpoint, the newest complete one")
        return _step(path)
    if checkpoints:
        logger.warning(f"{folder}: no checkpoint can be used; the stage starts from the beginning")
    return -1


def _read(path: Path, manifest: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any], Position]:
    parts, processes = manifest.get("parts"), manifest.get("processes")
    if not isinstance(parts, list) or not isinstance(processes, int) or processes < 1:
        raise Damaged(f"{MANIFEST} has no valid list of parts")
    wanted = [*(f"{part}.safetensors" for part in parts), STATE, *map(_random, range(processes))]
    if lacking := [name for name in wanted if name not in manifest["files"]]:
        raise Damaged(f"{MANIFEST} does not list {lacking[0]}")
    tensors = {part: read_tensors(path / f"{part}.safetensors") for part in parts}
    numbers = read_numbers(path / STATE)
    position = numbers.pop("position", None)
    names = [field.name for field in fields(Position)]
    if (
        not isinstance(position, dict)
        or set(position) != set(names)
        or not all(type(position[n]) is int for n in names)
    ):
        raise Damaged("its position is invalid")
    position = Position(**position)
    if min(asdict(position).values()) < 0 or position.step != manifest["step"]:
        raise Damaged(f"its position is {position}")
    return tensors, numbers, position


def _apply_policy(folder: Path, keep_last: int, keep_best: int) -> None:
    losses = _mean_losses(folder)
    kept = set(list(losses)[len(losses) - keep_last :] if keep_last else [])
    kept |= set(sorted(losses, key=lambda path: (losses[path], _step(path)))[:keep_best])
    for path in checkpoints_of(folder):
        if path not in kept:
            remove_folder(path, FILES)


def _mean_losses(folder: Path) -> dict[Path, float]:
    """Return the mean loss of each checkpoint, oldest first, except those with a damaged list."""
    losses = {}
    for path in checkpoints_of(folder):
        try:
            losses[path] = float(read_manifest(path)["mean_loss"])
        except (Damaged, KeyError, TypeError, ValueError):
            continue
    return losses


def _clear_remains(folder: Path) -> None:
    """Remove partial folders that killed processes left behind."""
    for path in folder.iterdir() if is_real_folder(folder) else ():
        if _REMAINS.fullmatch(path.name):
            remove_folder(path, FILES)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.partition("-")[2])


def _random(process: int) -> str:
    return f"random-{process}.safetensors"
