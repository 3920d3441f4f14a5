"""The protocol of a benchmark in a study: retrieval in the directions of the recipe, and the geometry of the joint space."""

from __future__ import annotations

from functools import partial

from trichord.data.reader import Clips
from trichord.evaluation.geometry import measure_geometry
from trichord.parallel import on_main
from trichord.store import Store
from trichord.tasks.benchmarks import Benchmark
from trichord.tasks.protocol import Options, Outcome, Protocol
from trichord.tasks.retrieval.protocols import retrieval_outcome
from trichord.tasks.subject import ClipSet, Subject


def study_protocol(benchmark: Benchmark, num_clusters: int = 0) -> Protocol:
    """Return the protocol of a benchmark in a study.

    Args:
        benchmark: Benchmark.
        num_clusters: Number of clusters of the geometry.
    """
    return Protocol(
        benchmark.name,
        benchmark.title,
        "retrieval",
        benchmark.protocol,
        needs="Clips with the modalities of a direction.",
        gives="R@1, R@5, R@10, median and mean rank of each direction",
        score=partial(_score, benchmark, num_clusters),
        clips=f"{benchmark.collection}/{benchmark.split}",
    )


def _score(benchmark: Benchmark, num_clusters: int, protocol: Protocol, subject: Subject, options: Options) -> Outcome:
    rows = subject.text_rows(ClipSet.of_benchmark(benchmark), subject.modalities)

    def outcome_on_main() -> Outcome:
        missing, fusion = options.missing_or(benchmark.missing), options.fusion_of(subject)
        outcome = retrieval_outcome(protocol.name, rows.embedded, list(options.directions), fusion, missing, options)
        assert subject.store is not None
        labels, outcome.details["labels"] = clip_labels(subject.store, rows.texts)
        geometry = measure_geometry(rows.embeddings, rows.valid, labels=labels, num_clusters=num_clusters, seed=0)
        outcome.arrays |= geometry.to_arrays(f"{protocol.name}/geometry") if geometry is not None else {}
        return outcome

    return on_main(outcome_on_main)


def clip_labels(store: Store, clips: Clips) -> tuple[list[str] | None, str]:
    """Return labels that say which clips belong together.

    Args:
        store: Store with the clips.
        clips: Clips.

    Returns:
        The label of each clip and the kind of the labels: the video if videos have several clips, otherwise the first folder of
        the id of the video. None and '' if there are no folders.
    """
    videos = [store.video_id(int(i)) for i in clips.item]
    if len(set(videos)) < len(videos):
        return videos, "video"
    folders = [name.partition("/")[0] if "/" in name else "" for name in videos]
    if all(folders) and len(set(folders)) > 1:
        return folders, "first folder of the name"
    return None, ""
