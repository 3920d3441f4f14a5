"""Modalities of feature arrays in an export. Its mark contains their names and letters, and an import records them in the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trichord.features.encoders import arrays_fingerprint
from trichord.files.writing import write_json
from trichord.modality import declare_recorded
from trichord.releases.records import MARK
from trichord.store.encoders import declare_modalities, read_encoders
from trichord.store.names import ENCODERS


def check_modalities(root: Path, mark: Mapping[str, Any] | None, store: Path) -> dict[str, str]:
    """Return the letter of each modality of an export.

    Raises:
        TrichordError: The mark lacks them, or they conflict with those of the store.
    """
    declare_modalities(store)
    modalities = {} if mark is None else mark.get("modalities", {})
    declare_recorded(modalities, root / MARK)
    return {name: letter.lower() for name, letter in modalities.items()}


def record_modalities(store: Path, modalities: Mapping[str, str]) -> None:
    """Record the modalities in the store, as an extraction of feature arrays does."""
    recorded = read_encoders(store)
    entries = {name: arrays_fingerprint(name, letter).to_dict() for name, letter in modalities.items()}
    if not entries.items() <= recorded.items():
        write_json(store / ENCODERS, {**recorded, **entries}, shared=True)
