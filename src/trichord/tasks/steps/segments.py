"""Segmentation of videos by a transcript, and the overlap with annotated segments (the measures of Mining YouTube).

The transcript of a video, i.e. the sequence of its steps including background, is known. Its S entries are aligned with the video,
so that every frame belongs to one entry and every entry has a frame. The detection D_i is the segment of entry i, and the ground
truth G_i is the annotated segment at the same position of the transcript. A step that occurs twice therefore has two pairs.

| measure | of an entry | of a video |
|---|---|---|
| IoU | frames in both G_i and D_i / frames in G_i or D_i | mean over its entries other than background |
| IoD | frames in both G_i and D_i / frames in D_i | the same |
| MoF | | correctly labelled frames / frames, including background |

The authors of Mining YouTube publish only the formulas; the pairing and the means are choices of this module. Over a test set,
each measure is reported as the mean over videos and as the mean over all segments (MoF: over all frames).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from trichord.errors import TrichordError

BACKGROUND = -1
ROUNDING = 1e-9  # divisions whose log-probabilities differ by less are equally good


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The overlap of the segments of a video.

    Attributes:
        iou: IoU (E,) of the entries other than background.
        iod: IoD (E,) of the same entries.
        num_right: Number of correctly labelled frames.
        num_frames: Number of frames.
    """

    iou: np.ndarray
    iod: np.ndarray
    num_right: int
    num_frames: int


def transcript_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the transcript (S,) of frame labels (T,), and its borders (S + 1,). Entry i has the frames [b_i, b_i+1)."""
    if labels.ndim != 1 or not len(labels):
        raise TrichordError("a video without frames has no transcript; leave it out")
    begins = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    return labels[begins], np.concatenate([begins, [len(labels)]])


def align_transcript(log_probs: np.ndarray, mean_lengths: np.ndarray | None = None, stride: int = 1) -> np.ndarray:
    """Find the most probable division of T frames into the S entries of a transcript, in their order.

    The division maximizes the sum of the log-probabilities of the frames under their entries and of the log-probabilities of the
    lengths of the entries under a Poisson distribution. Every entry has at least one frame. Dynamic programming over frames,
    entries and lengths needs S (T / stride)^2 / 2 operations. Among equally good divisions (up to rounding), the one whose last
    entry begins earliest is chosen, then the one whose last but one entry does, and so on.

    Args:
        log_probs: Finite log-probabilities (T, S) with a column for each entry, such as `log_probs[:, classes]`.
        mean_lengths: Expected number (S,) of frames of each entry, above 0. None allows any length.
        stride: Number of frames between possible borders.

    Returns:
        Borders (S + 1,).

    Raises:
        TrichordError: There are more entries than possible segments, or an argument is invalid.
    """
    if log_probs.ndim != 2 or not log_probs.size or not np.isfinite(log_probs).all():
        raise TrichordError(
            f"log-probabilities have shape {log_probs.shape}; expected finite values of shape (frames, entries)"
        )
    if stride < 1:
        raise TrichordError(f"the stride of {stride} frames is invalid; give at least 1")
    num_frames, num_entries = log_probs.shape
    grid = np.unique(np.append(np.arange(0, num_frames, stride), num_frames))
    if num_entries >= len(grid):
        raise TrichordError(
            f"a transcript of {num_entries} entries does not fit in {len(grid) - 1} segments of {stride} frames; "
            "use a smaller stride, or leave the video out"
        )
    total_sg = np.concatenate([np.zeros((1, num_entries)), np.cumsum(log_probs, axis=0, dtype=np.float64)])[grid].T
    length_sd = _length_log_probs(mean_lengths, num_frames, num_entries)
    best = np.full(
        (num_entries + 1, len(grid)), -np.inf
    )  # best sum of the first entries that end at a point of the grid
    best[0, 0] = 0.0
    begun = np.full((num_entries, len(grid)), -np.inf)  # best sum before an entry, minus that of all frames before it
    begun[:, 0] = best[:-1, 0] - total_sg[:, 0]
    came_from = np.zeros((num_entries, len(grid)), np.int64)
    for g in range(1, len(grid)):
        choices = begun[:, :g] + length_sd[:, grid[g] - grid[:g]]
        most = choices.max(axis=1)
        came_from[:, g] = (choices >= most[:, None] - ROUNDING).argmax(axis=1)
        best[1:, g] = most + total_sg[:, g]
        begun[:, g] = best[:-1, g] - total_sg[:, g]
    places = [len(grid) - 1]
    for s in range(num_entries - 1, -1, -1):
        places.append(int(came_from[s, places[-1]]))
    return grid[places[::-1]]


def overlaps(transcript: np.ndarray, truth: np.ndarray, detected: np.ndarray) -> Overlaps:
    """Compare two divisions of a video by the same transcript.

    Args:
        transcript: Label (S,) of each entry, or BACKGROUND.
        truth: Annotated borders (S + 1,).
        detected: Borders (S + 1,) of the detection, with the same first and last frame.

    Returns:
        The overlap of the segments.

    Raises:
        TrichordError: The divisions do not fit.
    """
    if not (
        len(truth) == len(detected) == len(transcript) + 1 and truth[0] == detected[0] and truth[-1] == detected[-1]
    ):
        raise ValueError(
            "both segmentations must have one border more than there are entries, and the same first and last border"
        )
    both = np.maximum(0, np.minimum(truth[1:], detected[1:]) - np.maximum(truth[:-1], detected[:-1]))
    length, true_length = np.diff(detected), np.diff(truth)
    step = transcript != BACKGROUND
    right = np.repeat(transcript, length) == np.repeat(transcript, true_length)
    iou = both / (length + true_length - both)
    return Overlaps(iou[step], (both / length)[step], int(right.sum()), len(right))


def _length_log_probs(mean_lengths: np.ndarray | None, num_frames: int, num_entries: int) -> np.ndarray:
    """Return the log-probability (S, T + 1) of each length of each entry."""
    if mean_lengths is None:
        return np.zeros((num_entries, num_frames + 1))
    means = np.asarray(mean_lengths, np.float64)
    if means.shape != (num_entries,) or not (np.isfinite(means) & (means > 0)).all():
        raise TrichordError(f"mean lengths must be {num_entries} numbers above 0, one for each entry")
    lengths = np.arange(num_frames + 1)
    return lengths * np.log(means)[:, None] - means[:, None] - gammaln(lengths + 1)
