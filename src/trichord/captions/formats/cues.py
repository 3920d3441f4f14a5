"""WebVTT and SubRip: blocks of lines below a timing line such as `00:00:01.000 --> 00:00:02.500`.

Both formats are read in the same way, because files mix them. A timing line has a time on both sides of the arrow; any other line
with an arrow is text. The lines between two timing lines are the text of the first cue and the number or name of the second one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from trichord.captions.formats import broken
from trichord.captions.model import Cue
from trichord.captions.stamps import stamped_lines
from trichord.captions.text import highlight_of, speaker_of

_STAMP = re.compile(
    r"\s*+([-\u2212]?)\s*+(?:(\d{1,9})\s*+:\s*+)?(\d{1,4})\s*+:\s*+(\d{1,2})(?:\s*+([.,])\s*+(\d++(?:[.,]\d++)?+)|[:;](\d{3}))?(?=\s|\Z)"
)
_NUMBER = re.compile(r"\A\s*+\d++\s++(?=\d++:)")  # number of a cue on its timing line
_TIME_LIKE = re.compile(r"[-\u2212+\d.,;\s]*+:[-\u2212+\d:.,;\s]*+")
_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:[ \t]|\Z)")
_HEADER = re.compile(r"\ufeff?WEBVTT(?:[ \t]|\Z)")
_TIMESTAMP_MAP = "X-TIMESTAMP-MAP="
_ODD_ARROW = re.compile(  # unusual arrows between two times: `->`, typographic dashes and arrows, `--&gt;`
    r"^([ \t]*+\d++:[\d:.,]++)[ \t]*+(?:-{1,3}+>|- ?->|[\u2013\u2014]+>|[\u2192\u27f6]|=+>|-{1,3}&gt;)[ \t]*+(?=\d++:\d)",
    re.MULTILINE,
)


@dataclass
class _Timing:
    """A timing line: its index in the file, and its times or a description of its error."""

    at: int
    start_s: float = 0.0
    end_s: float = 0.0
    wrong: str = ""


def read_vtt(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Read the cues of a WebVTT file. A cue ends at the first empty line after its text."""
    text = _ODD_ARROW.sub(r"\1 --> ", text)
    if text.strip() and not text.startswith("WEBVTT") and "-->" not in text:
        raise broken(path, 1, "has neither a WEBVTT header nor a timing line")
    return _cues(path, text, skipped, is_vtt=True)


def read_srt(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Read the cues of a SubRip file. A cue ends at the next one, so that the text may contain empty lines."""
    text = _ODD_ARROW.sub(r"\1 --> ", text)
    if text.strip() and "-->" not in text:
        raise broken(path, 1, "has no timing line such as 00:00:01,000 --> 00:00:02,500")
    return _cues(path, text, skipped, is_vtt=False)


def cue_of(start_s: float, end_s: float, markup: str) -> Cue:
    """Return the cue of a WebVTT or SubRip text from a file or a subtitle track.

    Args:
        start_s: Start in seconds.
        end_s: End in seconds.
        markup: Markup of the cue.

    Returns:
        The cue.
    """
    lines, stamped = stamped_lines(start_s, markup)
    highlight = None if stamped else highlight_of(markup)
    return Cue(start_s, end_s, lines, speaker_of(markup), stamped, highlight)


def clock_seconds(text: str) -> float | None:
    """Convert a clock time to seconds.

    Args:
        text: Time such as `0:01:02.500` or `01:02,5`.

    Returns:
        The seconds, or None if the text is not a time.

    Example:
        >>> from trichord.captions.formats.cues import clock_seconds
        >>> clock_seconds("0:01:02.500")
        62.5
    """
    match = _STAMP.fullmatch(text.strip())
    return None if match is None else _seconds(match)


def _cues(path: Path, text: str, skipped: list[str], *, is_vtt: bool) -> Iterator[Cue]:
    lines = text.replace("\ufeff", "").split("\n")
    if len(lines) > 4 and not any(line.strip() for line in lines[1::2]):  # every line ending is doubled
        skip = 2
        lines = lines[::2]
    else:
        skip = 1
    timings = [timing for at, line in enumerate(lines) if "-->" in line and (timing := _timing(at, line)) is not None]
    if lines and not timings and any("-->" in line for line in lines):
        at, line = next((at, line) for at, line in enumerate(lines) if "-->" in line)
        raise broken(path, at * skip + 1, _not_a_time(line.split("-->", 1)[0]))
    is_numbered = bool(timings) and _number_before(lines, timings[0].at) is not None
    is_named = is_vtt and bool(timings) and timings[0].at > 1 and _is_name(lines[: timings[0].at])
    num_good = 0
    for timing, following in zip_longest(timings, timings[1:]):
        if timing.wrong:
            skipped.append(f"line {timing.at * skip + 1}: {timing.wrong}")
            continue
        num_good += 1
        end = len(lines) if following is None else following.at
        body = lines[timing.at + 1 : end]
        if following is not None:
            body = _without_name(body, is_vtt=is_vtt, is_numbered=is_numbered, is_named=is_named)
        yield cue_of(timing.start_s, timing.end_s, "\n".join(_text_lines(body, is_vtt=is_vtt)))
    if timings and not num_good:
        first = timings[0]
        raise broken(path, first.at * skip + 1, first.wrong)


def _number_before(lines: list[str], at: int) -> int | None:
    """Return the index of the number above a timing line, if there is one. Empty lines between them are allowed."""
    at -= 1
    while at >= 0 and not lines[at].strip():
        at -= 1
    return at if at >= 0 and lines[at].strip().isdigit() else None


def _is_name(lines: list[str]) -> bool:
    """Return whether the last line is isolated, like the name of a cue above its timing line."""
    return bool(lines[-1].strip()) and (len(lines) == 1 or not lines[-2].strip())


def _without_name(body: list[str], *, is_vtt: bool, is_numbered: bool, is_named: bool) -> list[str]:
    """Remove the number (SubRip) or name (WebVTT) of the next cue from the lines between two timing lines."""
    number = _number_before(body, len(body))
    if number is not None and (number == len(body) - 1 or is_numbered):
        return body[:number]
    if is_vtt and len(body) > 1 and _is_name(body) and (is_named or any(map(str.strip, body[:-1]))):
        return body[:-1]
    return body


def _text_lines(body: list[str], *, is_vtt: bool) -> Iterator[str]:
    """Return the lines of the text of a cue, up to the header of a file that was appended."""
    has_text = False
    for at, line in enumerate(body):
        if _HEADER.match(line) or (is_vtt and at and not has_text and _BLOCK.match(line)):
            return
        if is_vtt and has_text and not line:
            return
        if line.startswith(_TIMESTAMP_MAP):
            continue
        has_text = has_text or bool(line.strip())
        yield line


def _timing(at: int, line: str) -> _Timing | None:
    """Parse a line with an arrow, or return None if it is text."""
    left, right = line.split("-->", 1)
    left, ends = _NUMBER.sub("", left).strip(), right.split(None, 1)
    start, end = _STAMP.match(left), _STAMP.match(right)
    has_start = start is not None and start.end() == len(left)
    if start is not None and has_start and end is not None:
        return _Timing(at, _seconds(start), _seconds(end))
    if _TIME_LIKE.fullmatch(left) is None and (end is None or not (end[2] or end[5])):
        return None
    if not left or not ends:
        return _Timing(at, wrong=f"'{line.strip()[:60]}' lacks a start or an end")
    return _Timing(at, wrong=_not_a_time(ends[0] if has_start else left))


def _not_a_time(text: str) -> str:
    return f"'{text.strip()[:40]}' is not a time such as 00:01:02.500"


def _seconds(stamp: re.Match[str]) -> float:
    sign, hours, minutes, seconds, _, fraction, thousandths = stamp.groups()
    fraction = fraction or thousandths or "0"
    if not fraction.isdigit():  # some files contain fractions of a millisecond, such as 000.0999
        fraction = re.sub("[.,]", "", fraction)
    fraction = fraction[:18]
    value = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction) / 10 ** len(fraction)
    return -value if sign else value
