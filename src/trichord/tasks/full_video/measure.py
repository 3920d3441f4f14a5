"""Full-video retrieval: finds the video that a caption, or all captions of a video, belong to, by the scores of its clips.

S(c, k) is the dot product of caption c and clip k. There are five ways of pooling from clips to videos, each with its own rows:

| way | query | score of a video |
|---|---|---|
| `caption, best clip` | a caption | largest S of its clips |
| `caption, mean clip` | a caption | mean S of its clips |
| `video, mean of best` | all captions of a video | mean over the captions of the largest S of its clips |
| `video, mean of mean` | all captions of a video | mean S of all pairs of a caption and a clip |
| `video, votes` | all captions of a video | number of votes: each caption votes for the video of its best clip (ties share it) |

Ties and missing items are treated as in `ranks`. Votes often tie, and the ranks are then expected values. Scores of clips and
means of scores are computed in float64 and rounded once to float32. A mean is the sum of the scores divided by their number, so
that equal means tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.counts import RankCounts, distinct_rows, matrix_counts

WAYS = ("caption, best clip", "caption, mean clip", "video, mean of best", "video, mean of mean", "video, votes")
MOST_CELLS = 1 << 23  # largest size of a block of float64 scores: 64 MB


@dataclass(frozen=True, eq=False)
class VideoRanks:
    """The result of a way of pooling.

    Attributes:
        way: Name of the way.
        counts: Counts of each query.
        video: Index (Q,) of the video of each query.
    """

    way: str
    counts: RankCounts
    video: np.ndarray


def full_video_ranks(
    texts: np.ndarray, text_video: np.ndarray, clips: np.ndarray, clip_video: np.ndarray, block: int = 1024
) -> list[VideoRanks]:
    """Compute the counts of all five ways. Memory grows with M + N, and with the square of the number of videos.

    Args:
        texts: Embeddings (M, D) of captions.
        text_video: Index (M,) of the video of each caption, from 0. Every video has a caption and a clip.
        clips: Embeddings (N, D) of clips.
        clip_video: Index (N,) of the video of each clip.
        block: Largest number of captions that are processed at a time.

    Returns:
        The counts of each way.

    Raises:
        TrichordError: A video has no caption or no clip.
    """
    num_videos = int(clip_video.max(initial=-1)) + 1
    everyone = np.arange(num_videos)
    if not all(np.array_equal(np.unique(videos), everyone) for videos in (text_video, clip_video)) or not num_videos:
        raise TrichordError("every video needs at least one caption and one clip; leave out the other videos")
    order = np.argsort(clip_video, kind="stable")
    sorted_clips = clips[order].astype(np.float64)
    firsts = np.flatnonzero(np.diff(clip_video[order], prepend=-1))
    best_sum, votes = np.zeros((num_videos, num_videos)), np.zeros((num_videos, num_videos))
    parts: list[RankCounts] = []
    rows = max(1, min(block, MOST_CELLS // len(clips)))
    with np.errstate(all="ignore"):  # infinite rows have NaN scores, for which `ranks` has a rule
        for start in range(0, len(texts), rows):
            video_of_text = text_video[start : start + rows]
            wide = texts[start : start + rows].astype(np.float64) @ sorted_clips.T
            np.add.at(best_sum, video_of_text, np.maximum.reduceat(wide, firsts, axis=1))
            scores = wide.astype(np.float32)
            best = np.maximum.reduceat(scores, firsts, axis=1)
            parts.append(matrix_counts(best, video_of_text))
            on_top = scores == best.max(axis=1, keepdims=True)
            share = np.add.reduceat(on_top, firsts, axis=1, dtype=np.float64)
            np.add.at(votes, video_of_text, share / np.maximum(on_top.sum(axis=1, keepdims=True), 1))
        all_clips = np.add.reduceat(sorted_clips, firsts, axis=0), np.bincount(clip_video)
        all_texts = np.zeros((num_videos, texts.shape[1])), np.bincount(text_video)
        np.add.at(all_texts[0], text_video, texts.astype(np.float64))
        best_mean = (best_sum / all_texts[1][:, None]).astype(np.float32)
        return [
            VideoRanks(WAYS[0], _joined(parts, num_videos), text_video),
            VideoRanks(WAYS[1], _mean_counts(texts, np.ones(len(texts)), *all_clips, text_video, rows), text_video),
            VideoRanks(WAYS[2], matrix_counts(best_mean, everyone), everyone),
            VideoRanks(WAYS[3], _mean_counts(*all_texts, *all_clips, everyone, rows), everyone),
            VideoRanks(WAYS[4], matrix_counts(votes.astype(np.float32), everyone), everyone),
        ]


def _mean_counts(
    texts: np.ndarray, num_texts: np.ndarray, clips: np.ndarray, num_clips: np.ndarray, truth: np.ndarray, block: int
) -> RankCounts:
    """Return the counts of mean scores between sets of captions and sets of clips, given the sum and the size of each set."""
    first, copy_of = distinct_rows(
        np.column_stack([clips, num_clips])
    )  # videos with the same clips tie regardless of their position
    parts: list[RankCounts] = []
    for start in range(0, len(texts), block):
        here = slice(start, start + block)
        scores = texts[here].astype(np.float64) @ clips[first].T
        scores /= num_texts[here, None] * num_clips[first]
        parts.append(matrix_counts(scores.astype(np.float32)[:, copy_of], truth[here]))
    return _joined(parts, len(clips))


def _joined(parts: list[RankCounts], num_gallery: int) -> RankCounts:
    greater, equal = np.concatenate([p.greater for p in parts]), np.concatenate([p.equal for p in parts])
    return RankCounts(greater, equal, num_gallery)
