"""An evaluation of a model or of embeddings, and its folder: `results.json` and `queries.npz`.

`trichord evaluate` and `trichord study` write this folder. The runs of a study have further entries (`study.saved_runs`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.files.folders import check_no_links
from trichord.files.reading import file_sha256
from trichord.files.writing import write_json, writing_to
from trichord.modality import further_letters
from trichord.parallel import on_main
from trichord.study.evaluation_files import PER_QUERY, RESULTS, check_target
from trichord.study.files import write_arrays
from trichord.study.scores import Scores, scores_of
from trichord.tasks.protocol import Options, Outcome, Protocol
from trichord.tasks.subject import Subject
from trichord.training.seals import sealed

if TYPE_CHECKING:
    from trichord.store import Store


@dataclass(frozen=True)
class Evaluated:
    """A benchmark that was scored.

    Attributes:
        name: Name that the user gave.
        protocol: Protocol of the benchmark.
        options: Options under which it was scored.
        outcome: Figures and arrays of the benchmark.
    """

    name: str
    protocol: Protocol
    options: Options
    outcome: Outcome

    def entry(self, clips: str) -> dict[str, Any]:
        """Return the entry of the list `benchmarks` of `results.json`.

        Args:
            clips: Scored clips as COLLECTION/SPLIT, or ''.
        """
        return {
            "name": self.name,
            "protocol": self.protocol.name,
            "title": self.protocol.title,
            "kind": self.protocol.kind,
            "paragraph": self.protocol.paragraph,
            "sizes": dict(self.protocol.sizes),
            "clips": clips,
            "options": {**self.options.to_dict(), "gallery": len(self.options.gallery or ()) or None},
            "rows": [row.to_dict() for row in self.outcome.rows],
            "notes": self.outcome.notes,
            **self.outcome.details,
        }


@dataclass
class Evaluation:
    """An evaluation of a model or of embeddings.

    Attributes:
        subject: The model or the embeddings.
        benchmarks: Benchmarks, in the order in which the user named them.
        notes: Notes on the subject.
    """

    subject: Subject
    benchmarks: list[Evaluated] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def results(self) -> list[dict[str, Any]]:
        """Return the rows of all benchmarks: of retrieval one per direction, as in a study, and of others one per figure."""
        return [
            row
            for done in self.benchmarks
            for row in done.outcome.details.get("results") or [row.to_dict() for row in done.outcome.rows]
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays with a value for each query, video or item, by the names under which they are saved."""
        return {name: array for done in self.benchmarks for name, array in done.outcome.kept().items()}

    def entries(self) -> list[dict[str, Any]]:
        """Return the list `benchmarks` of `results.json`."""
        return [done.entry(_clips(self.subject, done)) for done in self.benchmarks]

    def content(self) -> dict[str, Any]:
        """Return the content of `results.json`."""
        subject = self.subject
        return results_content(_address(subject.name), subject.store, subject.modalities, self.notes, self.entries())

    def scores(self) -> Scores:
        """Return the scores, equal to those that `study.scores.read_scores` reads from the written files."""
        return scores_of(Path(self.subject.name) / RESULTS, self.content(), self.arrays())


def results_content(
    subject: str, store: Store | None, modalities: Sequence[str], notes: list[str], entries: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the content of `results.json`.

    Args:
        subject: Name of the model or path of the embeddings.
        store: Store with the clips. None for embeddings.
        modalities: Modalities of the subject.
        notes: Notes on the subject.
        entries: Entry of each benchmark (`Evaluated.entry`).
    """
    return {
        "subject": subject,
        "store": None if store is None else {"path": store.address, "fingerprint": store.fingerprint},
        **({"modalities": letters} if (letters := further_letters(modalities)) else {}),
        "notes": notes,
        "benchmarks": entries,
    }


def write_evaluation(evaluation: Evaluation, out: Path, *, overwrite: bool = False) -> None:
    """Write the files of an evaluation.

    The files are `results.json` (protocols, rows, notes and options) and `queries.npz` (values per query, video or item).

    Args:
        evaluation: Evaluation to write.
        out: Folder. If it ends in .json, it is a file, and only the retrieval rows are written.
        overwrite: Whether to replace existing files without the check that they are the files of an evaluation.

    Raises:
        TrichordError: A file that is not of an evaluation would be overwritten, or the files cannot be written.
    """

    def write() -> None:
        if not overwrite:
            check_target(out)
        with writing_to(out):
            if out.suffix == ".json":
                write_json(out, evaluation.results())
            else:
                write_results(out, evaluation.content(), evaluation.arrays())

    on_main(write)


def write_results(
    folder: Path, content: Mapping[str, Any], arrays: dict[str, np.ndarray], *, seal: bool = False
) -> None:
    """Write `results.json` and `queries.npz`.

    Args:
        folder: Folder, which is created if necessary.
        content: Content of `results.json`.
        arrays: Arrays of `queries.npz`.
        seal: Whether `results.json` contains the digests of both files, so that changes are detected.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_no_links(folder)
    write_arrays(folder / PER_QUERY, arrays)
    if seal:
        content = sealed({**content, "arrays_sha256": file_sha256(folder / PER_QUERY)})
    write_json(folder / RESULTS, content)


def _address(name: str) -> str:
    """Return the absolute path of an existing file or folder, and any other name unchanged."""
    return os.path.abspath(name) if os.path.exists(name) else name


def _clips(subject: Subject, done: Evaluated) -> str:
    """Return the scored clips as COLLECTION/SPLIT, or as COLLECTION if labels may select the tested clips.

    For embeddings, these are the clips of the protocol, or ''.
    """
    if done.protocol.clips or subject.store is None:
        return done.protocol.clips
    clip_set = subject.clip_set(done.options.on)
    labelled = done.options.labels and done.protocol.kind not in ("retrieval", "localization")
    return clip_set.collection if labelled else f"{clip_set.collection}/{clip_set.split}"
