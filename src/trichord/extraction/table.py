"""A table of clips: CSV, TSV, JSON lines or Parquet, with one row per clip (or per caption of a clip).

| field    | columns               | content |
|----------|-----------------------|---------|
| id       | id, clip_id, video_id | id of the clip; if empty, it is made from the file name, start and end |
| video    | video, path           | media file of the pictures, and of the sound if there is no audio |
| image    | image                 | still picture instead of a video |
| audio    | audio                 | media file of the sound |
| text     | text, caption, sentence | captions of the whole clip: one text, or a list of texts (JSON lines, Parquet) |
| captions | captions              | caption file with the time axis of video and audio, instead of text |
| start    | start, start_s        | start of the clip in seconds; empty: 0 |
| end      | end, end_s            | end of the clip; empty: end of the file |
| split    | split                 | train, val (or validation, validate), test; empty: by the split rule |

With `--modality depth=d`, the column `depth` contains files of feature arrays (`extraction.arrays`). Column names are not
case-sensitive. Paths are relative to the folder of the table. Any field may be empty, but each row must have a video, an image, an
audio file or an array. Rows with the same id that differ only in the text are one clip with several texts. With a folder of videos
(`videos`), `video_id` refers to a file in it (VIDEO_ID.mp4, .mkv, ...). The id of a clip without id or clip_id is then
VIDEO_ID_START-END.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from trichord.captions.formats.cues import clock_seconds
from trichord.errors import TrichordError, one_line
from trichord.extraction.sources import Source
from trichord.extraction.table_rows import COLUMNS, table_rows
from trichord.files.reading import missing
from trichord.files.suffixes import VIDEO_SUFFIXES
from trichord.ids import IdIndex, without_media_suffix

_FILES = ("video", "image", "audio", "captions")
_SPLITS = {"train": "train", "val": "val", "validation": "val", "validate": "val", "test": "test"}
_NOTED_COLUMNS = 10


def read_table(
    path: str | Path,
    videos: Path | None = None,
    *,
    modalities: Sequence[str] = (),
    may_lack: bool = False,
    notes: list[str] | None = None,
) -> list[Source]:
    """Read the clips of a table, in its order. The module docstring describes the columns.

    A missing file is not an error here, unless all files are missing.

    Args:
        path: The table: .csv, .tsv, .jsonl or .parquet.
        videos: The folder of the videos that the column video_id refers to.
        modalities: The names of modalities beyond video, audio and text. The columns of these names contain files of feature
            arrays.
        may_lack: Whether the table may lack the column of a modality.
        notes: A list that receives one line about ignored columns.

    Raises:
        TrichordError: The table cannot be read, has no usable column, lacks the column of a modality, has no row, an invalid value
            (the message names row and column) or a repeated id, or none of its files exists.
    """
    path = Path(path)
    rows = table_rows(path, modalities)
    reader = _Reader(path, _VideoFolder(videos) if videos is not None else None, tuple(modalities), may_lack)
    clips: dict[str, tuple[int, Source]] = {}
    for number, row in rows:
        source = reader.source(number, row)
        if source.video_id not in clips:
            clips[source.video_id] = (number, source)
            continue
        first, known = clips[source.video_id]
        if replace(source, text=(), name="") != replace(known, text=(), name="") or not (source.text and known.text):
            raise TrichordError(
                f"{path}: rows {first} and {number} both have the id '{source.video_id}' and are not captions of one "
                "clip; give each clip an id of its own (column clip_id)"
            )
        clips[source.video_id] = (first, replace(known, text=tuple(dict.fromkeys(known.text + source.text))))
    if not clips:
        raise TrichordError(f"{path}: contains no rows; pass a table with one row per clip")
    reader.check_modalities()
    if notes is not None and reader.unread:
        more = len(reader.unread) - _NOTED_COLUMNS
        listed = ", ".join(list(reader.unread)[:_NOTED_COLUMNS]) + (f" and {more} more" if more > 0 else "")
        notes.append(f"{path}: ignored columns: {listed}")
    sources = [source for _, source in clips.values()]
    if all(_is_missing(file) for source in sources for file in source.files):
        where = f"relative to {path.parent}" if videos is None else f"videos in {videos}"
        raise TrichordError(
            f"{path}: none of its files exists, e.g. {sources[0].files[0]}; paths are {where}; correct the paths"
        )
    return sources


def _is_missing(path: Path) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # reported when the clip is extracted
    return False


class _VideoFolder:
    """The videos of a folder, by the names that a table may use for them.

    Raises:
        TrichordError: The folder does not exist.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise missing(folder, "folder", mend="pass the folder of the videos of the table")
        self._folder = folder
        files = [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
        ranked = [(VIDEO_SUFFIXES.index(f.suffix.lower()), f) for f in files if f.suffix.lower() in VIDEO_SUFFIXES]
        self._by_stem = {file.stem: file for _, file in sorted(ranked, reverse=True)}
        self._by_name = {file.name: file for _, file in ranked}
        self._stems = IdIndex(self._by_stem, str(folder))

    def file(self, video_id: str) -> Path:
        """Return the file for an id, which may be a file name, its stem, or its stem without known media suffixes.

        If several files have the same stem, the one whose suffix comes first in VIDEO_SUFFIXES is returned. If there is no file,
        the path of the missing MP4 file is returned.

        Raises:
            TrichordError: The id may refer to two videos.
        """
        if video_id in self._by_name:
            return self._by_name[video_id]
        stem = self._stems.find(video_id)
        return self._folder / f"{without_media_suffix(video_id)}.mp4" if stem is None else self._by_stem[stem]


@dataclass
class _Reader:
    """Turns rows into sources. `unread` collects the names of unknown columns."""

    path: Path
    videos: _VideoFolder | None
    modalities: tuple[str, ...] = ()
    may_lack: bool = False
    unread: dict[str, None] = field(default_factory=dict)
    _fields: dict[str, str] = field(default_factory=dict)  # field by column name as spelled in the table

    def source(self, number: int, row: dict[str, Any]) -> Source:
        """Return the source of a row."""
        values, columns = self._values(number, row)

        def value_error(name: str, problem: str) -> TrichordError:
            return self._wrong(number, columns.get(name, name), problem)

        files = {name: self._file(number, columns[name], values[name]) for name in _FILES if name in values}
        arrays = {name: self._file(number, columns[name], values[name]) for name in self.modalities if name in values}
        texts = self._texts(number, columns["text"], values["text"]) if "text" in values else ()
        start_s, end_s = (self._seconds(number, columns, values, name) for name in ("start", "end"))
        split = str(values.get("split", "")).strip()
        if split and split.lower() not in _SPLITS:
            raise value_error("split", f"'{split[:40]}' is not a split; use train, val or test, or leave it empty")
        ids: dict[str, str] = {
            name: self._line(number, columns[name], values[name]) for name in ("id", "video_id") if name in values
        }
        if self.videos is not None and "video_id" in ids and "video" not in files:
            files["video"] = self.videos.file(ids["video_id"])
        if texts and "captions" in files:
            raise value_error("captions", "has a file although the row also has a text; keep one of them")
        if "video" in files and "image" in files:
            raise value_error("image", "has a picture although the row also has a video; keep one of them")
        if not files.keys() & {"video", "image", "audio"} and not arrays:
            if self.path.suffix.lower() != ".jsonl":  # later rows of JSON lines may have columns that this one lacks
                self.check_modalities()
            hint = "; also pass the folder of the videos" if "video_id" in ids and self.videos is None else ""
            others = ", ".join(("image", "audio", *self.modalities)[:-1])
            last = ("audio", *self.modalities)[-1]
            raise value_error("video", f"is empty, and so are {others} and {last}; fill in one of them{hint}")
        if not files.keys() & {"video", "audio"}:
            if not arrays and (start_s is not None or end_s is not None):
                problem = "has no effect on a picture without sound; leave it empty"
                raise value_error("start" if start_s is not None else "end", problem)
            if start_s is not None and end_s is None:
                raise value_error(
                    "start",
                    "has no matching end, and the row has no video or audio with a duration; fill in the end too",
                )
        if end_s is not None and end_s <= (start_s or 0.0):
            raise value_error("end", f"{end_s:g} is not after the start ({start_s or 0.0:g}); correct it")
        video_id = ids.get("id") or self._default_id(ids, values, start_s, end_s)
        return Source(
            video_id=video_id,
            name=f"{self.path.name} row {number} ({video_id})",
            **files,
            text=texts,
            start_s=start_s or 0.0,
            end_s=end_s,
            split=_SPLITS.get(split.lower(), ""),
            file_name=self._file_name(ids, values),
            arrays=arrays,
        )

    @property
    def _clip_files(self) -> tuple[str, ...]:
        """The fields that contain a file of the clip itself; the first one determines its name."""
        return ("video", "image", "audio", *self.modalities)

    def check_modalities(self) -> None:
        """Check that the table has the column of each modality. Rows of JSON lines may lack columns.

        Raises:
            TrichordError: A column is missing.
        """
        absent = [name for name in self.modalities if name not in self._fields.values()]
        if absent and not self.may_lack:
            columns = ", ".join((*self._fields, *self.unread))
            raise TrichordError(
                f"{self.path}: has no column {absent[0]}, which --modality names; its columns are {columns[:200]}; "
                "correct the table or the option"
            )

    def _file_name(self, ids: dict[str, str], values: dict[str, Any]) -> str:
        """Return the file as the table refers to it: its path, or the id of a video in `videos`."""
        if "video_id" in ids and self.videos is not None:
            return ids["video_id"]
        return str(next((values[name] for name in self._clip_files if name in values), "")).strip()

    def _default_id(
        self, ids: dict[str, str], values: dict[str, Any], start_s: float | None, end_s: float | None
    ) -> str:
        if "video_id" in ids and self.videos is None:
            return ids["video_id"]
        if "video_id" in ids:
            stem = ids["video_id"]
        else:
            name = PurePosixPath(next(str(values[f]).strip() for f in self._clip_files if f in values))
            inside = not name.is_absolute() and ".." not in name.parts
            stem = name.with_suffix("").as_posix() if inside else name.stem
        if start_s is None and end_s is None:
            return stem
        return f"{stem}_{_brief(start_s or 0.0)}-{'' if end_s is None else _brief(end_s)}"

    def _values(self, number: int, row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the values that are present by field, and the column of each field."""
        values: dict[str, Any] = {}
        columns: dict[str, str] = {}
        if unknown := [column for column in row if column not in self._fields and column not in self.unread]:
            self._assign_fields(unknown)
        for column, value in row.items():
            name = self._fields.get(column)
            if name is None:
                continue
            if name in columns and columns[name] != column:
                raise TrichordError(
                    f"{self.path}: the columns {columns[name]} and {column} both contain the {name}; rename one of them"
                )
            columns[name] = column
            empty = value is None or (isinstance(value, float) and math.isnan(value))
            if not (
                empty or (isinstance(value, (str, list)) and not (value.strip() if isinstance(value, str) else value))
            ):
                values[name] = value
        return values, columns

    def _assign_fields(self, unknown: list[str]) -> None:
        for column in unknown:
            plain = column.strip().lower()
            modality = plain if plain in self.modalities else None
            name = modality or next((name for name, spellings in COLUMNS.items() if plain in spellings), None)
            if name is None:
                self.unread[column] = None
            else:
                self._fields[column] = name
        usable = {*self._clip_files} | ({"video_id"} if self.videos is not None else set())
        if not usable & set(self._fields.values()):
            *most, last = self._clip_files
            needed = f"{', '.join(most)} or {last}" + (" (or video_id)" if self.videos is not None else "")
            hint = (
                ", or pass the folder of the videos"
                if "video_id" in self._fields.values() and self.videos is None
                else ""
            )
            raise TrichordError(
                f"{self.path}: has no column {needed}; its columns are {', '.join(unknown)[:80]}; add a column with files{hint}"
            )

    def _wrong(self, number: int, column: str, problem: str) -> TrichordError:
        return TrichordError(f"{self.path}, row {number}, column {column}: {one_line(problem)}")

    def _line(self, number: int, column: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or "\n" in str(value).strip():
            raise self._wrong(number, column, f"'{str(value)[:40]}' is not a single line of text; correct it")
        return str(value).strip()

    def _file(self, number: int, column: str, value: Any) -> Path:
        if not isinstance(value, str) or "\0" in value:
            raise self._wrong(number, column, f"'{str(value)[:40]}' is not a path; correct it")
        return self.path.parent / value.strip()

    def _texts(self, number: int, column: str, value: Any) -> tuple[str, ...]:
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise self._wrong(number, column, f"'{str(value)[:40]}' is neither a text nor a list of texts; correct it")
        return tuple(folded for text in texts if (folded := one_line(text)))

    def _seconds(self, number: int, columns: dict[str, str], values: dict[str, Any], name: str) -> float | None:
        if name not in values:
            return None
        value = values[name]
        try:
            is_clock = isinstance(value, str) and ":" in value
            seconds = math.nan if isinstance(value, bool) else (clock_seconds(value) if is_clock else float(value))
        except (TypeError, ValueError):
            seconds = math.nan
        if seconds is None or not (math.isfinite(seconds) and seconds >= 0):
            raise self._wrong(number, columns[name], f"'{str(value)[:40]}' is not a number of seconds; correct it")
        return seconds


def _brief(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
