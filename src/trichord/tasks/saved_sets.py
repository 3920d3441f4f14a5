"""Scored clips in the form of a file of embeddings, from which the same figures can be computed again."""

from __future__ import annotations

from collections.abc import Sequence

from trichord.evaluation.embedded import Embedded
from trichord.tasks.labels.saved import labelled_clips
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.steps.saved import video_seconds
from trichord.tasks.subject import Subject


def scored_sets(subject: Subject, benchmarks: Sequence[tuple[Protocol, Options]]) -> list[Embedded]:
    """Return the distinct sets of clips that benchmarks score. All processes of a launch call this together.

    Clips that are in memory are not embedded again. Seconds are embedded again, since only their scores are kept.

    Args:
        subject: Model or embeddings.
        benchmarks: Protocol and options of each benchmark.
    """
    sets: dict[tuple[str, ...], Embedded] = {}
    seen: set[object] = set()
    kinds = {protocol.kind for protocol, _ in benchmarks}
    if "retrieval" in kinds:
        sets |= {tuple(embedded.ids.tolist()): embedded for embedded in subject.made}
    # Classification comes first, since its clips contain labels and prompts in addition.
    for protocol, options in sorted(benchmarks, key=lambda one: one[0].kind != "classification"):
        key = (protocol.kind, options)
        if protocol.kind == "retrieval" or key in seen:
            continue
        seen.add(key)
        saved = video_seconds if protocol.kind == "localization" else labelled_clips
        embedded = saved(subject, protocol, options)
        sets.setdefault(tuple(embedded.ids.tolist()), embedded)
    return list(sets.values())
