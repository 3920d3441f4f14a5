"""Word timestamps inside a cue, such as `today<00:00:00.480><c> we</c>`, and the division of long cues with timestamps.

Each line of a recording usually has its own cue. A live recording may be a single cue whose timestamps cover all of it or extend
beyond its end. The words are then placed at their timestamps, in captions as long as those of speech recognition.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from trichord.captions.grouping import LONGEST_S, group_words, in_order
from trichord.captions.model import Word
from trichord.captions.text import STAMP, plain_lines

LONG_S = 2 * LONGEST_S  # a line with timestamps that is shown longer is divided into captions
_WORD_S = 1.0  # maximum duration of a word whose end is unknown
_PLACE = "\0"  # stands for a timestamp while markup is resolved


def stamped_lines(start_s: float, markup: str) -> tuple[tuple[str, ...], tuple[tuple[tuple[float, str], ...], ...]]:
    """Split the markup of a cue at its word timestamps.

    Args:
        start_s: Start of the cue in seconds.
        markup: Markup of the cue.

    Returns:
        The plain lines, and for each line the (second, text) of the pieces between timestamps. The pieces are empty if the cue
        has no timestamps.
    """
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
    """Divide a cue with word timestamps that is too long for one caption.

    Args:
        start_s: Start of the cue in seconds.
        end_s: End of the cue in seconds.
        pieces: Pieces (second, text) between the timestamps.

    Returns:
        Rows of (start, end, text). The list is empty if the cue is not too long or its timestamps are wrong.
    """
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
