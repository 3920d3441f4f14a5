"""Recognised words grouped into captions of the length that automatic captions have.

The measure are the 50 caption files of HowTo100M that lie beside the MIL-NCE code (5,042 captions, stop words removed):

| | half of all captions have at most | 25 % to 75 % |
|---|---|---|
| seconds | 3.32 | 2.33 to 5.10 |
| seconds from start to start | 2.70 | 2.05 to 3.75 |
| words | 4 | 3 to 5 |
| words that the caption before does not end with | 3 | 2 to 3 |
| gap to the next caption, seconds | 0.01 | -1.69 to 0.01 |

Captions follow one another without a gap as long as speech goes on (4.5 % of the gaps are longer than 0.5 s, 3.4 % than
1 s). As lines roll up, in 56 % of all pairs the later caption repeats the end of the earlier one, in 30 % both are shown
at the same time. That says nothing about the speech and is not imitated: each word is in one caption. So a caption here
has the seconds of a real one, and its new words: `group_words` on the words of those files, spread evenly over the time
that they are new in, gives 4,661 captions with medians of 3.33 s and 3 words, and 5.6 % of the gaps longer than 1 s.
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
    """Captions of `words`, which are in time order and do not overlap (`in_order`).

    Speech between two pauses of `pause_s` or more is cut into as few captions as fit into `longest_s` each, of about
    equal length: a word belongs to the part that its middle lies in. So a caption may be longer by half its first
    and half its last word; a longer word is a caption by itself. Start and end are those of its first and last word.
    No word is lost or repeated; words without text are left out.
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
    """The words with times that neither overlap nor are empty: each starts at the end of the one before at the
    earliest, and lasts 0.02 s at least (recognisers give some words no length at all)."""
    ordered: list[Word] = []
    end_s = 0.0
    for word in words:
        start_s = max(word.start_s, end_s)
        end_s = max(word.end_s, start_s + _SHORTEST_WORD_S)
        ordered.append(Word(start_s, end_s, word.text))
    return ordered
