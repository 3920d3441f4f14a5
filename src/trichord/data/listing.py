"""The list of all clips that training can draw.

Clips are derived from captions, so each clip has a row, numbered from 0 in the order of videos. Captions that grow into the same
clip share a row. The clip of a row is determined by the listing alone, so any process can compute the clips of any rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.data.batch import Clips
from trichord.data.batches import TrainingClips, item_clips
from trichord.data.clips import words_published_orders


@dataclass(frozen=True, eq=False)
class Listing:
    """The list of the R clips of V training videos with N captions.

    Attributes:
        first_row: Row of the first clip of each video, followed by R, of shape (V + 1,).
        row: Row of the clip of each caption, video after video, of shape (N,).
        begin: For each item of the store, the index in `row` at which its captions begin, or -1 if it is not trained on.
    """

    first_row: np.ndarray
    row: np.ndarray
    begin: np.ndarray

    @property
    def num_clips(self) -> int:
        """Number of clips, R."""
        return int(self.first_row[-1])


def list_clips(source: TrainingClips) -> Listing:
    """List the clips that a sampler can draw. This reads the times of all captions once.

    Args:
        source: Sampler of the clips.

    Returns:
        The list.
    """
    first_row, rows = [0], []
    for video in source.items.tolist():
        chosen, row = _distinct(source, *item_clips(source.store, video, source.min_clip_s)[2:])
        rows.append(row + first_row[-1])
        first_row.append(first_row[-1] + len(chosen))
    begin = np.full(len(source.store), -1, np.int64)
    begin[source.items] = np.cumsum([0, *(len(row) for row in rows[:-1])])
    return Listing(np.array(first_row), np.concatenate(rows), begin)


def clips_at(source: TrainingClips, listing: Listing, begin: int, end: int) -> Clips:
    """Return the clips of some rows of a listing.

    Args:
        source: Sampler of the clips.
        listing: Its listing.
        begin: First row.
        end: End of the rows (exclusive).

    Returns:
        The clips.
    """
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
    """Return the different clips of a video.

    Returns:
        The first caption of each different clip in increasing order (M,), and the index of the clip of each caption (N,).
    """
    if source.published_words:  # the words of a clip depend on the caption that it grew from
        return np.arange(len(first)), np.arange(len(first))
    _, chosen, clip_of_caption = np.unique(first * len(first) + last, return_index=True, return_inverse=True)
    place = np.empty(len(chosen), np.int64)
    place[np.argsort(chosen)] = np.arange(len(chosen))
    return np.sort(chosen), place[clip_of_caption]
