"""What made the features of a store: a file in its folder with the fingerprint of each stream's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.files.reading import read_json_value
from trichord.store.names import ENCODERS


def read_encoders(store: Path) -> dict[str, dict[str, Any]]:
    """Stream -> fingerprint as recorded. Raises TrichordError when the record is damaged."""
    path = store / ENCODERS
    try:
        recorded = read_json_value(path) if path.is_file() else {}
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
