"""The registry of protocols, and the lookup of the protocol of a benchmark.

Each task has a tuple `PROTOCOLS`, which is listed in `GROUPS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trichord.errors import TrichordError
from trichord.tasks.benchmarks import benchmark_names, find_benchmark
from trichord.tasks.full_video import protocols as full_video
from trichord.tasks.labels import protocols as labels
from trichord.tasks.protocol import Protocol
from trichord.tasks.retrieval import protocols as retrieval
from trichord.tasks.steps import protocols as steps

if TYPE_CHECKING:
    from trichord.store import Store
    from trichord.store.location import Location

GROUPS: tuple[Sequence[Protocol], ...] = (
    retrieval.PROTOCOLS,
    full_video.PROTOCOLS,
    steps.PROTOCOLS,
    labels.PROTOCOLS,
)


def protocols() -> dict[str, Protocol]:
    """Return every protocol by its name, in the order of the groups."""
    return {protocol.name: protocol for group in GROUPS for protocol in group}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        TrichordError: The name is unknown. The message lists the known names.
    """
    known = protocols()
    if name not in known:
        raise TrichordError(
            f"unknown benchmark '{name}'; expected one of {', '.join(known)}, or COLLECTION/SPLIT of the store"
        )
    return known[name]


def default_names(store: Store | None) -> list[str]:
    """Return the benchmarks that are scored by default.

    Args:
        store: Store with the clips. None for embeddings from a file.

    Raises:
        TrichordError: The store has no held-out clips.
    """
    if store is None:
        return ["retrieval"]
    names = benchmark_names(store)
    if not names:
        raise TrichordError(f"{store.path}: has only clips of the split train; give the benchmark as COLLECTION/train")
    return names


def resolve(name: str, store: Store | None) -> tuple[str, Protocol, str]:
    """Find the protocol of a benchmark.

    A collection with the name of a protocol is scored under this protocol if it has the clips of the protocol.

    Args:
        name: Name that the user gave.
        store: Store with the clips. None for embeddings from a file.

    Returns:
        The name, the protocol, and the clips that the user chose (`Options.on`).
    """
    head, _, rest = name.partition(":")
    known = protocols()
    have = [] if store is None else store.collections()
    if head in known and (rest or store is None or not known[head].clips):
        return name, known[head], rest
    if head in known and (tuple(known[head].clips.split("/")) in have or head not in {c for c, _ in have}):
        return name, known[head], rest
    if store is None:
        return name, find_protocol(name), ""
    return name, known["retrieval"], name


def explanation_of(name: str, store_path: Location | None = None) -> str:
    """Return the description of the protocol of a benchmark.

    Args:
        name: Name of a protocol, COLLECTION/SPLIT, or collection of the store.
        store_path: Store with the clips.

    Raises:
        TrichordError: The name is unknown.
    """
    from trichord.store import Store

    store = None if store_path is None else Store(store_path)
    known, (head, mark, rest) = protocols(), name.partition(":")
    of_clips = store is None and "/" in name and not mark
    protocol = known["retrieval"] if of_clips else resolve(name, store)[1]
    protocol.refuse_clips(rest)
    if store is not None and head not in known:
        find_benchmark(store, name)
    introduction = "" if name == protocol.name else f"{name} is scored by {protocol.name}.\n\n"
    return introduction + protocol.explanation()
