"""What made the features of a store: a file in its folder with the fingerprint of each stream's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.files.reading import read_json_value
from trichord.modality import MODALITIES, declare_recorded
from trichord.store.names import ENCODERS

ARRAYS = (
    "arrays"  # name in the record of a stream that was made from feature arrays; its parameters are modality and letter
)


def read_encoders(store: Path) -> dict[str, dict[str, Any]]:
    """Stream -> fingerprint as recorded. Raises TrichordError when the record is damaged."""
    path = store / ENCODERS
    try:
        recorded = read_json_value(path) if path.is_file() else {}
        return {stream: _whole(entry) for stream, entry in recorded.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); restore it or use another store") from None


def declare_modalities(store: Path) -> dict[str, str]:
    """Declare the modalities beyond video, audio and text that the store records, and return their names and letters.

    Raises TrichordError when the record is damaged, or a name or letter stands for another modality already.
    """
    recorded = {
        stream: entry.get("parameters") for stream, entry in read_encoders(store).items() if entry["name"] == ARRAYS
    }
    modalities: dict[str, str] = {}
    for stream, parameters in recorded.items():
        if stream in MODALITIES or not isinstance(parameters, dict) or parameters.get("modality") != stream:
            raise TrichordError(
                f"{store / ENCODERS}: does not record the modality of the stream {one_line(stream)[:40]}; restore the file"
            )
        modalities[stream] = parameters.get("letter", "")
    declare_recorded(modalities, store / ENCODERS)
    return {name: letter.lower() for name, letter in modalities.items()}


def _whole(entry: object) -> dict[str, Any]:
    """An early version recorded one line of text."""
    if isinstance(entry, str):
        return {"name": entry, "digest": entry}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "digest")):
        raise ValueError("an entry has no name and digest")
    return entry
