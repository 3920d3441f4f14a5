"""Grouping of recognized words into captions of the same length as automatic captions.

The reference is the 50 caption files of HowTo100M that are distributed with the MIL-NCE code (5,042 captions, stop words removed):

| | median | 25th to 75th percentile |
|---|---|---|
| seconds | 3.32 | 2.33 to 5.10 |
| seconds from start to start | 2.70 | 2.05 to 3.75 |
| words | 4 | 3 to 5 |
| words that are not repeated from the previous caption | 3 | 2 to 3 |
| gap to the next caption, seconds | 0.01 | -1.69 to 0.01 |

As long as speech continues, captions follow one another without a gap (4.5 % of the gaps are longer than 0.5 s, 3.4 % are longer
than 1 s). Because lines roll up, the later caption repeats the end of the earlier one in 56 % of all pairs, and both are shown at
the same time in 30 %. This is a property of the display and not of the speech, so it is not imitated: each word belongs to one
caption. A caption therefore has the duration of a real caption and the number of its new words. Applied to the words of those
files, spread evenly over the time in which they are new, `group_words` returns 4,661 captions with medians of 3.33 s and 3 words,
and 5.6 % of the gaps are longer than 1 s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from trichord.captions.model import Captions, Word
from trichord.errors import one_line

PAUSE_S = 1.0
LONGEST_S = 3.4
_SHORTEST_WORD_S = 0.02


def group_words(words: Sequence[Word], *, pause_s: float = PAUSE_S, longest_s: float = LONGEST_S) -> Captions:
    """Group words into captions.

    Speech between two pauses of at least `pause_s` is divided into the smallest number of equal parts that are no longer than
    `longest_s`. A word belongs to the part that contains its middle, so a caption may exceed `longest_s` by half of its first and
    half of its last word. A longer word is a caption of its own. A caption starts with its first word and ends with its last
    word. No word is lost or repeated, except that words without text are left out.

    Args:
        words: Words in the order of time, without overlaps (see `in_order`).
        pause_s: Minimum duration of a pause in seconds.
        longest_s: Maximum duration of a part in seconds.

    Returns:
        The captions.
    """
    rows: list[tuple[float, float, str]] = []
    for run in _runs([word for word in words if word.text.strip()], pause_s):
        begin_s, length_s = run[0].start_s, run[-1].end_s - run[0].start_s
        num_parts = max(math.ceil(length_s / longest_s), 1)
        middles = np.array([(word.start_s + word.end_s) / 2 - begin_s for word in run])
        parts = np.minimum((middles * num_parts / max(length_s, 1e-9)).astype(int), num_parts - 1)
        for part in np.unique(parts):
            own = [word for word, p in zip(run, parts, strict=True) if p == part]
            rows.append((own[0].start_s, own[-1].end_s, one_line("".join(word.text for word in own))))
    return Captions.from_rows(rows)


def _runs(words: Sequence[Word], pause_s: float) -> Iterator[list[Word]]:
    run: list[Word] = []
    for word in words:
        if run and word.start_s - run[-1].end_s >= pause_s:
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def in_order(words: Iterable[Word]) -> list[Word]:
    """Adjust the times of words so that they neither overlap nor are empty.

    A word starts no earlier than the end of the previous word and lasts at least 0.02 s, because recognizers return some words
    without a duration.

    Args:
        words: Words in the order of speech.

    Returns:
        The words with adjusted times.
    """
    ordered: list[Word] = []
    end_s = 0.0
    for word in words:
        start_s = max(word.start_s, end_s)
        end_s = max(word.end_s, start_s + _SHORTEST_WORD_S)
        ordered.append(Word(start_s, end_s, word.text))
    return ordered
