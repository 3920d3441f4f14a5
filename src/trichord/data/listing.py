"""Every clip that training can draw, listed: clips follow from captions, so each has a row, from 0 in the order of videos.

Captions that grow into the same clip share a row. A row's clip follows from the listing alone, so any process can make the
clips of any rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.data.batch import Clips
from trichord.data.batches import TrainingClips, item_clips
from trichord.data.clips import words_published_orders


@dataclass(frozen=True, eq=False)
class Listing:
    """V videos that are trained on, N captions of them, R clips.

    Attributes:
        first_row: (V + 1,) the first clip of each video, and R.
        row: (N,) the row of the clip of each caption, video after video.
        begin: (items of the store,) where the captions of each begin in `row`; -1 for those that are not trained on.
    """

    first_row: np.ndarray
    row: np.ndarray
    begin: np.ndarray

    @property
    def num_clips(self) -> int:
        return int(self.first_row[-1])


def list_clips(source: TrainingClips) -> Listing:
    """List the clips that `source` can draw; takes a pass over all captions."""
    first_row, rows = [0], []
    for video in source.items.tolist():
        chosen, row = _distinct(source, *item_clips(source.store, video, source.min_clip_s)[2:])
        rows.append(row + first_row[-1])
        first_row.append(first_row[-1] + len(chosen))
    begin = np.full(len(source.store), -1, np.int64)
    begin[source.items] = np.cumsum([0, *(len(row) for row in rows[:-1])])
    return Listing(np.array(first_row), np.concatenate(rows), begin)


def clips_at(source: TrainingClips, listing: Listing, begin: int, end: int) -> Clips:
    """The clips of rows `begin` to `end`."""
    item, start_s, end_s = [], [], []
    captions: list[np.ndarray] = []
    videos = np.searchsorted(listing.first_row, [begin, end - 1], side="right") - 1
    for place in range(videos[0], videos[1] + 1):
        video = int(source.items[place])
        starts, ends, first, last = item_clips(source.store, video, source.min_clip_s)
        base = int(listing.first_row[place])
        chosen = _distinct(source, first, last)[0][max(begin - base, 0) : end - base]
        item += [video] * len(chosen)
        start_s += starts[chosen].tolist()
        end_s += ends[chosen].tolist()
        if source.published_words:
            captions += words_published_orders(chosen, *source.store.caption_spans(video), source.min_clip_s)
        else:
            captions += [np.arange(first[caption], last[caption] + 1) for caption in chosen.tolist()]
    return Clips(np.array(item, np.int64), np.array(start_s), np.array(end_s), captions)


def _distinct(source: TrainingClips, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first caption of each different clip of a video (M,), rising; and for each caption (N,) which of those is its own."""
    if source.published_words:  # the words of a clip depend on the caption that it grew from
        return np.arange(len(first)), np.arange(len(first))
    _, chosen, which = np.unique(first * len(first) + last, return_index=True, return_inverse=True)
    place = np.empty(len(chosen), np.int64)
    place[np.argsort(chosen)] = np.arange(len(chosen))
    return np.sort(chosen), place[which]
