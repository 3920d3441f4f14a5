"""Read back what `trichord evaluate --out FOLDER` left of one model: figures, and what each unit gives to them.

Files may have been edited, cut or swapped since they were written: whatever does not fit together ends as one line.
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
from trichord.study.files import damaged, read_arrays, read_json
from trichord.tasks.protocol import MEDIAN_RANK

AGAIN = "evaluate again with the same --out"
KINDS = ("retrieval", "localization", "classification", "probe", "clustering")
_WINDOWS = re.compile(r", \d+ windows? of [0-9.e+-]+ s, (?:mean|max)")
_FUSED = re.compile(r"(\w+), (\w+)(?:, dual softmax ([0-9.e+-]+))?(: .+)?", re.DOTALL)


@dataclass(frozen=True)
class Measured:
    """A figure as it was written: see `tasks.protocol.Row`, of which it has the parts. `each` names its array, or is ''."""

    of: str
    measure: str
    value: float
    num: int
    chance: float | None
    unit: str
    each: str
    each_of: str
    shares: bool = False


@dataclass(frozen=True)
class Scored:
    """One benchmark of an evaluation.

    Attributes:
        name: As it was asked for.
        protocol, title, kind, paragraph: Of its protocol.
        head: What the names of its arrays begin with.
        options: As it was scored.
        rows: Its figures.
        notes: Lines for the reader.
        results: Retrieval rows by direction, with gallery and policies; () for other kinds.
        fusion: The rule that `auto` came to, where the rows do not say; ''.
        settings: Further settings of the recipe by which it was scored, of a study.
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

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same benchmark in another evaluation: its protocol, and the clips that the user named."""
        return self.protocol, str(self.options.get("on") or "")

    def row(self, target: str, measure: str) -> Measured | None:
        """The figure of a target (`target_of`)."""
        return next((r for r in self.rows if r.measure == measure and target_of(self.kind, r.of) == target), None)

    def result(self, of: str) -> dict[str, Any] | None:
        """The retrieval row of a direction: `of` begins with its code."""
        code = of.partition(",")[0]
        return next((r for r in self.results if r.get("direction") == code), None)


def target_of(kind: str, of: str) -> str:
    """What a figure is of, without how it was scored: `t2va, sum: caption, votes` -> `t2va: caption, votes`. Systems that
    differ in the fusion rule, or in how clips were cut, stand beside each other so."""
    of = _WINDOWS.sub("", of)
    if kind in ("retrieval", "localization") and (found := _FUSED.fullmatch(of)):
        return found[1] + (found[4] or "")
    return of


def fusion_of(kind: str, of: str) -> tuple[str, str]:
    """(fusion rule, scale of the dual softmax) that a figure was scored under, '' where its name does not say."""
    found = _FUSED.fullmatch(_WINDOWS.sub("", of)) if kind in ("retrieval", "localization") else None
    return (found[2], found[3] or "") if found else ("", "")


class Scores:
    """The folder of one evaluation, read. Made by `read_scores`."""

    def __init__(self, path: Path, content: dict[str, Any], benchmarks: tuple[Scored, ...]) -> None:
        self.path, self.benchmarks = path, benchmarks
        self.file, self.mend = path / PER_QUERY, AGAIN
        self.subject: str = content["subject"]
        self.store: dict[str, Any] | None = content.get("store")
        self.notes: tuple[str, ...] = tuple(content.get("notes", ()))

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of its arrays but those of the mean rank, which nothing is read from."""
        return read_arrays(self.path / PER_QUERY, lambda name: not name.endswith("/MeanR/each"), mend=AGAIN)

    def loaded(self) -> Scores:
        """Return the scores with their arrays loaded. Raises TrichordError if the arrays are damaged."""
        assert self.arrays is not None
        return self

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Notes on the model and on all benchmarks."""
        return self.notes + tuple(note for scored in self.benchmarks for note in scored.notes)

    def scored(self, key: tuple[str, str]) -> Scored | None:
        """Return the first benchmark with a key."""
        return next((one for one in self.benchmarks if one.key == key), None)

    def each(self, row: Measured) -> np.ndarray:
        """(n,) float64, what every unit gives to a figure; NaN: it does not count. Raises TrichordError where these are not
        there, or do not make the figure."""
        values = self._array(row.each, "f")
        counted = values[~np.isnan(values)]
        if not len(counted) or not np.isfinite(counted).all() or (row.unit == "rank" and counted.min() < 1):
            raise self._damaged(f"{row.each} holds what is no share and no rank")
        found = float(np.median(counted)) if row.measure == MEDIAN_RANK else float(counted.mean())
        told = row.value if row.unit == "rank" else row.value / 100
        if not math.isclose(found, told, rel_tol=1e-6, abs_tol=1e-6):
            raise self._damaged(
                f"{row.each} does not give the {row.measure} of {row.value:g} that {RESULTS} has for {row.of}"
            )
        return values.astype(np.float64)

    def units(self, row: Measured) -> np.ndarray:
        """(n,) names of the units of a figure."""
        names = self._array(row.each_of, "U")
        if len(names) != len(self._array(row.each, "f")):
            raise self._damaged(f"{row.each_of} and {row.each} differ in length")
        return names

    def named(self, name: str, kinds: str, length: int | None = None) -> np.ndarray | None:
        """A further array (n,) of one of the kinds of numbers, None where it is not there or not of that length."""
        found = self.arrays.get(name)
        if found is None or found.ndim != 1 or found.dtype.kind not in kinds:
            return None
        return found if length is None or len(found) == length else None

    def number(self, name: str) -> int | None:
        """A further array that is one whole number; None where it is not there."""
        found = self.arrays.get(name)
        return int(found) if found is not None and found.ndim == 0 and found.dtype.kind in "iu" else None

    def _array(self, name: str, kind: str) -> np.ndarray:
        found = self.arrays.get(name)
        if found is None or found.ndim != 1 or found.dtype.kind != kind:
            raise self._damaged(f"'{one_line(name)[:80]}' is not there or not of its kind")
        return found

    def _damaged(self, why: str) -> TrichordError:
        return damaged(self.file, why, self.mend)


def read_scores(path: Path) -> Scores:
    """The folder of one evaluation. Raises TrichordError where it cannot be read."""
    return scores_of(path, read_json(path / RESULTS, mend=AGAIN))


def scores_of(path: Path, content: dict[str, Any]) -> Scores:
    """The same from the content of its results.json; it may have no benchmark, where a model lacks what each of them needs."""
    store, notes = content.get("store"), content.get("notes", [])
    if not isinstance(content.get("subject"), str) or not isinstance(content.get("benchmarks"), list):
        raise fault(path, "it tells no subject and benchmarks, as the folder of an evaluation does")
    if store is not None and not (
        isinstance(store, dict) and all(isinstance(store.get(p), str) for p in ("path", "fingerprint"))
    ):
        raise fault(path, "its store has no path and fingerprint")
    if not _texts(notes):
        raise fault(path, "its notes are not texts")
    return Scores(path, content, tuple(_benchmark(path, entry) for entry in content["benchmarks"]))


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _benchmark(path: Path, entry: object) -> Scored:
    words = ("name", "protocol", "title", "kind", "paragraph")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(part), str) for part in words):
        raise fault(path, f"a benchmark does not tell its {', '.join(words)}")
    name, rows, results = entry["name"], entry.get("rows"), entry.get("results", [])
    if entry["kind"] not in KINDS:
        raise fault(path, f"benchmark {name} is of no known kind")
    if not isinstance(entry.get("options"), dict) or not _texts(entry.get("notes")):
        raise fault(path, f"benchmark {name} does not tell its options and notes")
    if not isinstance(rows, list) or not rows:
        raise fault(path, f"benchmark {name} has no figures")
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise fault(path, f"the results of benchmark {name} are not a list of rows")
    found = tuple(_row(path, name, row) for row in rows)
    if len({(row.of, row.measure) for row in found}) < len(found):
        raise fault(path, f"benchmark {name} has a figure twice")
    head = rows[0]["protocol"]
    fusion = fused if isinstance(fused := entry.get("fusion"), str) else ""
    name, protocol, title, kind, paragraph = (entry[part] for part in words)
    return Scored(
        name,
        protocol,
        title,
        kind,
        paragraph,
        head,
        entry["options"],
        found,
        tuple(entry["notes"]),
        tuple(results),
        fusion,
    )


def _row(path: Path, benchmark: str, row: object) -> Measured:
    broken = fault(path, f"a figure of benchmark {benchmark} is not whole")
    if not isinstance(row, dict) or not all(isinstance(row.get(p), str) for p in ("protocol", "of", "measure", "unit")):
        raise broken
    value, num, chance = (
        finite_number(row.get("value")),
        finite_number(row.get("num")),
        finite_number(row.get("chance")),
    )
    each, each_of = row.get("each"), row.get("each_of", "")
    if value is None or num is None or num != int(num) or num < 0 or (chance is None and row.get("chance") is not None):
        raise broken
    shares = row.get("shares", False)
    if not isinstance(each, str | None) or not isinstance(each_of, str) or (each and not each_of):
        raise broken
    if not isinstance(shares, bool):
        raise broken
    return Measured(row["of"], row["measure"], value, int(num), chance, row["unit"], each or "", each_of, shares)


def finite_number(value: object) -> float | None:
    """A finite number as a float; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer that no float holds
        return None


def fault(path: Path, why: str) -> TrichordError:
    """What to raise for a results.json in folder `path`."""
    return damaged(path / RESULTS, why, AGAIN)
