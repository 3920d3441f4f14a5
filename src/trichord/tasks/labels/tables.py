"""Labels and folds of clips from a file.

Supported files, for N clips and R rows:

| file | content |
|---|---|
| `.csv`, `.tsv`, `.jsonl` | rows with the `id` of a clip or video, optionally `start` and `end` (seconds), and labels |
| `world.json` | the truth of a built-in world: action, tool, object and place of each step |
| a folder | the official lists of UCF101 (`trainlist01.txt`, ...) or HMDB51 (`CLASS_test_split1.txt`, ...): class, three folds |

The values of a column `split`, or of a column whose name begins with `fold`, are `train` and `test`. Every other column is a
labelling.

The rows of a clip are those with its id, either unchanged, or without a leading folder `train`, `val` or `test` and without the
suffix of a media file. If there are none, they are those of its video in the same way, or else those with the same last part of
the id. It is an error if a clip matches two different ids in one of these ways, or if an id has two rows for the same times with
different content. Among rows with times, the one with the longest overlap is used (the first of equals). Without any overlap, the
clip has no label.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.evaluation.embedded import Embedded
from trichord.files.arrays import text_array
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import parse_json, parse_json_row, read_given_text, read_text, unreadable
from trichord.files.tables import lines_and_delimiter
from trichord.ids import IdIndex, check_matched, without_media_suffix

SPLITS = ("train", "val", "test")
_NO_LABELS = ("id", "start", "end", "video", "image", "audio", "text", "captions")
_UCF = re.compile(r"(train|test)list(\d+)\.txt")
_HMDB = re.compile(r"(.+)_test_split(\d+)\.txt")
_HMDB_MARKS = {"1": "train", "2": "test"}  # 0 means neither


@dataclass(frozen=True, eq=False)
class LabelTable:
    """R rows of a file of labels.

    Attributes:
        source: Path of the file, for messages.
        ids: R ids of clips or videos.
        start_s: Starts (R,) in seconds. NaN if the row describes the whole clip or video.
        end_s: Ends (R,) in seconds, or NaN.
        columns: R values by name of the column: labellings, `split` and `fold...`. '' marks a missing value.
    """

    source: str
    ids: list[str]
    start_s: np.ndarray
    end_s: np.ndarray
    columns: dict[str, list[str]]

    def of_clips(self, embedded: Embedded, *, allow_missing: bool = False) -> dict[str, np.ndarray]:
        """Return the values of clips.

        Args:
            embedded: N clips.
            allow_missing: Whether more than half of the clips may be missing in the file.

        Returns:
            Values (N,) by column. '' for clips that the file does not label.

        Raises:
            TrichordError: The file labels none of the clips, or less than half of them without `allow_missing`, or a clip matches
                two ids.
        """
        lookups = self._lookups()
        names = [self._id_of(embedded, clip, lookups) for clip in range(embedded.num_clips)]
        known = {clip: name for clip, name in zip(embedded.ids.tolist(), names, strict=True) if name is not None}
        index, option = IdIndex(self.ids, self.source), "--missing drop"
        check_matched(
            embedded.ids.tolist(), known, index, source=embedded.source, allow_missing=allow_missing, option=option
        )
        taken = np.array([self._row(embedded, clip, lookups[0], name) for clip, name in enumerate(names)], np.int64)
        if not (taken >= 0).any():
            raise TrichordError(
                f"{self.source}: none of its times overlaps with a clip of {embedded.source}; check the times"
            )
        return {
            name: text_array([values[row] if row >= 0 else "" for row in taken.tolist()], f"{self.source}: {name}")
            for name, values in self.columns.items()
        }

    def _lookups(self) -> tuple[dict[str, list[int]], dict[str, list[str]], dict[str, list[str]]]:
        """Return three indexes: from ids to rows, from ids without media suffix to ids, and from last path components to ids."""
        exact: dict[str, list[int]] = {}
        plain: dict[str, list[str]] = {}
        last: dict[str, list[str]] = {}
        for row, name in enumerate(self.ids):
            exact.setdefault(name, []).append(row)
        for name in exact:
            plain.setdefault(plain_name(name), []).append(name)
            last.setdefault(plain_name(name).rpartition("/")[2], []).append(name)
        return exact, plain, last

    def _id_of(
        self,
        embedded: Embedded,
        clip: int,
        lookups: tuple[dict[str, list[int]], dict[str, list[str]], dict[str, list[str]]],
    ) -> str | None:
        """Return the id in this table that a clip has, or None."""
        exact, plain, last = lookups
        for name in (str(embedded.ids[clip]), str(embedded.videos[clip])):
            if name in exact:
                return name
            if candidates := plain.get(plain_name(name)):
                return self._only(name, candidates)
        name = str(embedded.videos[clip])
        candidates = last.get(plain_name(name).rpartition("/")[2])
        return self._only(name, candidates) if candidates else None

    def _only(self, name: str, candidates: list[str]) -> str:
        if len(candidates) > 1:
            raise TrichordError(
                f"{self.source}: clip '{one_line(name)}' matches '{one_line(candidates[0])}' and '{one_line(candidates[1])}'; "
                "use the ids of the clips in the labels"
            )
        return candidates[0]

    def _row(self, embedded: Embedded, clip: int, rows: dict[str, list[int]], name: str | None) -> int:
        """Return the row that labels a clip, or -1."""
        best, most = -1, 0.0
        for row in rows[name] if name is not None else ():
            if math.isnan(self.start_s[row]):
                return row
            shared = min(embedded.end_s[clip], self.end_s[row]) - max(embedded.start_s[clip], self.start_s[row])
            if shared > most:
                best, most = row, shared
        return best


def plain_name(name: str) -> str:
    """Return the name of a video without a leading folder of a split and without the suffix of a media file."""
    top, _, rest = name.partition("/")
    return without_media_suffix(rest if rest and top in SPLITS else name)


def is_fold(column: str) -> bool:
    """Return whether a column contains folds instead of labels."""
    return column == "split" or column.startswith("fold")


def read_labels(path: Path) -> LabelTable:
    """Read a file of labels.

    Args:
        path: File or folder, as listed in the description of the module.

    Raises:
        TrichordError: It is none of these, or cannot be read.
    """
    if path.is_dir():
        return _official_lists(path)
    refuse_lfs_pointer(path)
    try:
        text = read_given_text(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            return _world(path, parse_json(text))
        if suffix == ".jsonl":
            rows = [parse_json_row(line) for line in text.splitlines() if line.strip()]
        elif suffix in (".csv", ".tsv"):
            lines, delimiter = lines_and_delimiter(iter(io.StringIO(text, newline="")))
            reader = csv.DictReader(lines, delimiter=delimiter)
            reader.fieldnames = [_column(name) for name in reader.fieldnames or ()]
            rows = [row for row in reader if _has_cells(row)]
        else:
            raise TrichordError(
                f"{path}: not a file of labels; give a .csv, .tsv or .jsonl file, a world.json or a folder of official lists"
            )
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise unreadable(path, error, mend="give a table of labels with a column id") from None
    return _table(path, rows)


def _table(path: Path, rows: list[Any]) -> LabelTable:
    ids: list[str] = []
    spans: list[tuple[float, float]] = []
    names = list(dict.fromkeys(str(name) for row in rows if isinstance(row, dict) for name in row if name))
    columns: dict[str, list[str]] = {name: [] for name in names if name not in _NO_LABELS}
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        if not isinstance(row, dict) or not _text(row.get("id")):
            raise TrichordError(f"{where} has no id; give each row the id of a clip or a video")
        ids.append(_text(row["id"]))
        start, end = _seconds(row.get("start"), where), _seconds(row.get("end"), where)
        if math.isnan(start) != math.isnan(end) or end <= start:
            raise TrichordError(
                f"{where} has start {row.get('start')} and end {row.get('end')}; give both, with start before end"
            )
        spans.append((start, end))
        for name, values in columns.items():
            values.append(_text(row.get(name)))
    if not ids or not columns:
        raise TrichordError(f"{path}: contains no labels; add a column id, and a column with labels, such as class")
    _refuse_conflicts(path, ids, spans, columns)
    times = np.array(spans, np.float64).reshape(-1, 2)
    return LabelTable(str(path), ids, times[:, 0], times[:, 1], columns)


def _refuse_conflicts(
    path: Path, ids: list[str], spans: list[tuple[float, float]], columns: dict[str, list[str]]
) -> None:
    """Raise TrichordError if a clip, or a span of it, has two rows with different content."""
    first: dict[tuple[str, str], int] = {}
    whole = {name for name, (start, _) in zip(ids, spans, strict=True) if math.isnan(start)}
    for row, (name, span) in enumerate(zip(ids, spans, strict=True)):
        known = first.setdefault(
            (name, "" if name in whole else str(span)), row
        )  # rows of a whole clip cannot be told apart by times
        for column, values in columns.items():
            if values[row] != values[known]:
                both_values = ", ".join(values[r] or "nothing" for r in (known, row))
                raise TrichordError(
                    f"{path}: clip '{one_line(name)}' has two values of {one_line(column)} ({one_line(both_values)}) in rows "
                    f"{known + 1} and {row + 1}; keep one of them"
                )


def _column(name: str) -> str:
    """Return the name of a column. The names of columns without labels are converted to lower case."""
    plain = name.strip()
    return plain.lower() if plain.lower() in _NO_LABELS else plain


def _has_cells(row: dict[Any, Any]) -> bool:
    """Return whether a row has a cell with content, since Excel may append empty rows to a table."""
    return any(_text(value) for value in row.values())


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value).strip()


def _seconds(value: object, where: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise TrichordError(f"{where}: '{one_line(value)}' is not a time in seconds; correct it or remove it")
    return seconds


def _world(path: Path, world: Any) -> LabelTable:
    """Return the steps of the videos of a built-in world, which `world.truth` wrote."""
    factors = ("action", "tool", "object", "place")
    try:
        steps = [(f"{v['split']}/{v['video_id']}", step) for v in world["videos"] for step in v["steps"]]
        spans = np.array([(step["start_s"], step["end_s"]) for _, step in steps], np.float64).reshape(-1, 2)
        columns = {name: [str(step[name]) for _, step in steps] for name in factors}
    except (KeyError, TypeError, ValueError):
        raise TrichordError(
            f"{path}: is not the truth of a built-in world; give a .csv or .jsonl file of labels"
        ) from None
    return LabelTable(str(path), [name for name, _ in steps], spans[:, 0], spans[:, 1], columns)


def _official_lists(folder: Path) -> LabelTable:
    """Read the official lists in a folder.

    A line of UCF101 is `Class/video.avi`, followed by a number in training lists. HMDB51 has a file for each class, and a line is
    `video.avi`, followed by 0, 1 or 2.
    """
    fold: dict[str, dict[str, str]] = {}  # train or test, by column and id
    for path in sorted(folder.iterdir()):
        if listed := _UCF.fullmatch(path.name):
            _add_listed(
                path, fold.setdefault(f"fold-{int(listed[2])}", {}), {name: listed[1] for name, _ in _lines(path)}
            )
        elif listed := _HMDB.fullmatch(path.name):
            here = fold.setdefault(f"fold-{int(listed[2])}", {})
            for name, mark in _lines(path):
                _add_listed(path, here, {f"{listed[1]}/{name}": _HMDB_MARKS.get(mark, "")})
    ids = sorted({name for marks in fold.values() for name in marks})
    if not ids:
        raise TrichordError(
            f"{folder}: contains no lists of UCF101 (trainlist01.txt) or HMDB51 (CLASS_test_split1.txt)"
        )
    if odd := [name for name in ids if "/" not in name]:
        raise TrichordError(f"{folder}: '{one_line(odd[0])}' has no class in front; unpack the official lists again")
    columns = {"class": [name.partition("/")[0] for name in ids]}
    columns |= {name: [fold[name].get(one, "") for one in ids] for name in sorted(fold)}
    nowhere = np.full(len(ids), np.nan)
    return LabelTable(str(folder), ids, nowhere, nowhere, columns)


def _add_listed(path: Path, fold: dict[str, str], listed: dict[str, str]) -> None:
    for name, mark in listed.items():
        if fold.setdefault(name, mark) != mark:
            both_folds = ", ".join(one or "neither" for one in (fold[name], mark))
            raise TrichordError(
                f"{path}: clip '{one_line(name)}' is in two parts of a fold ({both_folds}); unpack the lists again"
            )


def _lines(path: Path) -> Iterable[tuple[str, str]]:
    """Yield the first field and the last field (or '') of each line."""
    try:
        lines = read_text(path, encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, mend="unpack it again") from None
    for line in lines:
        name, _, mark = line.strip().partition(" ")
        if name:
            yield name, mark.strip()
