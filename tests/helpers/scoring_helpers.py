"""Retrieval figures of one model, computed as `trichord evaluate` and as a study computes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trichord.modality import Direction
from trichord.nn import MCN
from trichord.store import Store
from trichord.study.evaluate import evaluate
from trichord.study.files import read_arrays
from trichord.study.ranks import ranks_from_arrays
from trichord.tasks.benchmarks import Benchmark, ScoringSettings
from trichord.tasks.retrieval.measure import QueryRanks, RetrievalResult, score_directions
from trichord.tasks.subject import ClipSet, Subject


def retrieval_results(
    run: Path, store: Path | str, benchmarks: Sequence[str] = (), directions: Sequence[str] = ()
) -> list[RetrievalResult]:
    """Return a row for each benchmark and direction, without the ranks of the queries."""
    evaluation = evaluate(run, store, benchmarks, directions=directions)
    return [RetrievalResult(**row) for done in evaluation.benchmarks for row in done.outcome.details["results"]]


def evaluate_retrieval(
    model: MCN, store: Store, benchmark: Benchmark, directions: list[Direction], settings: ScoringSettings
) -> list[RetrievalResult]:
    """Embed the clips of a benchmark and score them, as a study does."""
    modalities = tuple(m for d in directions for m in d.modalities)
    subject = Subject.of_model("model", model, store, settings)
    embedded = subject.text_rows(ClipSet.of_benchmark(benchmark), modalities).embedded
    missing = benchmark.missing if settings.missing == "auto" else settings.missing
    clips = embedded.embeddings, embedded.valid, None if embedded.one_text_each else embedded.text_clip
    return score_directions(benchmark.name, *clips, directions, subject.fusion, missing)


def read_ranks(path: Path, benchmark: str, direction: str) -> QueryRanks:
    """Return the ranks in `queries.npz`."""
    return ranks_from_arrays(read_arrays(path), f"{benchmark}/{direction}", path, "")
