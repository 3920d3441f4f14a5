"""JSON files with a digest of their content, which reveals changes. The last entry, `sha256`, is the digest of all other entries.

Files of early versions have no digest and are read without this check.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"

_EXPORTED = "config.json"  # file next to the weights of a model that `trichord export-model` wrote


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with its digest as the last entry."""
    return {**content, SEAL: digest(content)}


def was_changed(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a file was changed after it was written. Content without a digest counts as unchanged."""
    if SEAL not in content:
        return False
    expected = digest({key: value for key, value in content.items() if key != SEAL})
    return not expected or content[SEAL] != expected


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content, independent of the order of keys, or '' if it is nested too deeply."""
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError:
        return ""


def again(folder: Path) -> str:
    """Return the advice for a damaged model. An exported model cannot be trained again from its folder."""
    exported = (folder / _EXPORTED).is_file()
    return "get the model again, or export it again" if exported else "train the stage again"
