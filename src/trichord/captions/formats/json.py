"""Captions in JSON, in the forms that this project, speech recognizers and download tools write.

| written by | form |
|---|---|
| HowTo100M | `{"start": [], "end": [], "text": []}` |
| various tools | a list of `{"start", "end", "text"}`, or with `duration` instead of `end` (youtube-transcript-api) |
| Whisper, WhisperX, OpenAI | `{"segments": [...]}` of such rows |
| OpenAI, by word | `{"words": [{"word", "start", "end"}]}`, which are grouped into captions |
| whisper.cpp | `{"transcription": [{"offsets": {"from", "to"}, "text"}]}`, in milliseconds |
| transformers | `{"chunks": [{"timestamp": [start, end], "text"}]}` |
| YouTube (json3) | `{"events": [{"tStartMs", "dDurationMs", "segs": [{"utf8", "tOffsetMs"}]}]}` |

A list of rows may be nested in another list, or the file may have one row per line. Times are seconds, or clock times as strings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeGuard

from trichord.captions.formats import NoCaptionsError, broken
from trichord.captions.formats.cues import clock_seconds
from trichord.captions.grouping import group_words, in_order
from trichord.captions.model import Cue, Word
from trichord.captions.text import plain_lines
from trichord.errors import TrichordError, one_line

_LISTS = (
    "segments",
    "chunks",
    "transcription",
    "snippets",
    "captions",
    "subtitles",
    "transcript",
    "word_segments",
    "words",
)
_ENDS = ("end", "duration", "dur")
_WORD_S = 0.4  # assumed duration of a word if the end of a row is not stated
_TEXTS = ("text", "transcript", "sentence", "caption", "segment")


def read_json(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Read the cues of a file in one of the forms above.

    Raises:
        NoCaptionsError: If the JSON has none of these forms.
        TrichordError: If the file is not JSON, or if the times of all rows are invalid.
    """
    data = _parsed(path, text)
    if isinstance(data, dict) and _is_rows(data.get("events")):
        yield from _json3(data["events"])
        return
    rows = _rows_of(path, data)
    texts = next((name for name in _TEXTS if any(name in row for row in rows)), "")
    if not texts and any("word" in row for row in rows):
        yield from _spoken_words(rows)
        return
    wrong = 0
    for number, row in enumerate(rows, start=1):
        start_s, end_s = _times(row)
        if start_s is not None and _is_open(row):
            end_s = start_s + _WORD_S * max(len(str(row.get(texts) or "").split()), 1)
        if start_s is None or end_s is None:
            problem = "start or end is not a number of seconds"
            skipped.append(f"caption {number}: {problem}")
            wrong += 1
            if wrong == len(rows):
                raise TrichordError(f"{path}, caption 1: {problem}; correct the file or remove it")
            continue
        yield Cue(start_s, end_s, _lines(row.get(texts) or ""), one_line(row.get("speaker") or ""))


def _parsed(path: Path, text: str) -> Any:
    try:
        try:
            return json.loads(text, parse_int=str)  # integers may have any length; `seconds_of` checks them
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise
            try:
                return [json.loads(line, parse_int=str) for line in text.split("\n") if line.strip()]
            except json.JSONDecodeError:
                raise error from None
    except json.JSONDecodeError as error:
        raise broken(path, error.lineno, f"is not JSON ({error.msg})") from None
    except RecursionError:
        raise broken(path, 1, "is JSON nested too deeply for captions") from None


def _spoken_words(rows: list[dict[str, Any]]) -> Iterator[Cue]:
    """Group rows with one word each into captions. A word without times follows the previous word directly."""
    words, now_s = [], 0.0
    for row in rows:
        start_s, end_s = _times(row)
        start_s = now_s if start_s is None else start_s
        now_s = start_s if end_s is None else end_s
        words.append(Word(start_s, now_s, f" {' '.join(_lines(row.get('word') or ''))}"))
    captions = group_words(in_order(words))
    for start, end, spoken in zip(captions.start_s.tolist(), captions.end_s.tolist(), captions.text, strict=True):
        yield Cue(start, end, (spoken,))


def seconds_of(value: object) -> float | None:
    """Convert a number or a clock time to seconds.

    Args:
        value: Number, number as a string, or clock time.

    Returns:
        The finite seconds, or None if the value is not a time.

    Example:
        >>> from trichord.captions.formats.json import seconds_of
        >>> seconds_of("0:01:02.500"), seconds_of("7"), seconds_of("soon")
        (62.5, 7.0, None)
    """
    if isinstance(value, str) and ":" in value:
        return clock_seconds(value)
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None


def _is_rows(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _rows_of(path: Path, data: Any) -> list[dict[str, Any]]:
    keys = ("start", "end", "text")
    if isinstance(data, dict) and all(isinstance(data.get(key), list) for key in keys):
        if len({len(data[key]) for key in keys}) > 1:
            lengths = ", ".join(f"{len(data[key])} {key}" for key in keys)
            raise broken(path, 1, f"the lists differ in length ({lengths})")
        return [dict(zip(keys, row, strict=True)) for row in zip(*(data[key] for key in keys), strict=True)]
    while (
        isinstance(data, list) and len(data) == 1 and isinstance(data[0], list)
    ):  # a list of several videos with a single entry
        data = data[0]
    candidates = [data, *(data.get(name) for name in _LISTS)] if isinstance(data, dict) else [data]
    for rows in candidates:
        if _is_rows(rows) and (not rows or any(_has_times(row) for row in rows)):
            return list(rows)
    known = 'neither {"start": [], "end": [], "text": []} nor a list of {"start", "end", "text"}'
    raise NoCaptionsError(
        f"{path}, line 1: is {known} nor the output of a known speech recognizer; correct the file or remove it"
    )


def _has_times(row: dict[str, Any]) -> bool:
    is_plain = "start" in row and any(name in row for name in _ENDS)
    return is_plain or "timestamp" in row or "offsets" in row


def _is_open(row: dict[str, Any]) -> bool:
    """Return whether a row has no end. Transformers writes such a last row if the sound ends in the middle of a word."""
    span = row.get("timestamp")
    return isinstance(span, list) and len(span) == 2 and span[1] is None


def _times(row: dict[str, Any]) -> tuple[float | None, float | None]:
    if isinstance(offsets := row.get("offsets"), dict):
        start_ms, end_ms = seconds_of(offsets.get("from")), seconds_of(offsets.get("to"))
        return (None, None) if start_ms is None or end_ms is None else (start_ms / 1000, end_ms / 1000)
    if isinstance(span := row.get("timestamp"), list) and len(span) == 2:
        return seconds_of(span[0]), seconds_of(span[1])
    start_s = seconds_of(row.get("start"))
    if "end" in row or start_s is None:
        return start_s, seconds_of(row.get("end"))
    duration_s = seconds_of(row.get("duration", row.get("dur")))
    return start_s, None if duration_s is None else start_s + duration_s


@dataclass
class _Line:
    """A line of YouTube captions. `pieces` are pairs of (second, text)."""

    start_s: float
    end_s: float
    pieces: list[tuple[float, str]]
    window: object
    is_rolling: bool
    is_open: bool = True  # whether an event that appends to the window continues this line

    def cue(self) -> Cue:
        """Return the cue of the line."""
        lines = _lines("".join(text for _, text in self.pieces))
        words = tuple(part for part in self.pieces if part[1].strip()) if self.is_rolling and len(lines) == 1 else ()
        return Cue(self.start_s, self.end_s, lines, "", (words,) if len(self.pieces) > 1 and words else ())


def _json3(events: list[dict[str, Any]]) -> Iterator[Cue]:
    """Read the events of YouTube. A line of automatic captions is shown until it scrolls off, but it ends when the next begins."""
    lines: list[_Line] = []
    for event in events:
        start_ms, duration_ms = seconds_of(event.get("tStartMs")), seconds_of(event.get("dDurationMs"))
        pieces = event.get("segs")
        if start_ms is None or not _is_rows(pieces):
            continue  # the event defines a window or a style
        stamped = [
            ((start_ms + (seconds_of(piece.get("tOffsetMs")) or 0.0)) / 1000, str(piece.get("utf8") or ""))
            for piece in pieces
        ]
        text, window, end_s = "".join(part for _, part in stamped), event.get("wWinId"), start_ms / 1000
        end_s += (duration_ms or 0.0) / 1000
        last = lines[-1] if lines and event.get("aAppend") and lines[-1].window == window else None
        if not _lines(text):
            if last is not None and "\n" in text:
                last.is_open = False
        elif last is not None and last.is_open and "\n" not in text:
            last.pieces += stamped
            last.end_s = max(last.end_s, end_s)
        else:
            is_rolling = any("tOffsetMs" in piece for piece in pieces) or window is not None
            lines.append(_Line(start_ms / 1000, end_s, stamped, window, is_rolling))
    for line, following in zip_longest(lines, lines[1:]):
        if line.is_rolling and following is not None and following.start_s > line.start_s:
            line.end_s = min(line.end_s, following.start_s)
        yield line.cue()


def _lines(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        value = "\n".join(str(part) for part in value)
    return plain_lines(
        str(value).encode("utf-8", "replace").decode()
    )  # JSON may contain half of a surrogate pair, such as \ud800
