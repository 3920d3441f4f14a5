"""Every clip that training can draw: each caption, grown by its neighbours until the clip is long enough.

The rule is the one of the published loaders (Miech et al. 2019, "HowTo100M"; MCN draws its clips so): a clip holds the
captions first..last and spans [start of the first, end of the last). While it is shorter than `min_duration_s` and a
neighbour is left, it takes the neighbour that gives the shorter clip, the left one on ties.
"""

from __future__ import annotations

import numpy as np

from trichord.errors import TrichordError


def clip_windows(start_s: np.ndarray, end_s: np.ndarray, min_duration_s: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Start and end in seconds (float64, (N,) each) of the clip grown from each of a video's N captions.

    Args:
        start_s: (N,) start of each caption, in caption order.
        end_s: (N,) end of each caption.
        min_duration_s: Shortest clip; a video whose captions span less gives clips that hold all of them.

    Raises TrichordError when the two differ in length or a time is not finite.
    """
    return clip_spans(start_s, end_s, min_duration_s)[:2]


def clip_spans(
    start_s: np.ndarray, end_s: np.ndarray, min_duration_s: float = 10.0, offsets: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The clip of each caption: start_s, end_s (float64, (N,)), first and last caption that it holds (int64, (N,)).

    All captions grow at the same time, so the cost is one pass of array operations per neighbour of the clip that
    takes the most.

    Args:
        start_s: (N,) start of each caption, in caption order.
        end_s: (N,) end of each caption.
        min_duration_s: Shortest clip.
        offsets: (V + 1,) for captions of V videos laid end to end: video v has the captions
            offsets[v]..offsets[v + 1] - 1 and no clip leaves its video. None: they are of one video.

    Raises TrichordError when the shapes disagree or a time is not finite.
    """
    start, end = _times(start_s, end_s, min_duration_s)
    first, last = _grown(start, end, np.arange(len(start)), min_duration_s, offsets)
    return start[first], end[last], first, last


def words_published_order(
    caption: int, start_s: np.ndarray, end_s: np.ndarray, min_duration_s: float = 10.0
) -> np.ndarray:
    """Captions (int64) of the clip grown from `caption` in the order in which the published loaders read their words.

    That is the order in which they joined: the caption itself, then each neighbour, also an earlier one, at the end;
    so the caption's own words survive the cut to 20 words. The order by time is `np.arange(first, last + 1)` with
    `first` and `last` from `clip_spans`.
    """
    if not 0 <= caption < len(start_s):
        raise ValueError(f"caption {caption} of {len(start_s)}")
    return words_published_orders(np.array([caption]), start_s, end_s, min_duration_s)[0]


def words_published_orders(
    captions: np.ndarray,
    start_s: np.ndarray,
    end_s: np.ndarray,
    min_duration_s: float = 10.0,
    offsets: np.ndarray | None = None,
) -> list[np.ndarray]:
    """`words_published_order` of many captions at once: B arrays of captions, for `captions` (B,).

    Args:
        captions: (B,) which of the N captions; repeats are allowed.
        start_s: (N,) as for `clip_spans`, of several videos when `offsets` is given; so are the other arguments.
    """
    start, end = _times(start_s, end_s, min_duration_s)
    joined = [np.arange(len(captions)), np.asarray(captions, np.int64)]
    _grown(start, end, np.asarray(captions, np.int64), min_duration_s, offsets, joined)
    rows, members = np.concatenate(joined[::2]), np.concatenate(joined[1::2])
    members = members[np.argsort(rows, kind="stable")]
    stops = np.cumsum(np.bincount(rows, minlength=len(captions))).tolist()
    return [members[begin:stop] for begin, stop in zip([0, *stops[:-1]], stops, strict=False)]


def _grown(
    start: np.ndarray,
    end: np.ndarray,
    seeds: np.ndarray,
    min_duration_s: float,
    offsets: np.ndarray | None,
    joined: list[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """First and last caption of the clip grown from each seed. Appends to `joined`, for each pass, the rows of the seeds
    that grew and the captions that joined them."""
    lowest, highest = (bound[seeds] for bound in _neighbourhood(len(start), offsets))
    first, last = seeds.copy(), seeds.copy()
    grows = np.flatnonzero((end[last] - start[first] < min_duration_s) & (lowest < highest))
    while len(grows):
        left, right = first[grows] - 1, last[grows] + 1
        has_left, has_right = left >= lowest[grows], right <= highest[grows]
        with_left = np.where(has_left, end[last[grows]] - start[left], np.inf)
        with_right = np.where(has_right, end[np.minimum(right, len(end) - 1)] - start[first[grows]], np.inf)
        take_left = with_left <= with_right
        if joined is not None:
            joined += [grows, np.where(take_left, left, right)]
        first[grows] -= take_left
        last[grows] += ~take_left
        short = np.where(take_left, with_left, with_right) < min_duration_s
        grows = grows[short & ((first[grows] > lowest[grows]) | (last[grows] < highest[grows]))]
    return first, last


def _times(start_s: np.ndarray, end_s: np.ndarray, min_duration_s: float) -> tuple[np.ndarray, np.ndarray]:
    start, end = np.asarray(start_s, np.float64), np.asarray(end_s, np.float64)
    if start.ndim != 1 or start.shape != end.shape:
        raise TrichordError(
            f"caption starts have shape {start.shape} and ends {end.shape}; give one start and one end per caption"
        )
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise TrichordError("a caption starts or ends at a time that is not finite; drop such captions first")
    if not np.isfinite(min_duration_s):
        raise TrichordError(f"the shortest clip is {min_duration_s} s; give a number of seconds such as 10.0")
    return start, end


def _neighbourhood(num_captions: int, offsets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(N,) first and last caption of the video of each caption."""
    if offsets is None:
        offsets = np.array([0, num_captions])
    begin, stop = np.asarray(offsets[:-1], np.int64), np.asarray(offsets[1:], np.int64)
    lengths = stop - begin
    if len(offsets) < 1 or (lengths < 0).any() or int(lengths.sum()) != num_captions or (len(begin) and begin[0] != 0):
        raise TrichordError(f"the offsets do not divide the {num_captions} captions; start at 0, end at {num_captions}")
    return np.repeat(begin, lengths), np.repeat(stop - 1, lengths)
