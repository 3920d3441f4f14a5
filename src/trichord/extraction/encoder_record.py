"""What made the features of a store: a file in its folder with the fingerprint of each stream's encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trichord.errors import TrichordError, one_line
from trichord.features.encoders import Fingerprint
from trichord.files.reading import read_text
from trichord.files.writing import write_json
from trichord.store import Store
from trichord.store.leases import Leases
from trichord.store.spool import spooled

ENCODERS_FILE = "encoders.json"  # stream -> Fingerprint.to_dict()


def read_encoders(store: Path) -> dict[str, dict[str, Any]]:
    """Stream -> fingerprint as recorded. Raises TrichordError when the record is damaged."""
    path = store / ENCODERS_FILE
    try:
        recorded = json.loads(read_text(path)) if path.is_file() else {}
        return {stream: _whole(entry) for stream, entry in recorded.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)}); restore it or use another store") from None


def _whole(entry: object) -> dict[str, Any]:
    """An early version recorded one line of text."""
    if isinstance(entry, str):
        return {"name": entry, "digest": entry}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "digest")):
        raise ValueError("an entry has no name and digest")
    return entry


def check_encoders(store: Path, streams: Mapping[str, Fingerprint]) -> list[str]:
    """Notes on features of unknown origin. Raises TrichordError if another encoder made features of the store, be they
    committed or still in its spool."""
    recorded, notes = read_encoders(store), []
    parts = any((store / "parts").glob("*.parquet"))
    existing = set(Store(store).streams) if parts else set()
    if not parts and not spooled(store):
        return []
    for stream, fingerprint in streams.items():
        if stream in recorded and recorded[stream]["digest"] != fingerprint.digest:
            raise TrichordError(
                f"{store}: its {stream} features were made by {recorded[stream]['name']} "
                f"({recorded[stream]['digest']}), these would be by {fingerprint.name} ({fingerprint.digest}); "
                "use the same encoder and weights, or another store"
            )
        if stream not in recorded and stream in existing:
            notes.append(f"{store}: what made its {stream} features is not recorded; only their width is compared")
    return notes


def claim_encoders(store: Path, leases: Leases, streams: Mapping[str, Fingerprint]) -> None:
    """Record the encoders of this run, for as long as it goes on: processes with others cannot work beside it.

    Raises TrichordError if the store has features of another encoder, or another process is making them.
    """
    alone = leases.alone_or_shared(ENCODERS_FILE)
    recorded = read_encoders(store)
    if not alone:
        for stream, fingerprint in streams.items():
            if stream in recorded and recorded[stream]["digest"] != fingerprint.digest:
                raise TrichordError(
                    f"{store}: another process extracts {stream} with {recorded[stream]['name']}, this one would with "
                    f"{fingerprint.name}; use the same encoder, or another store"
                )
    check_encoders(store, streams)
    try:
        _write(
            store, {**recorded, **{stream: fingerprint.to_dict() for stream, fingerprint in streams.items()}}, recorded
        )
    except OSError as error:
        raise TrichordError(f"{store}: cannot be written to ({error.strerror}); check the disk") from None
    leases.share(ENCODERS_FILE)


def _write(store: Path, fresh: dict[str, dict[str, Any]], recorded: dict[str, dict[str, Any]]) -> None:
    if fresh != recorded:
        write_json(store / ENCODERS_FILE, fresh, shared=True)
