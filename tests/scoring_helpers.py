"""Retrieval figures of one model, as `trichord evaluate` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trichord.evaluation.retrieval import RetrievalResult
from trichord.study.evaluate import evaluate


def retrieval_results(
    run: Path, store: Path | str, benchmarks: Sequence[str] = (), directions: Sequence[str] = ()
) -> list[RetrievalResult]:
    """A row for each benchmark and direction, without the ranks of the queries."""
    found = evaluate(run, store, benchmarks, directions=directions)
    return [RetrievalResult(**row) for done in found.benchmarks for row in done.outcome.details["results"]]
