"""SubStation Alpha (.ass, .ssa): `Dialogue:` lines in the section `[Events]`, whose columns are named by the `Format:` line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from trichord.captions.formats import broken
from trichord.captions.model import Cue
from trichord.captions.text import plain_lines
from trichord.errors import one_line

_COLUMNS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")
_TIME = re.compile(r"(-?)(\d{1,9}):(\d{1,2}):(\d{1,2})(?:[.:,](\d{1,9}))?")


def read_ass(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Read the cues of a file. Comments and drawings are left out."""
    if text.strip() and "[events]" not in text.lower():
        raise broken(path, 1, "has no section [Events]")
    columns: tuple[str, ...] = _COLUMNS
    section = ""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        kind, _, rest = line.partition(":")
        if line.startswith("[") and line.endswith("]"):
            section = line.lower()
        elif section == "[events]" and kind.lower() == "format":
            columns = tuple(name.strip().lower() for name in rest.split(","))
        elif section == "[events]" and kind.lower() == "dialogue":
            values = dict(zip(columns, rest.split(",", max(len(columns) - 1, 0)), strict=False))
            start_s, end_s = _seconds(values.get("start", "")), _seconds(values.get("end", ""))
            if start_s is None or end_s is None:
                skipped.append(f"line {number}: has no start or end such as 0:01:02.50")
                continue
            speaker = one_line(values.get("name", values.get("actor", "")))
            yield Cue(start_s, end_s, plain_lines(values.get("text", ""), ass=True), speaker)


def cue_of_event(start_s: float, end_s: float, event: str) -> Cue:
    """Return the cue of an event of a subtitle track.

    Args:
        start_s: Start in seconds.
        end_s: End in seconds.
        event: Event in the form of FFmpeg: `ReadOrder,Layer,Style,Name,MarginL,MarginR,MarginV,Effect,Text`.

    Returns:
        The cue.
    """
    values = event.split(",", 8)
    return Cue(start_s, end_s, plain_lines(values[-1], ass=True), one_line(values[3]) if len(values) > 3 else "")


def _seconds(text: str) -> float | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    sign, hours, minutes, seconds, fraction = match.groups()
    fraction = fraction or "0"
    value = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction) / 10 ** len(fraction)
    return -value if sign else value
