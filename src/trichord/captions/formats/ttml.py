"""TTML (.ttml, .dfxp): XML in which `<p begin="..." end="...">` is a cue. Times are clock times or offsets such as `1.5s`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from trichord.captions.formats import broken
from trichord.captions.model import Cue
from trichord.captions.text import plain_lines

_CLOCK = re.compile(r"(?:(\d{1,9}):)?(\d{1,4}):(\d{1,2})(?:[.,](\d{1,9})|:(\d{1,4})(?:\.\d+)?)?")
_OFFSET = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(h|ms|m|s|f|t)?")
_DEEPEST = 100


class _Clock:
    """A converter of the times of a document to seconds, with the rates that its root element states."""

    def __init__(self, root: ElementTree.Element) -> None:
        stated = {_name(key): value for key, value in root.attrib.items()}
        self._frame_hz = _rate(stated.get("frameRate"), 30.0)
        scale = (stated.get("frameRateMultiplier") or "1 1").replace(":", " ").split()
        if len(scale) == 2:
            self._frame_hz *= _rate(scale[0], 1.0) / _rate(scale[1], 1.0)
        tick_hz = self._frame_hz if "frameRate" in stated else 1.0
        self._tick_hz = _rate(stated.get("tickRate"), tick_hz)
        self._is_smpte = stated.get("timeBase") == "smpte"
        self._nominal_hz = _rate(stated.get("frameRate"), 30.0)
        self._drops = stated.get("dropMode") == "dropNTSC"

    def seconds(self, text: str | None) -> float | None:
        """Convert a time to seconds, or return None if it is missing or invalid."""
        text = (text or "").strip()
        if match := _CLOCK.fullmatch(text):
            hours, minutes, seconds, fraction, frames = match.groups()
            value = int(hours or 0) * 3600.0 + int(minutes) * 60 + int(seconds)
            value += int(fraction) / 10 ** len(fraction) if fraction else 0.0
            if self._is_smpte and not fraction:
                return self._counted(value, int(frames or 0)) / self._frame_hz
            return value + int(frames or 0) / self._frame_hz
        if match := _OFFSET.fullmatch(text):
            units = {"h": 3600.0, "m": 60.0, "ms": 1e-3, "f": 1 / self._frame_hz, "t": 1 / self._tick_hz}
            return float(match[1]) * units.get(match[2] or "s", 1.0)
        return None

    def _counted(self, seconds: float, frames: int) -> float:
        """Return the number of frames up to an SMPTE time, whose seconds are longer than real ones at 29.97 Hz."""
        minutes = int(seconds) // 60
        dropped = 2 * (minutes - minutes // 10) if self._drops else 0
        return seconds * self._nominal_hz + frames - dropped


def read_ttml(path: Path, text: str, skipped: list[str]) -> Iterator[Cue]:
    """Read the cues of a document: each `<p>`, or each `<span>` in it if only these have times."""
    if not text.strip():
        return
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise broken(path, 1, "declares a document type or entities, which are not accepted in captions")
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, ValueError) as error:
        line = getattr(error, "position", (1, 0))[0]
        raise broken(path, line, f"is not XML ({error})") from None
    if _name(root.tag) != "tt":
        raise broken(path, 1, f"is not a TTML document (its root element is <{_name(root.tag)[:20]}> instead of <tt>)")
    yield from _cues(root, _Clock(root), 0.0, None, skipped, 0)


def _cues(
    element: ElementTree.Element, clock: _Clock, start_s: float, end_s: float | None, skipped: list[str], depth: int
) -> Iterator[Cue]:
    """Read the cues inside an element. Times are relative to `start_s`, the start of the enclosing element."""
    if depth > _DEEPEST:
        skipped.append(f"elements are nested more than {_DEEPEST} levels deep")
        return
    begin, end, duration = (element.get(name) for name in ("begin", "end", "dur"))
    own_start_s, own_end_s, duration_s = (clock.seconds(text) for text in (begin, end, duration))
    wrong = next(
        (t for t, s in ((begin, own_start_s), (end, own_end_s), (duration, duration_s)) if t and s is None), None
    )
    from_s = start_s + (own_start_s or 0.0)
    until_s = end_s if own_end_s is None else start_s + own_end_s
    if duration_s is not None:
        until_s = min(from_s + duration_s, until_s if until_s is not None else from_s + duration_s)
    is_paragraph = _name(element.tag) == "p"
    spans = [child for child in element if child.get("begin") is not None] if is_paragraph and begin is None else []
    if is_paragraph and not spans or (_name(element.tag) == "span" and begin is not None):
        markup = "".join(_markup(element, 0))
        if wrong is not None or until_s is None:
            problem = f"'{wrong[:40]}' is not a time" if wrong is not None else "has no end"
            skipped.append(f"caption '{' '.join(markup.split())[:30]}': {problem}")
            return
        speaker = next((value for key, value in element.attrib.items() if _name(key) == "agent"), "")
        yield Cue(from_s, until_s, plain_lines(markup), speaker)
        return
    for child in element:
        yield from _cues(child, clock, from_s, until_s, skipped, depth + 1)


def _markup(element: ElementTree.Element, depth: int) -> Iterator[str]:
    """Return the text of an element with `&` and `<` escaped, white space normalized, and `<br/>` as a line break."""
    if _name(element.tag) == "br":
        yield "\n"
    elif depth <= _DEEPEST and isinstance(element.tag, str) and _name(element.tag) != "metadata":
        yield _escaped(element.text)
        for child in element:
            yield from _markup(child, depth + 1)
            yield _escaped(child.tail)


def _escaped(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("&", "&amp;").replace("<", "&lt;")


def _name(tag: object) -> str:
    """Return the name of a tag or attribute without its namespace."""
    return str(tag).rpartition("}")[2]


def _rate(text: str | None, default: float) -> float:
    try:
        return float(text or "") if 0 < float(text or "") < 1e12 else default
    except ValueError:
        return default
