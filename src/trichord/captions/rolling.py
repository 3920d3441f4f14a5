"""Cues that show a line again, merged: each line once, whatever way a file repeats it.

Captions of live television and of recognisers are shown more than once: lines roll up, grow word by word, are highlighted
word by word, or stand twice in a file. A cue is compared with those that touch or overlap it, of the same speaker:

- Lines at its beginning that are the last lines of the earlier cue are not new. What follows them is.
- A cue that equals an earlier one, or extends its last line at the end of a word, adds to that one.
- A cue too short to be read that the next one extends inside a word is being typed: it adds to that one too.
- Where words are highlighted one by one, such a cue adds to the one before also across a short pause, if the highlight moved on.

A caption begins where its words are first shown. It ends where the next line rolls up below it; when the same words are only
shown again, where they are shown last. The same words after a gap are said again, and stay. So do equal words of two speakers.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trichord.captions.grouping import PAUSE_S
from trichord.captions.model import Captions, Cue
from trichord.captions.stamps import spoken_rows

TOUCH_S = 0.05  # cues this far apart touch: a frame, or a rounded time
BLINK_S = 0.05  # a cue as short as this shows nothing: YouTube writes one of 10 ms between any two lines
TYPED_S = 0.3  # a cue that is shown for less is not read: where the next one extends it, it is being typed
_MOST_SCREENS = 8
_MOST_LINES = 50  # of a cue, for growth to be looked for
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(eq=False)
class _Spoken:
    """A caption that may still grow."""

    start_s: float
    end_s: float
    text: str
    stamped: tuple[tuple[float, str], ...] = ()
    cue_end_s: float = 0.0


@dataclass(eq=False)
class _Screen:
    """What a cue shows, until when it is shown, and the caption that its last line belongs to."""

    lines: tuple[str, ...]
    end_s: float
    speaker: str
    newest: _Spoken
    highlight: int | None = None
    shown_s: float = TYPED_S  # how long the latest cue that shows these lines lasts


@dataclass
class _Match:
    """Of a cue, the first `num` lines are on `screen` already, the last of them longer there by `growth`."""

    screen: _Screen
    num: int
    growth: str = ""


def merged(cues: Iterable[Cue]) -> Captions:
    """The captions of `cues`, each line once, in the order in which the file has them."""
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
    """One caption for each cue."""
    return Captions.from_rows((cue.start_s, cue.end_s, " ".join(cue.lines)) for cue in cues)


def _spoken_by(cue: Cue, num_shown: int) -> _Spoken:
    stamped = tuple(piece for line in cue.stamped[num_shown:] for piece in line)
    return _Spoken(cue.start_s, cue.end_s, " ".join(cue.lines[num_shown:]), stamped, cue.end_s)


def _rows(spoken: _Spoken) -> list[tuple[float, float, str]]:
    rows = spoken_rows(spoken.start_s, spoken.cue_end_s, spoken.stamped) if spoken.stamped else []
    return rows or [(spoken.start_s, spoken.end_s, spoken.text)]


def _extend(match: _Match, cue: Cue) -> None:
    """The cue has no new line: it shows again what is there, or more of its last line."""
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
    """The cue has a new line below those of `match`: the caption above it is no longer the newest."""
    newest = match.screen.newest
    if match.growth:
        newest.text += match.growth
        newest.stamped = ()
    if newest.start_s < cue.start_s:
        newest.end_s = min(newest.end_s, cue.start_s)


def _blinks(cues: Sequence[Cue]) -> bool:
    """Whether the file has a cue too short to be seen that only repeats the one before, as YouTube's have."""
    return any(
        cue.lines and 0 <= cue.end_s - cue.start_s <= BLINK_S and before.lines[-len(cue.lines) :] == cue.lines
        for before, cue in zip(cues, cues[1:], strict=False)
    )


def _best(screens: Iterable[_Screen], cue: Cue) -> _Match | None:
    """The screen that has most of the cue's lines already; of equal ones the last."""
    best: _Match | None = None
    for screen in screens:
        if screen.speaker != cue.speaker:
            continue
        match = _match(screen, cue.lines)
        if match is not None and (best is None or match.num >= best.num):
            best = match
    return best


def _moved_on(screen: _Screen, cue: Cue) -> _Match | None:
    """The match of a cue whose highlight is at a later word of the same line, shortly after the cue before ended."""
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
    if not num:  # the lines may be broken at other places
        shown, text = " ".join(screen.lines), " ".join(lines)
        if shown == text or (growth := _growth(shown, text, is_typed)):
            return _Match(screen, len(lines), "" if shown == text else growth)
        return None
    return _Match(screen, num)


def _growth(shown: str, line: str, is_typed: bool) -> str:
    """What `line` has after `shown`, if it begins with that and `shown` ends at the end of a word or is being typed; else ''."""
    if len(line) <= len(shown) or not line.startswith(shown):
        return ""
    after = line[len(shown)]
    is_inside = not is_typed and (after.isalnum() or after in "'\u2019-") and shown[-1].isalnum()
    return line[len(shown) :] if not is_inside or _UNSPACED.match(after) else ""


def num_repeated(shown: Sequence[str], lines: Sequence[str]) -> int:
    """The most lines at the end of `shown` that `lines` begins with, in linear time (Knuth, Morris, Pratt)."""
    borders = [0]  # borders[k]: the most lines that lines[: k + 1] both begins and, in a later place, ends with
    for line in lines[1:]:
        borders.append(_matched(lines, borders, borders[-1], line))
    num = 0
    for line in shown[-len(lines) :] if lines else []:
        num = _matched(lines, borders, num, line)
    return num


def _matched(lines: Sequence[str], borders: list[int], num: int, line: str) -> int:
    """How many of `lines` are matched once `line` follows where `num` were."""
    while num and lines[num] != line:
        num = borders[num - 1]
    return num + (lines[num] == line)
