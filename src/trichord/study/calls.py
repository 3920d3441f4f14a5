"""Who trained a stage: a record of every call that did a part of it, with its versions, machine and number of processes.

While a stage is trained they lie in `stages/X/calls.json`; when it is finished its `model.json` holds them. A stage that was
stopped and went on elsewhere has several.
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
    """Note in a stage's folder that this call trains it from now on."""
    call = {"begun": _now(), "versions": versions(), "machine": machine(recipe)}
    write_json(folder / CALLS, [*calls_of(folder), call])


def end_call(folder: Path, num_steps: int, seconds: float) -> list[dict[str, Any]]:
    """The calls of a stage that this call finished, for its `model.json`.

    Args:
        folder: Of the stage.
        num_steps: That this call did.
        seconds: That this call spent on the stage, passes of frozen encoders included.
    """
    calls = calls_of(folder)
    if calls:
        calls[-1] |= {"ended": _now(), "steps": num_steps, "seconds": round(seconds, 3)}
    return calls


def calls_of(folder: Path) -> list[dict[str, Any]]:
    """The calls noted so far; those of a damaged file are lost, which stops no training."""
    if not is_there(folder / CALLS):
        return []
    try:
        calls = read_json(folder / CALLS, list)
    except TrichordError:
        return []
    return calls if all(is_call(call) for call in calls) else []


def is_call(call: object) -> bool:
    """Whether a record tells when, with which versions and on which machine."""
    return (
        isinstance(call, dict)
        and isinstance(call.get("begun"), str)
        and isinstance(call.get("versions"), dict)
        and isinstance(call.get("machine"), dict)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
