"""Videos cut into segments by a transcript, and how well these overlap with the annotated ones (Mining YouTube's measures).

The transcript of a video is known: what happens in which order, background included. Its S entries are laid over the video
so that every frame belongs to one entry and every entry has a frame. Detection D_i is the segment of entry i, ground truth
G_i the annotated segment that stands at the same place of the transcript: entry with entry, never class with class, so a
step that is done twice has two pairs.

| measure | of one entry | of a video |
|---|---|---|
| IoU | frames of G_i and D_i / frames of G_i or D_i | mean over its entries that are no background |
| IoD | frames of G_i and D_i / frames of D_i | the same |
| MoF | | frames whose label is the annotated one / frames, background included |

Mining YouTube's authors give the formulas alone; pairs and means are chosen here. Over a test set each is given as the mean
over videos and as the mean over all segments (MoF: over all frames).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from trichord.errors import TrichordError

BACKGROUND = -1
ROUNDING = 1e-9  # log-probabilities of cuts that differ by less are equally good


@dataclass(frozen=True, eq=False)
class Overlaps:
    """IoU and IoD (E,) of the entries of a video other than background, the number of its frames, and the number of correct
    ones."""

    iou: np.ndarray
    iod: np.ndarray
    num_right: int
    num_frames: int


def transcript_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the transcript (S,) of frame labels (T,), and its borders (S + 1,): entry i holds the frames [b_i, b_i+1)."""
    if labels.ndim != 1 or not len(labels):
        raise TrichordError("a video without frames has no transcript; leave it out")
    begins = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    return labels[begins], np.concatenate([begins, [len(labels)]])


def align_transcript(log_probs: np.ndarray, mean_lengths: np.ndarray | None = None, stride: int = 1) -> np.ndarray:
    """Return the borders (S + 1,) of the most probable division of T frames into the S entries of a transcript, in their order.

    The sum of the frames' log-probabilities under their entries, and of the log-probability of each entry's length under a
    Poisson distribution. Borders lie at multiples of `stride`; every entry has at least one frame. Dynamic programming over
    (frame, entry, length): S (T / stride)^2 / 2 steps of work. Of cuts that are equally good, to rounding, it is the one whose
    last entry begins earliest, of those the one whose last but one does, and so on.

    Args:
        log_probs: (T, S) finite; a column for each entry: of a transcript of classes, `log_probs[:, classes]`.
        mean_lengths: (S,) expected frames of each entry, above 0; None leaves lengths free.
        stride: Frames between possible borders.

    Raises TrichordError when there are more entries than possible segments.
    """
    if log_probs.ndim != 2 or not log_probs.size or not np.isfinite(log_probs).all():
        raise TrichordError(f"log-probabilities must be finite, (frames, entries), not of shape {log_probs.shape}")
    if stride < 1:
        raise TrichordError(f"a stride of {stride} frames is none; give 1 or more")
    num_frames, num_entries = log_probs.shape
    grid = np.unique(np.append(np.arange(0, num_frames, stride), num_frames))
    if num_entries >= len(grid):
        raise TrichordError(
            f"a transcript of {num_entries} entries does not fit in {len(grid) - 1} segments of {stride} frames; "
            "use a smaller stride, or leave the video out"
        )
    total_sg = np.concatenate([np.zeros((1, num_entries)), np.cumsum(log_probs, axis=0, dtype=np.float64)])[grid].T
    length_sd = _length_log_probs(mean_lengths, num_frames, num_entries)
    best = np.full((num_entries + 1, len(grid)), -np.inf)  # of so many entries that end at that place of the grid
    best[0, 0] = 0.0
    begun = np.full((num_entries, len(grid)), -np.inf)  # best before the entry, less the frames before it
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
    """Return the overlap of two divisions of a video by the same transcript.

    Args:
        transcript: (S,) label of each entry, BACKGROUND where it is none.
        truth: (S + 1,) annotated borders.
        detected: (S + 1,) borders of the detection; both begin and end at the same frames.
    """
    if not (
        len(truth) == len(detected) == len(transcript) + 1 and truth[0] == detected[0] and truth[-1] == detected[-1]
    ):
        raise ValueError(
            "both segmentations must have one boundary more than there are steps, and the same first and last"
        )
    both = np.maximum(0, np.minimum(truth[1:], detected[1:]) - np.maximum(truth[:-1], detected[:-1]))
    length, true_length = np.diff(detected), np.diff(truth)
    step = transcript != BACKGROUND
    right = np.repeat(transcript, length) == np.repeat(transcript, true_length)
    iou = both / (length + true_length - both)
    return Overlaps(iou[step], (both / length)[step], int(right.sum()), len(right))


def _length_log_probs(mean_lengths: np.ndarray | None, num_frames: int, num_entries: int) -> np.ndarray:
    """Return the log-probability (S, T + 1) of each length."""
    if mean_lengths is None:
        return np.zeros((num_entries, num_frames + 1))
    means = np.asarray(mean_lengths, np.float64)
    if means.shape != (num_entries,) or not (np.isfinite(means) & (means > 0)).all():
        raise TrichordError(f"mean lengths must be one number above 0 for each of {num_entries} entries")
    lengths = np.arange(num_frames + 1)
    return lengths * np.log(means)[:, None] - means[:, None] - gammaln(lengths + 1)
