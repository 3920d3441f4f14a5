"""Reading of an evaluation folder (`study.evaluation`): figures, and the result of each unit.

The files may have been edited, truncated or exchanged. If their parts do not fit together, the error names the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.study.evaluation_files import PER_QUERY, RESULTS
from trichord.study.files import RUN_AGAIN, check_sha256, damaged, read_arrays, read_json
from trichord.study.ranks import fault_of_rows, finite_number, ranks_from_arrays
from trichord.tasks.protocol import MEDIAN_RANK
from trichord.tasks.retrieval.measure import QueryRanks

AGAIN = "evaluate again with the same --out"
KINDS = ("retrieval", "localization", "classification", "probe", "clustering")
_WINDOWS = re.compile(r", \d+ windows? of [0-9.e+-]+ s, (?:mean|max)")
_FUSED = re.compile(r"(\w+), (\w+)(?:, dual softmax ([0-9.e+-]+))?(: .+)?", re.DOTALL)


@dataclass(frozen=True)
class Measured:
    """A figure of `results.json`, with the fields of `tasks.protocol.Row`.

    `each` is the name of its array, or ''. `low` and `high` are the ends of its 95 % interval, or None if the file contains none.
    """

    of: str
    measure: str
    value: float
    num: int
    chance: float | None
    unit: str
    each: str
    each_of: str
    shares: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scored:
    """A benchmark of an evaluation.

    Attributes:
        name: Name that the user gave.
        protocol: Name of its protocol.
        title: Title of its protocol.
        kind: Kind of its task, such as `retrieval`.
        paragraph: Description of its protocol.
        head: Prefix of the names of its arrays.
        options: Options of the evaluation.
        rows: Figures.
        notes: Notes for the reader.
        results: Retrieval rows by direction, with gallery and policies. () for other kinds.
        fusion: Fusion rule that `auto` selected, if the rows do not contain it. Otherwise ''.
        settings: Further settings of the recipe that a study was scored with.
        clips: Scored clips of the store, as COLLECTION/SPLIT, or ''.
        labels: Kind of the labels of the clips in the geometry of a run of a study, or ''.
    """

    name: str
    protocol: str
    title: str
    kind: str
    paragraph: str
    head: str
    options: dict[str, Any]
    rows: tuple[Measured, ...]
    notes: tuple[str, ...]
    results: tuple[dict[str, Any], ...]
    fusion: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    clips: str = ""
    labels: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Identity of the benchmark across evaluations: its protocol, and the clips that the user named."""
        return self.protocol, str(self.options.get("on") or "")

    @property
    def heading(self) -> str:
        """Printed title, with the clips if the user named them."""
        return ", ".join(filter(None, (self.title, self.key[1])))

    def row(self, target: str, measure: str) -> Measured | None:
        """Return the figure of a target (`target_of`) and a measure, or None if there is none."""
        return next((r for r in self.rows if r.measure == measure and target_of(self.kind, r.of) == target), None)

    def result(self, scope: str) -> dict[str, Any] | None:
        """Return the retrieval row of the direction at the beginning of a scope, or None if there is none."""
        code = scope.partition(",")[0]
        return next((r for r in self.results if r.get("direction") == code), None)


def target_of(kind: str, scope: str) -> str:
    """Return the target of a figure, i.e. its scope without the way of scoring.

    Systems that differ in the fusion rule or the windows of clips have the same targets.

    Args:
        kind: Kind of the task.
        scope: Scope of the figure, such as `t2va, sum: caption, votes`, whose target is `t2va: caption, votes`.
    """
    scope = _WINDOWS.sub("", scope)
    if kind in ("retrieval", "localization") and (match := _FUSED.fullmatch(scope)):
        return match[1] + (match[4] or "")
    return scope


def fusion_of(kind: str, scope: str) -> tuple[str, str]:
    """Return the fusion rule and the scale of the dual softmax of a figure. Each is '' if its scope does not contain it.

    Args:
        kind: Kind of the task.
        scope: Scope of the figure.
    """
    match = _FUSED.fullmatch(_WINDOWS.sub("", scope)) if kind in ("retrieval", "localization") else None
    return (match[2], match[3] or "") if match else ("", "")


class Scores:
    """The evaluation of a model. Use `read_scores` to create it.

    Args:
        path: `results.json`. The arrays are next to it.
        content: Content of `results.json`.
        benchmarks: Benchmarks of the content.
    """

    def __init__(self, path: Path, content: dict[str, Any], benchmarks: tuple[Scored, ...]) -> None:
        self.path, self.benchmarks = path.parent, benchmarks
        self.file, self.mend = path.parent / PER_QUERY, _advice(content)
        self.subject: str = content["subject"]
        self.store: dict[str, Any] | None = content.get("store")
        self.notes: tuple[str, ...] = tuple(content.get("notes", ()))
        self._sha256 = content.get("arrays_sha256")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays except those of the mean rank, which are not used."""
        check_sha256(self.file, self._sha256, mend=self.mend)
        return read_arrays(self.file, lambda name: not name.endswith("/MeanR/each"), mend=self.mend)

    def loaded(self) -> Scores:
        """Return the scores with their arrays loaded.

        Raises:
            TrichordError: The arrays are damaged.
        """
        assert self.arrays is not None
        return self

    def results(self, **head: Any) -> list[dict[str, Any]]:
        """Return the retrieval rows of all benchmarks, each with the given entries in front."""
        return [{**head, **row} for scored in self.benchmarks for row in scored.results]

    def ranks(self, scored: Scored, direction: str) -> QueryRanks | None:
        """Return the ranks of the queries of a benchmark in a direction, or None if they were not saved.

        Raises:
            TrichordError: The ranks are damaged.
        """
        head = f"{scored.head}/{direction}"
        if f"{head}/greater" not in self.arrays:
            return None
        return ranks_from_arrays(self.arrays, head, self.file, self.mend)

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Notes on the model and on all benchmarks."""
        return self.notes + tuple(note for scored in self.benchmarks for note in scored.notes)

    def scored(self, key: tuple[str, str]) -> Scored | None:
        """Return the first benchmark with a key."""
        return next((one for one in self.benchmarks if one.key == key), None)

    def each(self, row: Measured) -> np.ndarray:
        """Return the contribution of each unit to a figure.

        Args:
            row: Figure.

        Returns:
            Array (n,), float64: shares (0 to 1) or ranks (from 1). NaN for units that do not count.

        Raises:
            TrichordError: The contributions are missing or do not match the figure.
        """
        values = self._array(row.each, "f")
        counted = values[~np.isnan(values)]
        if not len(counted) or not np.isfinite(counted).all() or (row.unit == "rank" and counted.min() < 1):
            raise self._damaged(f"{row.each} contains values that are neither shares nor ranks")
        computed = float(np.median(counted)) if row.measure == MEDIAN_RANK else float(counted.mean())
        expected = row.value if row.unit == "rank" else row.value / 100
        if not math.isclose(computed, expected, rel_tol=1e-6, abs_tol=1e-6):
            raise self._damaged(
                f"{row.each} does not match {RESULTS}, where the {row.measure} of {row.of} is {row.value:g}"
            )
        return values.astype(np.float64)

    def units(self, row: Measured) -> np.ndarray:
        """Return the names of the units of a figure, an array (n,).

        Raises:
            TrichordError: The names are missing, or their number is wrong.
        """
        names = self._array(row.each_of, "U")
        if len(names) != len(self._array(row.each, "f")):
            raise self._damaged(f"{row.each_of} and {row.each} differ in length")
        return names

    def named(self, name: str, kinds: str, length: int | None = None) -> np.ndarray | None:
        """Return another one-dimensional array.

        Args:
            name: Name of the array.
            kinds: Allowed kinds of its data type, such as `iu`.
            length: Required length. None allows any length.

        Returns:
            The array (n,). None if it is missing, or has another type or length.
        """
        array = self.arrays.get(name)
        if array is None or array.ndim != 1 or array.dtype.kind not in kinds:
            return None
        return array if length is None or len(array) == length else None

    def number(self, name: str) -> int | None:
        """Return another array that is a single integer, or None if it is missing."""
        array = self.arrays.get(name)
        return int(array) if array is not None and array.ndim == 0 and array.dtype.kind in "iu" else None

    def _array(self, name: str, kind: str) -> np.ndarray:
        array = self.arrays.get(name)
        if array is None or array.ndim != 1 or array.dtype.kind != kind:
            raise self._damaged(f"'{one_line(name)[:80]}' is missing or has another type")
        return array

    def _damaged(self, why: str) -> TrichordError:
        return damaged(self.file, why, self.mend)


def read_scores(folder: Path) -> Scores:
    """Read the folder of an evaluation.

    Raises:
        TrichordError: The folder cannot be read.
    """
    return scores_of(folder / RESULTS, read_json(folder / RESULTS, mend=AGAIN))


def scores_of(path: Path, content: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> Scores:
    """Return the scores of a `results.json`.

    Args:
        path: The file. The arrays are next to it.
        content: Content of the file. It lists no benchmark if the model lacks a modality that each of them needs.
        arrays: Arrays. None reads them from the file when they are needed.

    Raises:
        TrichordError: A part is missing or has another type.
    """
    try:
        scores = Scores(path, content, _benchmarks(content))
    except ValueError as error:
        raise damaged(path, one_line(error), _advice(content)) from None
    if arrays is not None:
        scores.arrays = arrays
    return scores


def _advice(content: Mapping[str, Any]) -> str:
    """Return the advice for damaged files of an evaluation, or of a run of a study."""
    return RUN_AGAIN if "identity" in content else AGAIN


def _benchmarks(content: dict[str, Any]) -> tuple[Scored, ...]:
    """Return the benchmarks of a `results.json`. Raise ValueError if a part is missing or has another type."""
    store, identity = content.get("store"), content.get("identity", {})
    if not isinstance(content.get("subject"), str) or not isinstance(content.get("benchmarks"), list):
        raise ValueError("it contains no subject or no list of benchmarks")
    if store is not None and not (
        isinstance(store, dict) and all(isinstance(store.get(p), str) for p in ("path", "fingerprint"))
    ):
        raise ValueError("its store has no path and fingerprint")
    if not _texts(content.get("notes", [])):
        raise ValueError("its notes are not a list of texts")
    settings = identity.get("evaluation", {}) if isinstance(identity, dict) else None
    if not isinstance(settings, dict):
        raise ValueError("its settings are not an object")
    settings = {key: value for key, value in settings.items() if key not in ("directions", "block")}
    entries = content["benchmarks"]
    if identity:  # an order of a study may lack the modalities of all directions
        entries = [entry for entry in entries if not isinstance(entry, dict) or entry.get("rows") != []]
    return tuple(_benchmark(entry, settings) for entry in entries)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _benchmark(entry: object, settings: dict[str, Any]) -> Scored:
    words = ("name", "protocol", "title", "kind", "paragraph")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(part), str) for part in words):
        raise ValueError(f"a benchmark needs the texts {', '.join(words)}")
    name, rows, results = entry["name"], entry.get("rows"), entry.get("results", [])
    if entry["kind"] not in KINDS:
        raise ValueError(f"the kind of benchmark {name} is unknown")
    if not isinstance(entry.get("options"), dict) or not _texts(entry.get("notes")):
        raise ValueError(f"benchmark {name} lacks its options or its notes")
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"benchmark {name} has no figures")
    if why := fault_of_rows(results):
        raise ValueError(f"benchmark {name}: {why}")
    if not isinstance(labels := entry.get("labels", ""), str):
        raise ValueError(f"the labels of benchmark {name} are not a text")
    figures = tuple(_row(name, row) for row in rows)
    if len({(row.of, row.measure) for row in figures}) < len(figures):
        raise ValueError(f"benchmark {name} contains a figure twice")
    fusion = fused if isinstance(fused := entry.get("fusion"), str) else ""
    clips = str(entry["clips"] if "clips" in entry else entry["options"].get("on") or "")
    name, protocol, title, kind, paragraph = (entry[part] for part in words)
    return Scored(
        name, protocol, title, kind, paragraph, rows[0]["protocol"], entry["options"], figures, tuple(entry["notes"]),
        tuple(results), fusion, settings, clips, labels,
    )  # fmt: skip


def _row(benchmark: str, row: object) -> Measured:
    broken = ValueError(f"a figure of benchmark {benchmark} is incomplete")
    if not isinstance(row, dict) or not all(isinstance(row.get(p), str) for p in ("protocol", "of", "measure", "unit")):
        raise broken
    value, num, chance, low, high = (finite_number(row.get(name)) for name in ("value", "num", "chance", "low", "high"))
    each, each_of = row.get("each"), row.get("each_of", "")
    if value is None or num is None or num != int(num) or num < 0 or (chance is None and row.get("chance") is not None):
        raise broken
    if any(end is None and row.get(name) is not None for name, end in (("low", low), ("high", high))):
        raise broken
    shares = row.get("shares", False)
    if not isinstance(each, str | None) or not isinstance(each_of, str) or (each and not each_of):
        raise broken
    if not isinstance(shares, bool):
        raise broken
    return Measured(
        row["of"], row["measure"], value, int(num), chance, row["unit"], each or "", each_of, shares, low, high
    )
