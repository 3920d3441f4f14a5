"""All protocols by name. Each task has a tuple `PROTOCOLS`, which is listed in `GROUPS` here."""

from __future__ import annotations

from collections.abc import Sequence

from trichord.errors import TrichordError
from trichord.tasks.full_video import protocols as full_video
from trichord.tasks.labels import protocols as labels
from trichord.tasks.protocol import Protocol
from trichord.tasks.retrieval import protocols as retrieval
from trichord.tasks.steps import protocols as steps

GROUPS: tuple[Sequence[Protocol], ...] = (
    retrieval.PROTOCOLS,
    full_video.PROTOCOLS,
    steps.PROTOCOLS,
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
