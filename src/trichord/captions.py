"""Timed text: read it from the files that stand beside videos, split it into words, clean it.

Reading changes nothing but the spelling of one cue: tags and entities go, white space folds. What is wrong with the
times of captions is decided in `clean_captions`, which says what it did.
"""

from __future__ import annotations

import csv
import errno
import html
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from trichord.errors import TrichordError, one_line

SIDECAR_SUFFIXES = (".vtt", ".srt", ".json", ".csv")
_LANGUAGES = ("", ".en", ".en-US", ".en-GB", ".en-orig")

_CLASS_CUT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[\w']+")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|</?>|<[\d:.]+>|\{\\[^{}]*\}")
_LONG_ENTITY = re.compile(r"&#[0-9]{1000,};?")  # Python reads no number of some thousand digits
_INLINE_STAMP = re.compile(r"<\d+:\d\d[\d:.]*>")
_STAMP = re.compile(r"(?:(\d{1,9}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?")


@dataclass(frozen=True, eq=False)
class Captions:
    """N timed texts: caption i is `text[i]`, spoken in [start_s[i], end_s[i])."""

    start_s: np.ndarray  # float64 (N,)
    end_s: np.ndarray  # float64 (N,)
    text: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_s", np.asarray(self.start_s, np.float64))
        object.__setattr__(self, "end_s", np.asarray(self.end_s, np.float64))
        object.__setattr__(self, "text", tuple(self.text))
        shape = (len(self.text),)
        if not self.start_s.shape == self.end_s.shape == shape:
            raise ValueError("captions need as many starts, ends and texts")

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def empty(cls) -> Captions:
        return cls(np.zeros(0), np.zeros(0), ())

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[float, float, str]]) -> Captions:
        """Captions from (start_s, end_s, text) rows."""
        rows = list(rows)
        return cls(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), tuple(r[2] for r in rows))


def tokenize(text: str) -> list[str]:
    """Words of `text` as the published loaders split it: runs of word characters and apostrophes, case kept."""
    return _WORD.findall(str(text))


def class_text(name: str) -> str:
    """The name of a class as words: `ApplyEyeMakeup` and `apply_eye_makeup` are both `apply eye makeup`.

    Cut where a small letter or a digit meets a capital, before the last capital of several that a small letter follows
    (`HTMLPage`: html page), and at anything that is no letter, digit or apostrophe; then in small letters.
    """
    return " ".join(re.findall(r"[^\W_']+(?:'[^\W_]+)*", _CLASS_CUT.sub(" ", str(name)))).lower()


def plain_text(markup: str) -> str:
    """The text of a cue: tags (`<i>`, `<c.yellow>`, `<00:01.000>`, `{\\an8}`) and entities resolved, one line."""
    return one_line(html.unescape(_LONG_ENTITY.sub("\ufffd", _TAG.sub("", markup))))


def find_sidecar(video_path: str | Path) -> Path | None:
    """The caption file beside a video, or None.

    `talk.mp4` has `talk.vtt`, else `talk.srt`, `talk.json`, `talk.csv`; within a format the plain name comes before
    `talk.en.vtt` and the regional names (`.en-US`, `.en-GB`, `.en-orig`) that downloaders write.
    """
    video_path = Path(video_path)
    for suffix in SIDECAR_SUFFIXES:
        for language in _LANGUAGES:
            path = video_path.with_name(video_path.stem + language + suffix)
            if path != video_path and _is_file(path):
                return path
    return None


def _is_file(path: Path) -> bool:
    """Whether there is a file. A name that no file can have is no error; that the system cannot say is one (OSError)."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def read_captions(path: str | Path) -> Captions:
    """Captions of a .vtt, .srt, .json or .csv file, in file order, nothing dropped, times unchecked.

    JSON is {"start": [], "end": [], "text": []} or a list of {"start", "end", "text"}; CSV has these three columns.
    WebVTT with word stamps inside its text (machine captions that roll up) repeats each line in the next cue; there
    a line that is only repeated is left out, and a cue without any new line too.
    Raises TrichordError with the file and the line if the file is missing, not UTF-8 or broken.
    """
    path = Path(path)
    readers = {".vtt": _read_vtt, ".srt": _read_srt, ".json": _read_json, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(SIDECAR_SUFFIXES)
        raise TrichordError(f"{path}: captions are read from {known}; convert the file to one of them")
    return Captions.from_rows(reader(path, _read_text(path)))


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrichordError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _broken(path, line, "is not UTF-8 text", "save the file as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _broken(path: Path, line: int, what: str, action: str = "correct the file or remove it") -> TrichordError:
    return TrichordError(f"{path}, line {line}: {one_line(what)}; {action}")


def _stamp_s(path: Path, line: int, stamp: str) -> float:
    match = _STAMP.fullmatch(stamp)
    if not match:
        raise _broken(path, line, f"'{stamp[:40]}' is not a time such as 00:01:02.500")
    hours, minutes, seconds, fraction = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int((fraction or "0").ljust(3, "0")) / 1000


def _timing(path: Path, line: int, text: str) -> tuple[float, float]:
    """Start and end of a timing line; cue settings after the end are ignored."""
    left, right = text.split("-->", 1)
    ends = right.split()
    if not left.strip() or not ends:
        raise _broken(path, line, f"'{text.strip()[:60]}' lacks a start or an end")
    return _stamp_s(path, line, left.strip()), _stamp_s(path, line, ends[0])


def _read_vtt(path: Path, text: str) -> Iterator[tuple[float, float, str]]:
    if text.strip() and not text.startswith("WEBVTT") and "-->" not in text:
        raise _broken(path, 1, "has neither a WEBVTT header nor a timing line")
    rolls = bool(_INLINE_STAMP.search(text))
    shown: list[str] = []
    for start_s, end_s, body in _cues(path, text, ends_at_empty_line=True):
        lines = [plain for line in body if (plain := plain_text(line))]
        if rolls:
            lines, shown = lines[_num_repeated(shown, lines) :], lines or shown
            if not lines:
                continue
        yield start_s, end_s, " ".join(lines)


def _num_repeated(shown: list[str], lines: list[str]) -> int:
    """The most lines at the end of `shown` that `lines` begins with, in linear time (Knuth, Morris, Pratt)."""
    borders = [0]  # borders[k]: the most lines that lines[: k + 1] both begins and, in a later place, ends with
    for line in lines[1:]:
        borders.append(_matched(lines, borders, borders[-1], line))
    num = 0
    for line in shown[-len(lines) :] if lines else []:
        num = _matched(lines, borders, num, line)
    return num


def _matched(lines: list[str], borders: list[int], num: int, line: str) -> int:
    """How many of `lines` are matched once `line` follows where `num` were."""
    while num and lines[num] != line:
        num = borders[num - 1]
    return num + (lines[num] == line)


def _read_srt(path: Path, text: str) -> Iterator[tuple[float, float, str]]:
    if text.strip() and "-->" not in text:
        raise _broken(path, 1, "has no timing line such as 00:00:01,000 --> 00:00:02,500")
    for start_s, end_s, body in _cues(path, text, ends_at_empty_line=False):
        yield start_s, end_s, plain_text(" ".join(body))


def _cues(path: Path, text: str, *, ends_at_empty_line: bool) -> Iterator[tuple[float, float, list[str]]]:
    """Start, end and lines of each cue: from its timing line to the first empty line (WebVTT) or the next cue (SubRip,
    where an empty line inside the text loses nothing)."""
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines) if "-->" in line]
    for begin, end in pairwise([*starts, len(lines)]):
        body = lines[begin + 1 : end]
        if ends_at_empty_line and "" in body:
            body = body[: body.index("")]
        elif end < len(lines) and body and body[-1].strip().isdigit():  # the next cue's number
            body.pop()
        yield *_timing(path, begin + 1, lines[begin]), body


def _seconds(value: object) -> float | None:
    """`value` as finite seconds, or None."""
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None


def _read_json(path: Path, text: str) -> Iterator[tuple[float, float, str]]:
    try:
        data = json.loads(text, parse_int=str)  # of any length: _seconds judges them
    except json.JSONDecodeError as error:
        raise _broken(path, error.lineno, f"is not JSON ({error.msg})") from None
    except RecursionError:
        raise _broken(path, 1, "is JSON nested too deeply for captions") from None
    keys = ("start", "end", "text")
    if isinstance(data, dict) and all(isinstance(data.get(key), list) for key in keys):
        if len({len(data[key]) for key in keys}) > 1:
            lengths = ", ".join(f"{len(data[key])} {key}" for key in keys)
            raise _broken(path, 1, f"the lists differ in length ({lengths})")
        rows = [dict(zip(keys, row, strict=True)) for row in zip(*(data[key] for key in keys), strict=True)]
    elif isinstance(data, list) and all(isinstance(row, dict) for row in data):
        rows = data
    else:
        raise _broken(path, 1, 'is neither {"start": [], "end": [], "text": []} nor a list of {"start", "end", "text"}')
    for number, row in enumerate(rows, start=1):
        start_s, end_s = _seconds(row.get("start")), _seconds(row.get("end"))
        if start_s is None or end_s is None:
            what = "start or end is not a number of seconds"
            raise TrichordError(f"{path}, caption {number}: {what}; correct the file or remove it")
        said = one_line(row.get("text") or "")
        yield start_s, end_s, said.encode("utf-8", "replace").decode()  # JSON can hold half a character: \ud800


def _read_csv(path: Path, text: str) -> Iterator[tuple[float, float, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        names = {name.strip().lower(): name for name in reader.fieldnames or [] if name}
        if not {"start", "end", "text"} <= set(names):
            found = ",".join(reader.fieldnames or [])[:60]
            raise _broken(path, 1, f"needs the columns start,end,text and has '{found}'")
        for row in reader:
            start_s, end_s = _seconds(row[names["start"]]), _seconds(row[names["end"]])
            if start_s is None or end_s is None:
                raise _broken(path, reader.line_num, "start or end is not a number of seconds")
            yield start_s, end_s, one_line(row[names["text"]] or "")
    except csv.Error as error:
        raise _broken(path, reader.line_num, f"is not CSV ({error})") from None


def clean_captions(captions: Captions, *, duration_s: float | None, source: str) -> tuple[Captions, list[str]]:
    """Captions that the rest can rely on, and one line per kind of repair, each naming `source`.

    After it: sorted by start (stable), 0 <= start < end <= duration_s (when known), all finite, no empty text.
    Captions that cannot be so are dropped, those that reach past the video are cut, overlaps are kept but noted.
    """
    notes: list[str] = []
    start_s, end_s = captions.start_s.copy(), captions.end_s.copy()
    text = [one_line(t) for t in captions.text]
    keep = np.ones(len(captions), bool)

    def note(bad: np.ndarray, what: str) -> None:
        if count := int(bad.sum()):
            notes.append(f"{source}: {count} of {len(captions)} captions {what}")

    def drop(bad: np.ndarray, what: str) -> None:
        note(bad & keep, what + "; dropped")
        keep[bad] = False

    drop(~(np.isfinite(start_s) & np.isfinite(end_s)), "have a time that is not a number")
    drop(~(end_s > start_s), "end at or before their start")
    drop(np.array([not t for t in text], bool), "have no text")
    drop(end_s <= 0, "lie before the video's start")
    if duration_s is not None:
        drop(start_s >= duration_s, f"start after the video's end ({duration_s:.2f} s)")
        late = keep & (end_s > duration_s)
        note(late, f"run past the video's end ({duration_s:.2f} s); cut")
        end_s[late] = duration_s
    early = keep & (start_s < 0)
    note(early, "start before the video's start; cut")
    start_s[early] = 0.0

    kept = np.flatnonzero(keep)
    order = kept[np.argsort(start_s[kept], kind="stable")]
    if (order != kept).any():
        notes.append(f"{source}: captions are not in order of time; sorted")
    start_s, end_s = start_s[order], end_s[order]
    if len(order) > 1:
        note(start_s[1:] < np.maximum.accumulate(end_s)[:-1], "overlap an earlier one; kept")
    return Captions(start_s, end_s, tuple(text[i] for i in order)), notes
