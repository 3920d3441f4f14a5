"""Labels of clips from a file: what each video or span shows, and which folds it is of.

Read are, N clips and R rows:

| file | what it is |
|---|---|
| `.csv`, `.jsonl` | a row per clip, video or span: `id` (the clip's or the video's), maybe `start` and `end` (seconds), labels |
| `world.json` | the truth of a built-in world: action, tool, object and place of each step |
| a folder | the official lists of UCF101 (`trainlist01.txt`, ...) or HMDB51 (`CLASS_test_split1.txt`, ...): class, three folds |

A column `split`, or one whose name begins with `fold`, says `train` or `test`; every other column is a labelling.

Which rows are a clip's: those with its id; else those of its video; else those whose id is the video's without a leading
folder `train`, `val` or `test` and without a file's suffix; else those with the same last part, where one id alone has it.
Of rows with a span the clip takes the one that it shares most seconds with (the first of equals), none if it shares none.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.evaluation.embedded import Embedded
from trichord.files.reading import parse_json, parse_json_row, unreadable

SPLITS = ("train", "val", "test")
_NO_LABELS = ("id", "start", "end", "video", "image", "audio", "text", "captions")
_SUFFIX = re.compile(r"\.(avi|mp4|mkv|webm|mov|mpg|mpeg|wav|flac|mp3|jpg|jpeg|png)$", re.IGNORECASE)
_UCF = re.compile(r"(train|test)list(\d+)\.txt")
_HMDB = re.compile(r"(.+)_test_split(\d+)\.txt")
_HMDB_MARKS = {"1": "train", "2": "test"}  # 0: in neither


@dataclass(frozen=True, eq=False)
class LabelTable:
    """R rows of a file.

    Attributes:
        source: The file, for messages.
        ids: R ids of clips or videos.
        start_s, end_s: (R,) the span, NaN where the row is of the whole.
        columns: By name R texts, '' where nothing is said: labellings, `split` and `fold...`.
    """

    source: str
    ids: list[str]
    start_s: np.ndarray
    end_s: np.ndarray
    columns: dict[str, list[str]]

    def of_clips(self, found: Embedded) -> dict[str, np.ndarray]:
        """By column (N,) texts of these clips, '' where the file says nothing.

        Raises TrichordError when it says nothing of any clip.
        """
        lookups = self._lookups()
        taken = np.array([self._row(found, clip, lookups) for clip in range(found.num_clips)], np.int64)
        if not (taken >= 0).any():
            example, own = (one_line(names[0]) if len(names) else "none" for names in (self.ids, found.videos))
            raise TrichordError(
                f"{self.source}: labels none of the {found.num_clips:,} clips of {found.source}; an id there is '{example}', "
                f"a video here '{own}'"
            )
        return {
            name: np.array([values[row] if row >= 0 else "" for row in taken.tolist()], np.str_)
            for name, values in self.columns.items()
        }

    def _lookups(self) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[str, list[int]]]:
        """Rows by id, by plain name, and by its last part where one plain name has it."""
        exact: dict[str, list[int]] = {}
        plain: dict[str, list[int]] = {}
        last: dict[str, set[str]] = {}
        for row, name in enumerate(self.ids):
            exact.setdefault(name, []).append(row)
            plain.setdefault(plain_name(name), []).append(row)
            last.setdefault(plain_name(name).rpartition("/")[2], set()).add(plain_name(name))
        return exact, plain, {part: plain[next(iter(of))] for part, of in last.items() if len(of) == 1}

    def _row(self, found: Embedded, clip: int, lookups: tuple[dict[str, list[int]], ...]) -> int:
        """The row that labels a clip, or -1."""
        exact, plain, last = lookups
        name, video = str(found.ids[clip]), str(found.videos[clip])
        rows = exact.get(name) or exact.get(video) or plain.get(plain_name(video))
        rows = rows or last.get(plain_name(video).rpartition("/")[2]) or []
        best, most = -1, 0.0
        for row in rows:
            if math.isnan(self.start_s[row]):
                return row
            shared = min(found.end_s[clip], self.end_s[row]) - max(found.start_s[clip], self.start_s[row])
            if shared > most:
                best, most = row, shared
        return best


def plain_name(name: str) -> str:
    """A video's name without a leading folder of a split and without a file's suffix."""
    top, _, rest = name.partition("/")
    return _SUFFIX.sub("", rest if rest and top in SPLITS else name)


def is_fold(column: str) -> bool:
    return column == "split" or column.startswith("fold")


def read_labels(path: Path) -> LabelTable:
    """Read a file as the module describes it. Raises TrichordError, one line, when it is none of these."""
    if path.is_dir():
        return _official_lists(path)
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".json":
            return _world(path, parse_json(text))
        if path.suffix == ".jsonl":
            rows = [parse_json_row(line) for line in text.splitlines() if line.strip()]
        elif path.suffix == ".csv":
            rows = list(csv.DictReader(text.splitlines()))
        else:
            raise TrichordError(
                f"{path}: labels are read from .csv, .jsonl, a world.json or a folder of official lists"
            )
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise unreadable(path, error, mend="give a table of labels with a column id") from None
    return _table(path, rows)


def _table(path: Path, rows: list[Any]) -> LabelTable:
    ids: list[str] = []
    spans: list[tuple[float, float]] = []
    names = list(dict.fromkeys(str(name) for row in rows if isinstance(row, dict) for name in row if name is not None))
    columns: dict[str, list[str]] = {name: [] for name in names if name not in _NO_LABELS}
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        if not isinstance(row, dict) or not _text(row.get("id")):
            raise TrichordError(f"{where} has no id; give each row the id of a clip or a video")
        ids.append(_text(row["id"]))
        start, end = _seconds(row.get("start"), where), _seconds(row.get("end"), where)
        if math.isnan(start) != math.isnan(end) or end <= start:
            raise TrichordError(f"{where} has a span from {row.get('start')} to {row.get('end')}; give both, end last")
        spans.append((start, end))
        for name, values in columns.items():
            values.append(_text(row.get(name)))
    if not ids or not columns:
        raise TrichordError(f"{path}: holds no labels; give it a column id and one of labels, e.g. class")
    times = np.array(spans, np.float64).reshape(-1, 2)
    return LabelTable(str(path), ids, times[:, 0], times[:, 1], columns)


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
        raise TrichordError(f"{where}: '{one_line(value)}' is no time in seconds; correct or empty it")
    return seconds


def _world(path: Path, found: Any) -> LabelTable:
    """The steps of a built-in world's videos, as `world.truth` writes them."""
    factors = ("action", "tool", "object", "place")
    try:
        steps = [(f"{v['split']}/{v['video_id']}", step) for v in found["videos"] for step in v["steps"]]
        spans = np.array([(step["start_s"], step["end_s"]) for _, step in steps], np.float64).reshape(-1, 2)
        columns = {name: [str(step[name]) for _, step in steps] for name in factors}
    except (KeyError, TypeError, ValueError):
        raise TrichordError(f"{path}: is no truth of a built-in world; labels come as .csv or .jsonl too") from None
    return LabelTable(str(path), [name for name, _ in steps], spans[:, 0], spans[:, 1], columns)


def _official_lists(folder: Path) -> LabelTable:
    """UCF101's lists hold `Class/video.avi`, those of training with a number; HMDB51's `video.avi 0`, 1 or 2 by class."""
    fold: dict[str, dict[str, str]] = {}  # column -> id -> train or test
    for path in sorted(folder.iterdir()):
        if listed := _UCF.fullmatch(path.name):
            here = fold.setdefault(f"fold-{int(listed[2])}", {})
            here |= {name: listed[1] for name, _ in _lines(path)}
        elif listed := _HMDB.fullmatch(path.name):
            here = fold.setdefault(f"fold-{int(listed[2])}", {})
            here |= {f"{listed[1]}/{name}": _HMDB_MARKS.get(mark, "") for name, mark in _lines(path)}
    ids = sorted({name for marks in fold.values() for name in marks})
    if not ids:
        raise TrichordError(f"{folder}: holds no lists of UCF101 (trainlist01.txt) or HMDB51 (CLASS_test_split1.txt)")
    if odd := [name for name in ids if "/" not in name]:
        raise TrichordError(f"{folder}: '{one_line(odd[0])}' has no class before it; unpack the official lists again")
    columns = {"class": [name.partition("/")[0] for name in ids]}
    columns |= {name: [fold[name].get(one, "") for one in ids] for name in sorted(fold)}
    nowhere = np.full(len(ids), np.nan)
    return LabelTable(str(folder), ids, nowhere, nowhere, columns)


def _lines(path: Path) -> Iterable[tuple[str, str]]:
    """(first field, last field or '') of each line."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, mend="unpack it again") from None
    for line in lines:
        name, _, mark = line.strip().partition(" ")
        if name:
            yield name, mark.strip()
