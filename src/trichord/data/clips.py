"""The clips that training can draw: each caption, extended by its neighbours until the clip is long enough.

The rule follows the published loaders (Miech et al. 2019, "HowTo100M"; MCN uses the same one). A clip contains the captions
first..last and spans [start of the first, end of the last). While it is shorter than `min_duration_s` and a neighbour is left, it
is extended by the neighbour that gives the shorter clip. The left neighbour wins a tie.
"""

from __future__ import annotations

import numpy as np

from trichord.errors import TrichordError


def clip_windows(start_s: np.ndarray, end_s: np.ndarray, min_duration_s: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the start and end of the clip of each of the N captions of a video.

    Args:
        start_s: Start of each caption in seconds, of shape (N,), in the order of captions.
        end_s: End of each caption in seconds, of shape (N,).
        min_duration_s: Minimum duration of a clip in seconds. If the captions of a video span less, each clip contains all of them.

    Returns:
        Start and end of each clip in seconds, each of shape (N,), float64.

    Raises:
        TrichordError: If the two arrays differ in length or a time is not finite.

    Example:
        >>> import numpy as np
        >>> from trichord.data import clip_windows
        >>> clip_windows(np.array([0.0, 4.0, 9.0]), np.array([4.0, 9.0, 30.0]), min_duration_s=8.0)
        (array([0., 0., 9.]), array([ 9.,  9., 30.]))
    """
    return clip_spans(start_s, end_s, min_duration_s)[:2]


def clip_spans(
    start_s: np.ndarray, end_s: np.ndarray, min_duration_s: float = 10.0, offsets: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the clip of each caption with the captions that it contains.

    All clips are extended at the same time. The number of passes of array operations is the largest number of neighbours that a
    clip takes.

    Args:
        start_s: Start of each caption in seconds, of shape (N,), in the order of captions.
        end_s: End of each caption in seconds, of shape (N,).
        min_duration_s: Minimum duration of a clip in seconds.
        offsets: Array of shape (V + 1,) for the concatenated captions of V videos: video v has the captions
            offsets[v]..offsets[v + 1] - 1, and no clip extends beyond its video. None means that all captions belong to one video.

    Returns:
        Start and end of each clip in seconds (float64), and its first and last caption (int64), each of shape (N,).

    Raises:
        TrichordError: If the shapes do not match or a time is not finite.

    Example:
        >>> import numpy as np
        >>> from trichord.data import clip_spans
        >>> start_s, end_s, first, last = clip_spans(np.array([0.0, 4.0, 9.0]), np.array([4.0, 9.0, 30.0]), 8.0)
        >>> first, last
        (array([0, 0, 2]), array([1, 1, 2]))
    """
    start, end = _times(start_s, end_s, min_duration_s)
    first, last = _grown(start, end, np.arange(len(start)), min_duration_s, offsets)
    return start[first], end[last], first, last


def words_published_order(
    caption: int, start_s: np.ndarray, end_s: np.ndarray, min_duration_s: float = 10.0
) -> np.ndarray:
    """Return the captions of a clip in the order in which the published loaders read their words.

    This is the order in which the captions were added: the caption itself, followed by each neighbour, whether earlier or later.
    The words of the caption itself are therefore kept when the text is truncated to 20 words. The order of time is
    `np.arange(first, last + 1)` with `first` and `last` from `clip_spans`.

    Args:
        caption: Index of the caption that the clip grows from.
        start_s: Start of each caption in seconds, of shape (N,), in the order of captions.
        end_s: End of each caption in seconds, of shape (N,).
        min_duration_s: Minimum duration of a clip in seconds.

    Returns:
        Indices of captions, int64.

    Raises:
        ValueError: If there is no such caption.
        TrichordError: If the shapes do not match or a time is not finite.

    Example:
        >>> import numpy as np
        >>> from trichord.data import words_published_order
        >>> words_published_order(1, np.array([0.0, 4.0, 9.0]), np.array([4.0, 9.0, 30.0]), 8.0)
        array([1, 0])
    """
    if not 0 <= caption < len(start_s):
        raise ValueError(f"caption is {caption}, but it must be in [0, {len(start_s)}), the number of captions")
    return words_published_orders(np.array([caption]), start_s, end_s, min_duration_s)[0]


def words_published_orders(
    captions: np.ndarray,
    start_s: np.ndarray,
    end_s: np.ndarray,
    min_duration_s: float = 10.0,
    offsets: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return the captions of many clips in the order of `words_published_order`.

    Args:
        captions: Indices of the captions that the clips grow from, of shape (B,). Repeats are allowed.
        start_s: Start of each caption in seconds, of shape (N,), as in `clip_spans`.
        end_s: End of each caption in seconds, of shape (N,).
        min_duration_s: Minimum duration of a clip in seconds.
        offsets: Offsets of several videos, as in `clip_spans`. None means that all captions belong to one video.

    Returns:
        B arrays of indices of captions, int64.
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
    """Return the first and last caption of the clip that grows from each seed.

    For each pass, the indices of the clips that grew and the captions that were added to them are appended to `joined`.
    """
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
            f"start_s has the shape {start.shape}, and end_s has the shape {end.shape}; give one start and one end per caption"
        )
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise TrichordError("the start or end of a caption is not finite; remove such captions first")
    if not np.isfinite(min_duration_s):
        raise TrichordError(f"min_duration_s is {min_duration_s}; give a number of seconds, such as 10.0")
    return start, end


def _neighbourhood(num_captions: int, offsets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last caption of the video of each caption, each of shape (N,)."""
    if offsets is None:
        offsets = np.array([0, num_captions])
    begin, stop = np.asarray(offsets[:-1], np.int64), np.asarray(offsets[1:], np.int64)
    lengths = stop - begin
    if len(offsets) < 1 or (lengths < 0).any() or int(lengths.sum()) != num_captions or (len(begin) and begin[0] != 0):
        raise TrichordError(
            f"the offsets do not divide the {num_captions} captions; give increasing offsets from 0 to {num_captions}"
        )
    return np.repeat(begin, lengths), np.repeat(stop - 1, lengths)
