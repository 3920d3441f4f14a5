"""The rows of full-video retrieval, and the assignment of clips to videos."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from trichord.errors import TrichordError
from trichord.evaluation.embedded import Embedded
from trichord.evaluation.ranks import RECALLS, chance_recall, metrics_from_counts
from trichord.modality import Direction
from trichord.tasks.full_video.measure import full_video_ranks
from trichord.tasks.protocol import Outcome
from trichord.tasks.retrieval.measure import QueryRanks, fuse
from trichord.tasks.retrieval.protocols import ranked_rows

VIDEO_ID = 11  # number of characters of the id of a YouTube video
# If a release names clips after their video, the import names them VIDEO, VIDEO#2 and so on.
YOUCOOK2_CLIP = re.compile(rf"[\w-]{{{VIDEO_ID}}}(?:[^A-Za-z].*)?", re.ASCII | re.DOTALL)
Groups = Callable[[str, Embedded], tuple[np.ndarray, list[str]]]


def own_videos(name: str, embedded: Embedded) -> tuple[np.ndarray, list[str]]:
    """Return the video (N,) of each clip as recorded, and notes.

    Args:
        name: Name of the benchmark, for messages.
        embedded: N clips.

    Raises:
        TrichordError: No two clips belong to the same video, or all do.
    """
    if not _are_shared(embedded):
        raise TrichordError(
            f"benchmark {name}: no two clips of {embedded.source} belong to the same video; give the video of each clip "
            "(`videos` in a file of embeddings), or use the benchmark retrieval"
        )
    return _several(name, embedded, embedded.videos), []


def youcook2_videos(name: str, embedded: Embedded) -> tuple[np.ndarray, list[str]]:
    """Return the video (N,) of each clip, and notes.

    If each clip has its own video and all have names of YouCook2 clips, the video is given by the first 11 characters of the name.
    Otherwise, the videos are those of `own_videos`.

    Args:
        name: Name of the benchmark, for messages.
        embedded: N clips.

    Raises:
        TrichordError: No two clips belong to the same video, or all do.
    """
    if _are_shared(embedded):
        return _several(name, embedded, embedded.videos), []
    names = embedded.videos.tolist()
    if other := next((clip for clip in names if not YOUCOOK2_CLIP.fullmatch(clip)), None):
        raise TrichordError(
            f"benchmark {name}: no two clips of {embedded.source} belong to the same video, and '{other}' is not the name of a "
            f"YouCook2 clip (the {VIDEO_ID} characters of its video, then a separator or digits); give the video of each clip "
            "(`videos` in a file of embeddings)"
        )
    videos = np.array([clip[:VIDEO_ID] for clip in names], np.str_)
    if len(set(videos.tolist())) == len(set(names)):
        raise TrichordError(
            f"benchmark {name}: no two clips of {embedded.source} have the same first {VIDEO_ID} characters, which name the video; "
            "give the video of each clip (`videos` in a file of embeddings)"
        )
    note = f"{name}: clips are grouped by the first {VIDEO_ID} characters of their names"
    return _several(name, embedded, videos), [f"{note}: {len(set(videos.tolist())):,} videos"]


def _are_shared(embedded: Embedded) -> bool:
    """Return whether a video has several clips. Clips with the same known times are a single clip with several captions."""
    spans = zip(embedded.videos.tolist(), embedded.start_s.tolist(), embedded.end_s.tolist(), strict=True)
    clips = {(video, start, end) if end > start else (video, i) for i, (video, start, end) in enumerate(spans)}
    return len(clips) > len(set(embedded.videos.tolist()))


def _several(name: str, embedded: Embedded, videos: np.ndarray) -> np.ndarray:
    if len(set(videos.tolist())) == 1:
        raise TrichordError(
            f"benchmark {name}: all {embedded.num_clips:,} clips of {embedded.source} belong to the same video, '{videos[0]}', so "
            "there is nothing to rank; give clips of several videos, or use the benchmark retrieval"
        )
    return videos


def full_video_outcome(
    name: str,
    embedded: Embedded,
    video_of: np.ndarray,
    directions: list[Direction],
    fusion: str,
    missing: str,
    block: int = 1024,
    windows: str = "",
) -> Outcome:
    """Return the rows and the ranks of the queries of the five ways from clips to videos.

    A video takes part if it has a caption, and a clip with the modalities of the direction.

    Args:
        name: Name of the benchmark.
        embedded: N clips.
        video_of: Name (N,) of the video of each clip.
        directions: Directions with text alone as the query.
        fusion: Rule by which several modalities are combined: `sum` or `mean_normalized`.
        missing: Policy for queries that cannot be ranked: `drop` or `miss`.
        block: Number of rows of a block of scores.
        windows: `Windows.text` if clips were cut.

    Raises:
        TrichordError: No video has the modalities of a direction.
    """
    videos, of_clip = np.unique(video_of, return_inverse=True)
    of_text = of_clip[embedded.text_clip]
    marked = f", {windows}" if windows else ""
    outcome = Outcome(arrays={f"{name}/video": videos, f"{name}/text_id": embedded.ids[embedded.text_clip]})
    for direction in directions:
        clips = np.flatnonzero(np.logical_and.reduce([embedded.valid[m] for m in direction.target]))
        texts = np.flatnonzero(embedded.valid["text"])
        takes_part = np.zeros((2, len(videos)), bool)
        takes_part[0, of_clip[clips]], takes_part[1, of_text[texts]] = True, True
        part = np.flatnonzero(takes_part.all(axis=0))
        if not len(part):
            lacking = " and ".join(direction.modalities)
            raise TrichordError(
                f"benchmark {name}: no video has {lacking}; direction {direction.code} cannot be scored"
            )
        place = np.full(len(videos), -1)
        place[part] = np.arange(len(part))
        clips, texts = clips[place[of_clip[clips]] >= 0], texts[place[of_text[texts]] >= 0]
        gallery = fuse([embedded.embeddings[m][clips] for m in direction.target], fusion)
        queries = fuse([embedded.embeddings["text"][texts]], fusion)
        for ranks in full_video_ranks(queries, place[of_text[texts]], gallery, place[of_clip[clips]], block):
            by_caption = ranks.way.startswith("caption")
            lost = (embedded.num_texts - len(texts)) if by_caption else len(videos) - len(part)
            counted = lost if missing == "miss" else 0
            metrics = metrics_from_counts(ranks.counts, num_missing=counted)
            share = len(ranks.video) / (len(ranks.video) + counted)
            scope = f"{direction.code}, {fusion}{marked}: {ranks.way}"
            at, total = (texts, embedded.num_texts) if by_caption else (part, len(videos))
            units = f"{name}/text_id" if by_caption else f"{name}/video"
            each = QueryRanks(ranks.video, *ranks.counts)
            chance = {recall.field: chance_recall(recall.k, len(part)) * share for recall in RECALLS}
            last = float(len(part) + counted) if missing == "miss" else None
            outcome.rows += ranked_rows(name, scope, metrics, chance, each, at, total, units, last)
            head = f"{name}/{direction.code}/{ranks.way.replace(', ', '-').replace(' ', '-')}"
            outcome.arrays |= {
                f"{head}/video": part[ranks.video].astype(np.int32),
                f"{head}/greater": ranks.counts.greater.astype(np.int32),
                f"{head}/equal": ranks.counts.equal.astype(np.int32),
                f"{head}/num_gallery": np.array(ranks.counts.num_gallery),
            }
    return outcome
