"""What made the features of a store: a file in its folder with the fingerprint of each stream's encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.features.encoders import Fingerprint
from trichord.store import Store

ENCODERS_FILE = "encoders.json"  # stream -> Fingerprint.to_dict()


def read_encoders(store: Path) -> dict[str, dict[str, Any]]:
    """Stream -> fingerprint as recorded. Raises TrichordError when the record is damaged."""
    path = store / ENCODERS_FILE
    try:
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {stream: _whole(entry) for stream, entry in recorded.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); restore it or use another store") from None


def _whole(entry: object) -> dict[str, Any]:
    """An early version recorded one line of text."""
    if isinstance(entry, str):
        return {"name": entry, "digest": entry}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "digest")):
        raise ValueError("an entry has no name and digest")
    return entry


def check_encoders(store: Path, existing: Store, streams: Mapping[str, Fingerprint]) -> list[str]:
    """Notes on features of unknown origin. Raises TrichordError if another encoder made the features of the store."""
    recorded, notes = read_encoders(store), []
    for stream, fingerprint in streams.items():
        if stream not in existing.streams:
            continue
        if stream not in recorded:
            notes.append(f"{store}: what made its {stream} features is not recorded; only their width is compared")
        elif recorded[stream]["digest"] != fingerprint.digest:
            raise TrichordError(
                f"{store}: its {stream} features were made by {recorded[stream]['name']} "
                f"({recorded[stream]['digest']}), these would be by {fingerprint.name} ({fingerprint.digest}); "
                "use the same encoder and weights, or another store"
            )
    return notes


def write_encoders(store: Path, streams: Mapping[str, Fingerprint]) -> None:
    """Record what makes the store's features; entries of other streams are kept."""
    recorded = read_encoders(store)
    fresh = {**recorded, **{stream: fingerprint.to_dict() for stream, fingerprint in streams.items()}}
    if fresh == recorded:
        return
    path = store / ENCODERS_FILE
    partial_path = path.with_name(f".{ENCODERS_FILE}.{os.getpid()}.tmp")
    partial_path.write_text(json.dumps(fresh, indent=2) + "\n", encoding="utf-8")
    os.replace(partial_path, path)
