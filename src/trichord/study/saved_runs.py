"""The saved results of a run of a study: the evaluation folder `orders/ORDER/seed-N`.

In addition to the content of an evaluation, `results.json` contains the identity of the training and the scoring, and the digests
of both files; `queries.npz` contains the geometry of the joint space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.geometry import Geometry
from trichord.study.earlier_runs import converted
from trichord.study.evaluation_files import PER_QUERY, RESULTS
from trichord.study.files import RUN_AGAIN, check_sha256, damaged, is_there, read_arrays, read_json
from trichord.study.scores import Scores, scores_of

Saved = tuple[dict[str, Any], dict[str, np.ndarray]]  # entry of a benchmark in `results.json`, and its arrays


@dataclass(frozen=True)
class SavedRun:
    """The saved results of a run.

    Attributes:
        path: `results.json`, or the file of an earlier version (`study.earlier_runs`).
        content: Content of the file.
    """

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> SavedRun | None:
        """Read the results of a run without its arrays.

        Args:
            folder: `orders/ORDER/seed-N`.

        Returns:
            The results. None if there are none.

        Raises:
            TrichordError: The file cannot be read.
        """
        for path in (folder / RESULTS, folder.with_suffix(".json")):
            if is_there(path):
                return cls(path, read_json(path, mend=RUN_AGAIN))
        return None

    @property
    def is_earlier(self) -> bool:
        """Whether an earlier version wrote the files."""
        return self.path.name != RESULTS

    @property
    def arrays_path(self) -> Path:
        """File of the arrays."""
        return self.path.with_suffix(".npz") if self.is_earlier else self.path.with_name(PER_QUERY)

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the training and the scoring.

        Raises:
            TrichordError: It is not an object.
        """
        identity = self.content.get("identity", {})
        if not isinstance(identity, dict):
            raise damaged(self.path, "it does not name the stage of its figures", RUN_AGAIN)
        return {key: value for key, value in identity.items() if key != "benchmarks"}

    @cached_property
    def names(self) -> list[str]:
        """Names of the benchmarks."""
        if not self.is_earlier:
            return list(self._entries)
        names = self.content.get("identity", {}).get("benchmarks")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @cached_property
    def _entries(self) -> dict[str, dict[str, Any]]:
        benchmarks = self.content.get("benchmarks")
        entries: dict[str, dict[str, Any]] = {}
        for entry in benchmarks if isinstance(benchmarks, list) else [None]:
            if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str) or name in entries:
                raise damaged(self.path, "its benchmarks are not a list of objects with different names", RUN_AGAIN)
            entries[name] = entry
        return entries

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of the file.

        Raises:
            TrichordError: The file cannot be read, or it is not the one that was written.
        """
        check_sha256(self.arrays_path, self.content.get("arrays_sha256"), mend=RUN_AGAIN)
        return read_arrays(self.arrays_path, mend=RUN_AGAIN)

    def benchmark(self, about: Mapping[str, Any], *, intervals: bool = True) -> Saved:
        """Return the entry of a benchmark and its arrays.

        Args:
            about: Benchmark as described in `study.json`, whose name is one of `names`.
            intervals: Whether to compute intervals that an earlier version did not save.

        Raises:
            TrichordError: They are damaged.
        """
        if self.is_earlier:
            return converted(self.path, self.content, self.arrays, about, intervals=intervals)
        # The names of arrays begin with that of their benchmark. With benchmarks `a` and `a/val`, the longest match counts.
        arrays = {
            key: array
            for key, array in self.arrays.items()
            if max((own for own in self.names if key.startswith(f"{own}/")), key=len, default=None) == about["name"]
        }
        return self._entries[about["name"]], arrays

    def scores(self, head: Mapping[str, Any], benchmarks: Iterable[Mapping[str, Any]]) -> Scores:
        """Return the scores on the given benchmarks that have figures, in this sequence.

        Args:
            head: Entries `subject` and `store` of `results.json`, which earlier versions did not save.
            benchmarks: Benchmarks as described in `study.json`.

        Raises:
            TrichordError: The results are damaged.
        """
        known = [about for about in benchmarks if about["name"] in self.names]
        if not self.is_earlier:
            return scores_of(
                self.path, {**self.content, "benchmarks": [self._entries[about["name"]] for about in known]}
            )
        saved = [self.benchmark(about, intervals=False) for about in known]
        content = {**self.content, **head, "benchmarks": [entry for entry, _ in saved]}
        scores = scores_of(self.path, content, {key: array for _, own in saved for key, array in own.items()})
        scores.file = self.arrays_path
        return scores


def geometry_of(scores: Scores, benchmark: str) -> Geometry | None:
    """Return the geometry of the joint space of a run on a benchmark, or None if it was not measured.

    Raises:
        TrichordError: It is damaged.
    """
    arrays, head = scores.arrays, f"{benchmark}/geometry"
    try:
        return Geometry.from_arrays(arrays, head)
    except (TrichordError, ValueError, TypeError):
        raise damaged(scores.file, f"a part of {head} is missing or has another type", scores.mend) from None
