"""Full-video retrieval: find the video that a caption, or all captions of a video, belong to, by the scores of its clips.

S(c, k) is the dot product of caption c and clip k. Five ways to go from clips to videos, each a protocol row of its own:

| way | query | score of a video |
|---|---|---|
| `caption, best clip` | one caption | the largest S of its clips |
| `caption, mean clip` | one caption | the mean S of its clips |
| `video, mean of best` | all captions of a video | the mean over them of the largest S of its clips |
| `video, mean of mean` | all captions of a video | the mean S of all pairs of a caption and a clip |
| `video, votes` | all captions of a video | the votes: each caption has one, for the video of its best clip (ties share it) |

Ties and missing ones are those of `ranks`: votes tie often, and such ranks are expected ones. Scores of clips, and means of
scores, are made in float64 and rounded once, to float32; a mean is the sum of the scores over their number, so that means
tie which are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.counts import RankCounts, distinct_rows, matrix_counts

WAYS = ("caption, best clip", "caption, mean clip", "video, mean of best", "video, mean of mean", "video, votes")
MOST_CELLS = 1 << 23  # of a block of scores, float64: 64 MB


@dataclass(frozen=True, eq=False)
class VideoRanks:
    """Counts of one way, and for each query (Q,) the video that it is or belongs to."""

    way: str
    counts: RankCounts
    video: np.ndarray


def full_video_ranks(
    texts: np.ndarray, text_video: np.ndarray, clips: np.ndarray, clip_video: np.ndarray, block: int = 1024
) -> list[VideoRanks]:
    """Return the counts of all five ways. Memory grows with M + N, and with the square of the number of videos.

    Args:
        texts: (M, D) captions.
        text_video: (M,) the video of each, numbered from 0; every video has a caption and a clip.
        clips: (N, D) clips.
        clip_video: (N,) the video of each.
        block: Most captions at a time.
    """
    num_videos = int(clip_video.max(initial=-1)) + 1
    everyone = np.arange(num_videos)
    if not all(np.array_equal(np.unique(videos), everyone) for videos in (text_video, clip_video)) or not num_videos:
        raise TrichordError("every video needs a caption and a clip to be found by; leave out those that lack one")
    order = np.argsort(clip_video, kind="stable")
    sorted_clips = clips[order].astype(np.float64)
    firsts = np.flatnonzero(np.diff(clip_video[order], prepend=-1))
    best_sum, votes = np.zeros((num_videos, num_videos)), np.zeros((num_videos, num_videos))
    parts: list[RankCounts] = []
    rows = max(1, min(block, MOST_CELLS // len(clips)))
    with np.errstate(all="ignore"):  # infinite rows give NaN scores, which have their rule
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
    """Return the counts of mean scores between sets of captions and sets of clips, from the sum of the rows of each set and its
    size."""
    first, copy_of = distinct_rows(
        np.column_stack([clips, num_clips])
    )  # videos of the same clips tie, wherever they lie
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
