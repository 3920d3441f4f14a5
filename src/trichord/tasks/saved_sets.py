"""The clips that a benchmark scored, as a file of embeddings holds them: scored from the file, they give the same figures."""

from __future__ import annotations

from collections.abc import Sequence

from trichord.evaluation.embedded import Embedded
from trichord.tasks.labels.saved import labelled_clips
from trichord.tasks.protocol import Options, Protocol
from trichord.tasks.steps.saved import video_seconds
from trichord.tasks.subject import Subject


def scored_sets(subject: Subject, benchmarks: Sequence[tuple[Protocol, Options]]) -> list[Embedded]:
    """Return the distinct sets of clips that these benchmarks score. All processes of a launch call it together.

    What is in memory already is not embedded again; seconds are, as a benchmark keeps but their scores.
    """
    sets: dict[tuple[str, ...], Embedded] = {}
    seen: set[object] = set()
    kinds = {protocol.kind for protocol, _ in benchmarks}
    if "retrieval" in kinds:
        sets |= {tuple(embedded.ids.tolist()): embedded for embedded in subject.made}
    for protocol, options in sorted(benchmarks, key=lambda one: one[0].kind != "classification"):  # it knows most
        key = (protocol.kind, options)
        if protocol.kind == "retrieval" or key in seen:
            continue
        seen.add(key)
        saved = video_seconds if protocol.kind == "localization" else labelled_clips
        embedded = saved(subject, protocol, options)
        sets.setdefault(tuple(embedded.ids.tolist()), embedded)
    return list(sets.values())
