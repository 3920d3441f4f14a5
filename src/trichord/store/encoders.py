"""The record of the encoders that computed the features of a store: a JSON file with a fingerprint for each stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.files.reading import read_json_value
from trichord.modality import MODALITIES, declare_recorded
from trichord.store.names import ENCODERS

ARRAYS = "arrays"  # the encoder name of a stream made from feature arrays; its parameters are modality and letter


def read_encoders(store: Path) -> dict[str, dict[str, Any]]:
    """Return the recorded fingerprint of each stream.

    Raises:
        TrichordError: The record is damaged.
    """
    path = store / ENCODERS
    try:
        recorded = read_json_value(path) if path.is_file() else {}
        return {stream: _normalized(entry) for stream, entry in recorded.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); restore it or use another store") from None


def declare_modalities(store: Path) -> dict[str, str]:
    """Declare the modalities beyond video, audio and text that a store records.

    Returns:
        The letter of each of these modalities, by name.

    Raises:
        TrichordError: The record is damaged, or a name or letter is already taken by another modality.
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


def _normalized(entry: object) -> dict[str, Any]:
    """Return a checked entry. An early version recorded each entry as one line of text."""
    if isinstance(entry, str):
        return {"name": entry, "digest": entry}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "digest")):
        raise ValueError("an entry has no name and digest")
    return entry
