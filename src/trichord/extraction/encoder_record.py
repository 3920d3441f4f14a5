"""The rule that all features of a stream in a store come from one encoder, even if several processes extract at once."""

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
    """Check that no other encoder computed features of the store, whether committed or still in its spool.

    Args:
        store: The folder of the store.
        streams: The fingerprint of the encoder of each stream.

    Returns:
        Notes on existing features of unknown origin.

    Raises:
        TrichordError: Another encoder computed features of a stream.
    """
    recorded, notes = read_encoders(store), []
    parts = any((store / "parts").glob("*.parquet"))
    existing = set(Store(store).streams) if parts else set()
    if not parts and not spooled(store):
        return []
    for stream, fingerprint in streams.items():
        if stream in recorded and recorded[stream]["digest"] != fingerprint.digest:
            raise TrichordError(
                f"{store}: its {stream} features were computed by {recorded[stream]['name']} "
                f"({recorded[stream]['digest']}), not by {fingerprint.name} ({fingerprint.digest}); "
                "use the same encoder and weights, or another store"
            )
        if stream not in recorded and stream in existing:
            notes.append(
                f"{store}: the encoder of its {stream} features is not recorded, so only their width is compared"
            )
    return notes


def claim_encoders(store: Path, leases: Leases, streams: Mapping[str, Fingerprint]) -> None:
    """Record the encoders of this run. While the run lasts, processes with other encoders cannot work on the store.

    Raises:
        TrichordError: The store has features of another encoder, or another process is computing them.
    """
    is_exclusive = leases.alone_or_shared(ENCODERS)
    recorded = read_encoders(store)
    if not is_exclusive:
        for stream, fingerprint in streams.items():
            if stream in recorded and recorded[stream]["digest"] != fingerprint.digest:
                raise TrichordError(
                    f"{store}: another process is extracting {stream} with {recorded[stream]['name']}, not with "
                    f"{fingerprint.name}; use the same encoder, or another store"
                )
    check_encoders(store, streams)
    if (
        updated := {**recorded, **{stream: fingerprint.to_dict() for stream, fingerprint in streams.items()}}
    ) != recorded:
        with writing_to(store, "check the disk"):
            write_json(store / ENCODERS, updated, shared=True)
    leases.share(ENCODERS)
