"""Scores of one model by itself, apart from the protocols and the studies whose figures they check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trichord.evaluation.retrieval import RetrievalResult
from trichord.modality import Direction
from trichord.protocols.benchmarks import benchmark_names, evaluate_retrieval, find_benchmark
from trichord.study.score import load_for_scoring


def evaluate_model(
    run: Path, store_path: Path, names: Sequence[str] = (), directions: Sequence[str] = ()
) -> list[RetrievalResult]:
    """Score a trained model on benchmarks of a store.

    Args:
        run: Run, study or stage folder.
        store_path: Store with the clips.
        names: Of benchmarks; empty takes all that the store has clips for.
        directions: Such as t2v; empty takes those of the recipe, as far as their modalities were trained.
    """
    store, trained, used, settings = load_for_scoring(run, store_path)
    parsed = [Direction.parse(code) for code in directions or used.evaluation.directions]
    known = [d for d in parsed if set(d.modalities) <= set(trained.trained)]
    found = [find_benchmark(store, name) for name in names or benchmark_names(store)]
    return [row for each in found for row in evaluate_retrieval(trained.model, store, each, known, settings)]
