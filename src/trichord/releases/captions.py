"""Captions of a HowTo100M release: a pickle, a JSON file, or a folder with one CSV file per video."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trichord.captions import Captions
from trichord.errors import TrichordError
from trichord.files.pickles import load_pickle
from trichord.files.reading import open_regular_text, parse_json, read_text, unreadable
from trichord.ids import IdIndex
from trichord.releases.pieces import named_path, plain_texts, raw_captions

FIELDS = ("start", "end", "text")
PICKLES = (".pickle", ".pkl")


def is_name(video_id: str) -> bool:
    """Return whether an id can be the name of a file in its folder."""
    return video_id not in ("", ".", "..") and not set(video_id) & {"/", "\0"}


class CaptionTable:
    """The captions of all videos from one pickle or JSON file: {video id: {start: [], end: [], text: []}}, in memory.

    Args:
        path: The file.

    Raises:
        TrichordError: The file is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        table = load_pickle(path) if path.suffix in PICKLES else _json(path)
        if not isinstance(table, dict):
            raise TrichordError(
                f"{path}: is not a table of captions by video id; choose the caption file with --captions"
            )
        self._table: dict[Any, Any] = table
        self.index = IdIndex((name for name in table if isinstance(name, str)), str(path))

    def _entry(self, video_id: str, default: Any = None) -> Any:
        return self._table.get(self.index.find(video_id), default)

    def texts(self, video_id: str) -> Iterator[str]:
        """Yield the texts of a video, from which words are collected; none if its entry is broken."""
        entry = self._entry(video_id)
        return iter(plain_texts(entry.get("text")) if isinstance(entry, dict) else ())

    def captions(self, video_id: str) -> tuple[Captions, int]:
        """Return the captions in the order of the file, and how many were dropped.

        Raises:
            TrichordError: The entry is broken.
        """
        source = f"{self.path}: {video_id}"
        entry = self._entry(video_id, {})
        if entry == {}:
            return Captions.empty(), 0
        if not isinstance(entry, dict) or any(entry.get(name) is None for name in FIELDS):
            raise TrichordError(f"{source} needs the lists start, end and text")
        return raw_captions(entry["start"], entry["end"], entry["text"], source)


class CaptionFolder:
    """Captions from a folder of VIDEO_ID.csv files with the columns start, end and text, which are read on demand.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = IdIndex((file.name.removesuffix(".csv") for file in path.glob("*.csv")), str(path))

    def texts(self, video_id: str) -> Iterator[str]:
        """Yield the texts of a video, from which words are collected; none if its file is missing or broken."""
        try:
            yield from self.captions(video_id)[0].text
        except TrichordError:
            return

    def captions(self, video_id: str) -> tuple[Captions, int]:
        """Return the captions in the order of the file, and how many were dropped.

        Raises:
            TrichordError: The file is broken.
        """
        name = self.index.find(video_id)
        if name is None or not is_name(name):
            return Captions.empty(), 0
        path = self.path / f"{name}.csv"
        try:
            with open_regular_text(path, newline="", encoding="utf-8-sig", errors="replace") as file:
                rows = list(csv.DictReader(file, skipinitialspace=True))
        except FileNotFoundError:
            return Captions.empty(), 0
        except (OSError, csv.Error) as error:
            raise unreadable(path, error) from None
        if rows and not set(FIELDS) <= set(rows[0]):
            raise TrichordError(f"{path}: needs the columns start, end and text")
        start, end, text = ([row[name] for row in rows] for name in FIELDS)
        return raw_captions(_seconds(start), _seconds(end), text, str(path))


CaptionSource = CaptionTable | CaptionFolder


def open_captions(root: Path, path: Path | None) -> CaptionSource:
    """Open the captions at `path`, or those in `root`: *caption*.pickle, else *caption*.json, else a folder *caption*.

    Raises:
        TrichordError: There are no captions, or they have another format.
    """
    path = named_path(root, path, "captions") if path else _find_captions(root)
    if path.is_dir():
        if next(path.glob("*.csv"), None) is None:
            raise TrichordError(f"{path}: contains no CSV file; choose the captions with --captions")
        return CaptionFolder(path)
    if path.suffix not in (*PICKLES, ".json"):
        raise TrichordError(
            f"{path}: is neither a .pickle file, a .json file nor a folder; choose the captions with --captions"
        )
    return CaptionTable(path)


def _find_captions(root: Path) -> Path:
    named = sorted(p for p in root.iterdir() if "caption" in p.name.lower())
    for suffixes in (PICKLES, (".json",)):
        if files := [p for p in named if p.is_file() and p.suffix in suffixes]:
            return files[0]
    if folders := [p for p in named if p.is_dir()]:
        return folders[0]
    problem = "contains no captions (caption.pickle, caption.json or a folder *caption* of CSV files)"
    raise TrichordError(f"{root}: {problem}; choose them with --captions")


def _json(path: Path) -> Any:
    try:
        return parse_json(read_text(path), unique_keys=True)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise TrichordError(f"{path}: is not JSON ({error}); download it again") from None


def _seconds(values: list[str | None]) -> list[float]:
    """Return the times in a CSV column. Text that is not a number becomes NaN, and its caption is dropped."""
    seconds = []
    for value in values:
        try:
            seconds.append(float(value or "nan"))
        except ValueError:
            seconds.append(float("nan"))
    return seconds
