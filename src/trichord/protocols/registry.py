"""All protocols by name. A module of protocols has a tuple `PROTOCOLS`, which joins `GROUPS` here."""

from __future__ import annotations

from collections.abc import Sequence

from trichord.errors import TrichordError
from trichord.protocols import labels, localization, retrieval
from trichord.protocols.protocol import Protocol

GROUPS: tuple[Sequence[Protocol], ...] = (
    retrieval.PROTOCOLS,
    localization.PROTOCOLS,
    labels.PROTOCOLS,
)


def protocols() -> dict[str, Protocol]:
    """Every protocol by its name, in the order of the groups."""
    return {protocol.name: protocol for group in GROUPS for protocol in group}


def find_protocol(name: str) -> Protocol:
    """A protocol by name. Raises TrichordError that lists the known ones."""
    known = protocols()
    if name not in known:
        raise TrichordError(f"no benchmark '{name}'; known are {', '.join(known)}, or COLLECTION/SPLIT of the store")
    return known[name]
