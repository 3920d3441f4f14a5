"""One encoder makes all features of a stream of a store, also where several processes extract at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trichord.errors import TrichordError
from trichord.features.encoders import Fingerprint
from trichord.files.writing import write_json, writing_to
from trichord.store import Store
from trichord.store.encoders import read_encoders
from trichord.store.leases import Leases
from trichord.store.names import ENCODERS
from trichord.store.spool import spooled


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
    alone = leases.alone_or_shared(ENCODERS)
    recorded = read_encoders(store)
    if not alone:
        for stream, fingerprint in streams.items():
            if stream in recorded and recorded[stream]["digest"] != fingerprint.digest:
                raise TrichordError(
                    f"{store}: another process extracts {stream} with {recorded[stream]['name']}, this one would with "
                    f"{fingerprint.name}; use the same encoder, or another store"
                )
    check_encoders(store, streams)
    if (fresh := {**recorded, **{stream: own.to_dict() for stream, own in streams.items()}}) != recorded:
        with writing_to(store, "check the disk"):
            write_json(store / ENCODERS, fresh, shared=True)
    leases.share(ENCODERS)
