"""Word stamps inside a cue: `today<00:00:00.480><c> we</c>`, and the captions of a cue that is too long to be one.

The lines of a recording have a cue each. A live recording may come as one cue whose stamps run through the whole of it, or
past its end: then each word is where its stamp says, in captions as long as those of speech recognition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from trichord.captions.grouping import LONGEST_S, group_words, in_order
from trichord.captions.model import Word
from trichord.captions.text import STAMP, plain_lines

LONG_S = 2 * LONGEST_S  # a stamped line that is shown longer is cut into captions
_WORD_S = 1.0  # most that a word lasts when nothing says where it ends
_PLACE = "\0"  # of a stamp, while markup is resolved


def stamped_lines(start_s: float, markup: str) -> tuple[tuple[str, ...], tuple[tuple[tuple[float, str], ...], ...]]:
    """Lines of a cue, and for each of them its pieces between stamps with their times; no pieces if it has no stamp."""
    stamps = [_stamp_s(stamp) for stamp in STAMP.findall(markup)]
    if not stamps:
        return plain_lines(markup), ()
    lines: list[str] = []
    pieces: list[tuple[tuple[float, str], ...]] = []
    times = iter(stamps)
    now_s = start_s
    for line in plain_lines(STAMP.sub(_PLACE, markup.replace(_PLACE, ""))):
        if _PLACE not in line:
            lines.append(line)
            pieces.append(((now_s, f" {line}"),))
            continue
        first, *later = line.split(_PLACE)
        parts = [(now_s, f" {first}")]
        for text in later:
            now_s = next(times)
            parts.append((now_s, text))
        text = " ".join(line.replace(_PLACE, "").split())
        if text:
            lines.append(text)
            pieces.append(tuple(part for part in parts if part[1].strip()))
    return tuple(lines), tuple(pieces)


def spoken_rows(start_s: float, end_s: float, pieces: Sequence[tuple[float, str]]) -> list[tuple[float, float, str]]:
    """Rows (start, end, text) of a stamped cue that is too long for one caption; none if it is not, or its stamps are wrong."""
    times = [time_s for time_s, _ in pieces]
    if max(times) <= end_s and end_s - start_s <= LONG_S:
        return []
    if min(times) < start_s or any(later < earlier for earlier, later in pairwise(times)):
        return []
    ends = [*times[1:], max(end_s, times[-1] + _WORD_S)]
    words = [
        Word(time_s, min(until_s, time_s + _WORD_S), text) for (time_s, text), until_s in zip(pieces, ends, strict=True)
    ]
    captions = group_words(in_order(words))
    return list(zip(captions.start_s.tolist(), captions.end_s.tolist(), captions.text, strict=True))


def _stamp_s(stamp: str) -> float:
    seconds = 0.0
    for part in stamp.split(":")[-3:]:
        try:
            seconds = seconds * 60 + float(part[:20] or 0)
        except ValueError:
            seconds *= 60
    return seconds
