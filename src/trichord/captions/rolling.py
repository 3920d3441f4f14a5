"""Merging of cues that repeat lines, so that each line becomes one caption.

Captions of live television and of speech recognizers show a line more than once: lines roll up, grow word by word, are highlighted
word by word, or are duplicated in the file. A cue is compared with the cues of the same speaker that touch or overlap it:

- Lines at its beginning that are the last lines of the earlier cue are not new. The lines that follow them are new.
- A cue that equals an earlier cue, or extends its last line at the end of a word, is merged into it.
- A cue that is too short to be read and that the next cue extends inside a word is being typed, and is merged as well.
- If words are highlighted one by one, such a cue is merged also across a short pause, provided that the highlight moved on.

A caption begins when its words are first shown. It ends when the next line rolls up below it, or, if the same words are only
repeated, when they are last shown. The same words after a gap are treated as spoken again and are kept. The same words of two
speakers are kept as well.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trichord.captions.grouping import PAUSE_S
from trichord.captions.model import Captions, Cue
from trichord.captions.stamps import spoken_rows

TOUCH_S = 0.05  # cues touch if they are at most this far apart, which allows for a frame or a rounded time
BLINK_S = 0.05  # a cue that is at most this short is not visible; YouTube writes one of 10 ms between any two lines
TYPED_S = 0.3  # a shorter cue is too short to be read; if the next cue extends it, it is being typed
_MOST_SCREENS = 8
_MOST_LINES = 50  # maximum number of lines of a cue that is checked for growth
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(eq=False)
class _Spoken:
    """A caption that later cues may extend."""

    start_s: float
    end_s: float
    text: str
    stamped: tuple[tuple[float, str], ...] = ()
    cue_end_s: float = 0.0


@dataclass(eq=False)
class _Screen:
    """The lines that a cue shows, the time until which they are shown, and the caption to which the last line belongs."""

    lines: tuple[str, ...]
    end_s: float
    speaker: str
    newest: _Spoken
    highlight: int | None = None
    shown_s: float = TYPED_S  # duration of the latest cue that shows these lines


@dataclass
class _Match:
    """A match of a cue with a screen: its first `num` lines are on the screen already, and `growth` extends the last of them."""

    screen: _Screen
    num: int
    growth: str = ""


def merged(cues: Iterable[Cue]) -> Captions:
    """Return the captions of cues, with each line only once, in the order of the file.

    Args:
        cues: Cues of a file.

    Returns:
        The captions.
    """
    cues = list(cues)
    is_rolling = any(cue.stamped for cue in cues) or _blinks(cues)
    spoken: dict[int, _Spoken] = {}
    screens: deque[_Screen] = deque(maxlen=_MOST_SCREENS)
    latest: _Screen | None = None
    for at in sorted(range(len(cues)), key=lambda at: cues[at].start_s):
        cue = cues[at]
        if not cue.lines or not cue.end_s >= cue.start_s:
            if not (is_rolling and not cue.lines):
                spoken[at] = _Spoken(cue.start_s, cue.end_s, " ".join(cue.lines))
            continue
        touching = [screen for screen in screens if screen.end_s >= cue.start_s - TOUCH_S]
        match = _best(touching, cue)
        if match is None and is_rolling and latest is not None and latest not in touching:
            match = _best([latest], cue)
            match = None if match is None or match.num == len(cue.lines) or match.growth else match
        if match is None and latest is not None:
            match = _moved_on(latest, cue)
        if match is not None and match.num == len(cue.lines):
            _extend(match, cue)
            latest = match.screen
            continue
        new = spoken[at] = _spoken_by(cue, match.num if match is not None else 0)
        if match is not None:
            _roll(match, cue)
            if match.screen in screens:
                screens.remove(match.screen)
        latest = _Screen(cue.lines, cue.end_s, cue.speaker, new, cue.highlight, cue.end_s - cue.start_s)
        screens.append(latest)
    rows = (row for at in sorted(spoken) for row in _rows(spoken[at]))
    return Captions.from_rows(rows)


def unmerged(cues: Iterable[Cue]) -> Captions:
    """Return one caption for each cue.

    Args:
        cues: Cues of a file.

    Returns:
        The captions.
    """
    return Captions.from_rows((cue.start_s, cue.end_s, " ".join(cue.lines)) for cue in cues)


def _spoken_by(cue: Cue, num_shown: int) -> _Spoken:
    stamped = tuple(piece for line in cue.stamped[num_shown:] for piece in line)
    return _Spoken(cue.start_s, cue.end_s, " ".join(cue.lines[num_shown:]), stamped, cue.end_s)


def _rows(spoken: _Spoken) -> list[tuple[float, float, str]]:
    rows = spoken_rows(spoken.start_s, spoken.cue_end_s, spoken.stamped) if spoken.stamped else []
    return rows or [(spoken.start_s, spoken.end_s, spoken.text)]


def _extend(match: _Match, cue: Cue) -> None:
    """Merge a cue without a new line into the newest caption. It repeats the screen or extends its last line."""
    screen, newest = match.screen, match.screen.newest
    if match.growth:
        newest.text += match.growth
        newest.stamped = ()
    if match.growth or cue.end_s - cue.start_s > BLINK_S:
        newest.end_s = max(newest.end_s, cue.end_s)
    screen.lines, screen.end_s, screen.shown_s = cue.lines, max(screen.end_s, cue.end_s), cue.end_s - cue.start_s
    if cue.highlight is not None:
        screen.highlight = cue.highlight


def _roll(match: _Match, cue: Cue) -> None:
    """End the newest caption of a screen, because a cue shows a new line below it."""
    newest = match.screen.newest
    if match.growth:
        newest.text += match.growth
        newest.stamped = ()
    if newest.start_s < cue.start_s:
        newest.end_s = min(newest.end_s, cue.start_s)


def _blinks(cues: Sequence[Cue]) -> bool:
    """Return whether the file has a cue that is too short to be visible and only repeats the previous one, as on YouTube."""
    return any(
        cue.lines and 0 <= cue.end_s - cue.start_s <= BLINK_S and before.lines[-len(cue.lines) :] == cue.lines
        for before, cue in zip(cues, cues[1:], strict=False)
    )


def _best(screens: Iterable[_Screen], cue: Cue) -> _Match | None:
    """Return the match with the screen that shows most of the lines of the cue already. The last one wins a tie."""
    best: _Match | None = None
    for screen in screens:
        if screen.speaker != cue.speaker:
            continue
        match = _match(screen, cue.lines)
        if match is not None and (best is None or match.num >= best.num):
            best = match
    return best


def _moved_on(screen: _Screen, cue: Cue) -> _Match | None:
    """Return the match of a cue that starts shortly after the previous one and highlights a later word of the same line."""
    if cue.highlight is None or screen.highlight is None or cue.start_s - screen.end_s >= PAUSE_S:
        return None
    match = _best([screen], cue)
    if match is None or match.num < len(cue.lines):
        return None
    is_later = cue.highlight >= screen.highlight if match.growth else cue.highlight > screen.highlight
    return match if is_later else None


def _match(screen: _Screen, lines: tuple[str, ...]) -> _Match | None:
    num, is_typed = num_repeated(screen.lines, lines), BLINK_S / 2 < screen.shown_s < TYPED_S
    if len(lines) <= _MOST_LINES:
        for longer in range(min(len(lines), len(screen.lines)), num, -1):
            growth = _growth(screen.lines[-1], lines[longer - 1], is_typed)
            if growth and screen.lines[len(screen.lines) - longer : -1] == lines[: longer - 1]:
                return _Match(screen, longer, growth)
    if not num:  # line breaks may be at other places
        shown, text = " ".join(screen.lines), " ".join(lines)
        if shown == text or (growth := _growth(shown, text, is_typed)):
            return _Match(screen, len(lines), "" if shown == text else growth)
        return None
    return _Match(screen, num)


def _growth(shown: str, line: str, is_typed: bool) -> str:
    """Return the text by which `line` extends `shown`, or an empty string.

    `line` must begin with `shown`, and `shown` must end at the end of a word unless it is being typed.
    """
    if len(line) <= len(shown) or not line.startswith(shown):
        return ""
    after = line[len(shown)]
    is_inside = not is_typed and (after.isalnum() or after in "'\u2019-") and shown[-1].isalnum()
    return line[len(shown) :] if not is_inside or _UNSPACED.match(after) else ""


def num_repeated(shown: Sequence[str], lines: Sequence[str]) -> int:
    """Return the largest number of lines at the end of `shown` with which `lines` begins.

    This takes linear time (Knuth, Morris and Pratt, Fast Pattern Matching in Strings, 1977).

    Args:
        shown: Lines that are shown already.
        lines: Lines of the next cue.

    Returns:
        The number of repeated lines.

    Example:
        >>> from trichord.captions.rolling import num_repeated
        >>> num_repeated(["one", "two"], ["two", "three"])
        1
    """
    borders = [
        0
    ]  # borders[k] is the largest number of lines, at most k, with which lines[: k + 1] both begins and ends
    for line in lines[1:]:
        borders.append(_matched(lines, borders, borders[-1], line))
    num = 0
    for line in shown[-len(lines) :] if lines else []:
        num = _matched(lines, borders, num, line)
    return num


def _matched(lines: Sequence[str], borders: list[int], num: int, line: str) -> int:
    """Return the number of matched lines after `line` follows `num` matched lines."""
    while num and lines[num] != line:
        num = borders[num - 1]
    return num + (lines[num] == line)
