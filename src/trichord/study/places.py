"""A check that a stage folder contains the stage that belongs there.

The folder `av-t.seed0.1a2b3c4d` belongs to order `av>t`, seed 0 and the key that begins with `1a2b3c4d`. A user may have copied a
complete model of another stage there, whose figures would then be reported for the wrong order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.study.files import deleting, is_there, read_json
from trichord.study.plan import PlannedStage
from trichord.training.checkpoint import FOLDER as CHECKPOINTS
from trichord.training.models import DESCRIPTION

_NAME = re.compile(r"([a-z]+(?:-[a-z]+)*)\.seed([0-9]+)\.([0-9a-f]{8})")
Identity = tuple[str, int, str]  # chain, seed, and key or the beginning of a key


def identity_of(stage: PlannedStage) -> Identity:
    """Return the identity of a planned stage, which the model in its folder must have."""
    return stage.stage.chain, stage.seed, stage.key


def identity_of_entry(entry: Mapping[str, Any]) -> Identity | None:
    """Return the identity of a stage of `study.json`, or None if an early version did not record it."""
    chain, seed, key = (entry.get(part) for part in ("chain", "seed", "key"))
    return (str(chain), int(seed), str(key)) if chain is not None and seed is not None and key is not None else None


def check_stage(model: Path, expected: Identity | None = None) -> None:
    """Check that a model belongs to the stage of its folder. Values that an early version did not record are not compared.

    Args:
        model: Folder of a stage, one of its checkpoints, or a file of either. Nothing is checked if there is no description, or
            if neither `expected` nor the name of the folder defines an identity.
        expected: Identity of the stage. None takes it from the name of the folder.

    Raises:
        TrichordError: The folder contains the model of another stage, or its description cannot be read.
    """
    folder = Path(os.path.abspath(model.parent if is_there(model) else model))
    stage_folder = folder.parent.parent if folder.parent.name == CHECKPOINTS else folder
    expected = expected or _identity_of_name(stage_folder.name)
    if expected is not None and is_there(folder / DESCRIPTION):
        check_described(stage_folder, read_json(folder / DESCRIPTION, mend=deleting(stage_folder)), expected)


def check_described(folder: Path, described: Mapping[str, Any], expected: Identity | None = None) -> None:
    """Check a model like `check_stage`, with a description that has already been read.

    Args:
        folder: Folder of the stage.
        described: Content of the description, or of a dump with the same entries.
        expected: Identity of the stage. None takes it from the name of the folder.

    Raises:
        TrichordError: The folder contains the model of another stage.
    """
    expected = expected or _identity_of_name(folder.name)
    if expected is None:
        return
    chain, seed, key = expected
    wanted: dict[str, object] = {"stage": chain, "seed": seed}
    differs = any(described.get(part, value) != value for part, value in wanted.items())
    if differs or not str(described.get("key", key)).startswith(key):
        raise TrichordError(
            f"{folder}: contains a model of {_text_of(described.get('stage'), described.get('seed'), described.get('key'))} "
            f"instead of {_text_of(chain, seed, key)}; move the folder away, and run the study or `trichord train --resume` "
            "again to train this stage again"
        )


def _identity_of_name(name: str) -> Identity | None:
    match = _NAME.fullmatch(name)
    return (match[1].replace("-", ">"), int(match[2]), match[3]) if match else None


def _text_of(chain: object, seed: object, key: object) -> str:
    parts = [f"stage {one_line(chain)[:20]}" if chain is not None else "an unknown stage"]
    parts += [f"seed {one_line(seed)[:20]}"] if seed is not None else []
    parts += [f"key {one_line(key)[:8]}"] if key is not None else []
    return ", ".join(parts)
