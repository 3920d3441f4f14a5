"""JSON files that tell when they were changed: the last entry, `sha256`, is the digest of all others.

Files written by earlier versions have none; they are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"

_EXPORTED = "config.json"  # lies beside the weights of a model that `trichord export-model` wrote


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its digest, as it is written to a file."""
    return {**content, SEAL: digest(content)}


def was_changed(content: Mapping[str, Any]) -> bool:
    """Whether what was read from a file is not what was written; False where it has no digest."""
    if SEAL not in content:
        return False
    expected = digest({key: value for key, value in content.items() if key != SEAL})
    return not expected or content[SEAL] != expected


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content, whatever the order of its keys; '' for JSON nested too deeply to be ours."""
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError:
        return ""


def again(folder: Path) -> str:
    """What to do about a damaged model: one that was exported was not trained here."""
    exported = (folder / _EXPORTED).is_file()
    return "get the model again, or export it again" if exported else "train the stage again"
