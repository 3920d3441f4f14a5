"""Captions in JSON: lists of this project's own, and what speech recognisers and download tools write.

| written by | form |
|---|---|
| HowTo100M | `{"start": [], "end": [], "text": []}` |
| anyone | a list of `{"start", "end", "text"}`, also `duration` in place of `end` (youtube-transcript-api) |
| whisper, whisperX, OpenAI | `{"segments": [...]}` of such rows |
| whisper.cpp | `{"transcription": [{"offsets": {"from", "to"}, "text"}]}`, in milliseconds |
| transformers | `{"chunks": [{"timestamp": [start, end], "text"}]}` |
| YouTube (json3) | `{"events": [{"tStartMs", "dDurationMs", "segs": [{"utf8", "tOffsetMs"}]}]}` |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from trichord.captions.formats import NoCaptionsError, broken
from trichord.captions.model import Cue
from trichord.captions.text import plain_lines
from trichord.errors import TrichordError, one_line

_LISTS = ("segments", "chunks", "transcription", "snippets", "captions", "subtitles", "transcript")
_ENDS = ("end", "duration", "dur")


def read_json(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Cues of a file in one of the forms above. Raises NoCaptionsError for JSON in no such form."""
    try:
        data = json.loads(text, parse_int=str)  # of any length: `seconds_of` judges them
    except json.JSONDecodeError as error:
        raise broken(path, error.lineno, f"is not JSON ({error.msg})") from None
    except RecursionError:
        raise broken(path, 1, "is JSON nested too deeply for captions") from None
    if isinstance(data, dict) and _is_rows(data.get("events")):
        yield from _json3(data["events"])
        return
    rows = _rows_of(path, data)
    wrong = 0
    for number, row in enumerate(rows, start=1):
        start_s, end_s = _times(row)
        if start_s is None or end_s is None:
            what = "start or end is not a number of seconds"
            skipped.append(f"caption {number}: {what}")
            wrong += 1
            if wrong == len(rows):
                raise TrichordError(f"{path}, caption 1: {what}; correct the file or remove it")
            continue
        yield Cue(start_s, end_s, _lines(row.get("text") or ""), one_line(row.get("speaker") or ""))


def seconds_of(value: object) -> float | None:
    """`value` as finite seconds, or None."""
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
    candidates = [data, *(data.get(name) for name in _LISTS)] if isinstance(data, dict) else [data]
    for rows in candidates:
        if _is_rows(rows) and (not rows or any(_has_times(row) for row in rows)):
            return list(rows)
    known = 'neither {"start": [], "end": [], "text": []} nor a list of {"start", "end", "text"}'
    raise NoCaptionsError(
        f"{path}, line 1: is {known}, nor what a speech recogniser writes; correct the file or remove it"
    )


def _has_times(row: dict[str, Any]) -> bool:
    is_plain = "start" in row and any(name in row for name in _ENDS)
    return is_plain or "timestamp" in row or "offsets" in row


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


def _json3(events: list[dict[str, Any]]) -> Iterator[Cue]:
    """Events of YouTube. A line of automatic captions is shown until it scrolls off: it is spoken until the next begins."""
    cues: list[tuple[Cue, bool]] = []
    for event in events:
        start_ms, duration_ms = seconds_of(event.get("tStartMs")), seconds_of(event.get("dDurationMs"))
        pieces = event.get("segs")
        if start_ms is None or not _is_rows(pieces):
            continue  # a window or a style
        stamped = tuple(
            ((start_ms + (seconds_of(piece.get("tOffsetMs")) or 0.0)) / 1000, str(piece.get("utf8") or ""))
            for piece in pieces
        )
        lines = _lines("".join(text for _, text in stamped))
        if not lines:
            continue
        is_rolling = any("tOffsetMs" in piece for piece in pieces) or "wWinId" in event
        words = tuple(part for part in stamped if part[1].strip()) if len(stamped) > 1 and is_rolling else ()
        end_s = (start_ms + (duration_ms or 0.0)) / 1000
        cues.append((Cue(start_ms / 1000, end_s, lines, "", (words,) if words and len(lines) == 1 else ()), is_rolling))
    for at, (cue, is_rolling) in enumerate(cues):
        end_s = cue.end_s
        if is_rolling and at + 1 < len(cues) and (next_s := cues[at + 1][0].start_s) > cue.start_s:
            end_s = min(end_s, next_s)
        yield Cue(cue.start_s, end_s, cue.lines, cue.speaker, cue.stamped)


def _lines(value: object) -> tuple[str, ...]:
    return plain_lines(str(value).encode("utf-8", "replace").decode())  # JSON can hold half a character: \ud800
