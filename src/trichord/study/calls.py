"""Records of the calls that trained a stage, each with versions, machine and number of processes.

They are in `stages/X/calls.json` during the training, and in `model.json` afterwards. A stage that was interrupted and continued
has several calls.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError
from trichord.files.writing import write_json
from trichord.recipes import Recipe
from trichord.study.files import is_there, read_json
from trichord.study.folder import machine, versions

CALLS = "calls.json"


def begin_call(folder: Path, recipe: Recipe) -> None:
    """Record in the folder of a stage that this call has started to train it."""
    call = {"begun": _now(), "versions": versions(), "machine": machine(recipe)}
    write_json(folder / CALLS, [*calls_of(folder), call])


def end_call(folder: Path, num_steps: int, seconds: float) -> list[dict[str, Any]]:
    """Return the calls of a stage that this call finished, for its `model.json`.

    Args:
        folder: Folder of the stage.
        num_steps: Number of steps of this call.
        seconds: Time that this call spent on the stage, including the forward passes of frozen encoders.
    """
    calls = calls_of(folder)
    if calls:
        calls[-1] |= {"ended": _now(), "steps": num_steps, "seconds": round(seconds, 3)}
    return calls


def calls_of(folder: Path) -> list[dict[str, Any]]:
    """Return the calls recorded so far. A damaged file counts as empty, so that training can continue."""
    if not is_there(folder / CALLS):
        return []
    try:
        calls = read_json(folder / CALLS, list)
    except TrichordError:
        return []
    return calls if all(is_call(call) for call in calls) else []


def is_call(call: object) -> bool:
    """Return whether a record has the time, versions and machine of a call."""
    return (
        isinstance(call, dict)
        and isinstance(call.get("begun"), str)
        and isinstance(call.get("versions"), dict)
        and isinstance(call.get("machine"), dict)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
