"""Which clips make which batch: a pure function of (seed, epoch, step), the same on every process, read ahead by one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from trichord.data.clips import clip_spans, words_published_order
from trichord.data.reader import Batch, ClipReader, Clips
from trichord.errors import TrichordError

if TYPE_CHECKING:
    from trichord.store import Store

READ_AHEAD = 2


def item_clips(store: Store, item: int, min_clip_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clip of every caption of a video: start_s, end_s, first and last caption that it holds (each (N,)).

    Captions grow by their neighbours until `min_clip_s`. Where all captions have one span, the video *is* the clip
    (YouCook2, MSR-VTT) and each caption describes it alone: nothing grows.
    """
    start_s, end_s = (np.asarray(a, np.float64) for a in store.caption_spans(item))
    if len(start_s) and (start_s == start_s[0]).all() and (end_s == end_s[0]).all():
        alone = np.arange(len(start_s))
        return start_s, end_s, alone, alone
    return clip_spans(start_s, end_s, min_clip_s)


def evaluation_clips(store: Store, items: np.ndarray, min_clip_s: float) -> Clips:
    """Disjoint clips that together hold every caption once, in time order.

    Neighbouring captions are joined until the clip lasts `min_clip_s`; what is left at the end of a video joins its
    last clip. A video whose captions share one span gives one clip per caption.
    """
    rows: list[tuple[int, float, float, np.ndarray]] = []
    for item in items.tolist():
        start_s, end_s = (np.asarray(a, np.float64) for a in store.caption_spans(item))
        if len(start_s) == 0:
            continue
        if (start_s == start_s[0]).all() and (end_s == end_s[0]).all():
            rows += [(item, start_s[c], end_s[c], np.array([c])) for c in range(len(start_s))]
            continue
        groups: list[list[int]] = [[]]
        for caption in np.argsort(start_s, kind="stable").tolist():
            group = groups[-1]
            if group and end_s[group].max() - start_s[group].min() >= min_clip_s:
                groups.append(group := [])
            group.append(caption)
        if len(groups) > 1 and end_s[groups[-1]].max() - start_s[groups[-1]].min() < min_clip_s:
            rest = groups.pop()
            groups[-1] += rest
        rows += [(item, start_s[g].min(), end_s[g].max(), np.array(g)) for g in groups]
    return Clips(
        np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.float64),
        np.array([r[2] for r in rows], np.float64),
        [r[3] for r in rows],
    )


class TrainingClips:
    """Draws the clips of each batch.

    Args:
        store: Where captions and features lie.
        items: Videos to train on; those without captions are left out, since clips follow from captions.
        seed: Of the whole stream.
        videos_per_batch: Videos of a batch; when there are fewer, a batch holds all.
        clips_per_video: Clips of each video, at most; fewer when it has fewer different ones.
        min_clip_s: Shortest clip.
        distinct: Draw different clips of a video; False draws captions with replacement, as published (repeated clips
            become false negatives).
        published_words: Words of neighbours after those of the caption itself, as published, instead of by time.
    """

    def __init__(
        self,
        store: Store,
        items: np.ndarray,
        *,
        seed: int,
        videos_per_batch: int,
        clips_per_video: int,
        min_clip_s: float,
        distinct: bool = True,
        published_words: bool = False,
    ) -> None:
        self.items = np.array([i for i in items.tolist() if store.num_captions(i) > 0], np.int64)
        if len(self.items) == 0:
            raise TrichordError(
                f"{store.path}: no training video has captions; add captions, or choose another data.train_split"
            )
        self.store, self.seed, self.min_clip_s = store, seed, min_clip_s
        self.videos_per_batch = min(videos_per_batch, len(self.items))
        self.clips_per_video, self.distinct, self.published_words = clips_per_video, distinct, published_words

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of an epoch; the rest of the shuffled videos waits for the next epoch's shuffle."""
        return len(self.items) // self.videos_per_batch

    def draw(self, epoch: int, step: int) -> Clips:
        """Clips of step `step` (0-based within the epoch), over all processes."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.items))
        chosen = self.items[order[step * self.videos_per_batch : (step + 1) * self.videos_per_batch]]
        rng = np.random.default_rng([self.seed, epoch, step])
        item, start_s, end_s, captions = [], [], [], []
        for video in chosen.tolist():
            start, end, first, last = item_clips(self.store, video, self.min_clip_s)
            for caption in self._drawn(rng, first, last):
                span = np.arange(first[caption], last[caption] + 1)
                if self.published_words:
                    span = words_published_order(int(caption), *self.store.caption_spans(video), self.min_clip_s)
                item.append(video)
                start_s.append(start[caption])
                end_s.append(end[caption])
                captions.append(span)
        return Clips(np.array(item, np.int64), np.array(start_s), np.array(end_s), captions)

    def _drawn(self, rng: np.random.Generator, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Captions whose clips are drawn."""
        if not self.distinct:
            return rng.integers(0, len(first), self.clips_per_video)
        shuffled = rng.permutation(len(first))
        spans = np.stack([first[shuffled], last[shuffled]], axis=1)
        _, kept = np.unique(spans, axis=0, return_index=True)
        return shuffled[np.sort(kept)][: self.clips_per_video]


def overlapping(clips: Clips) -> np.ndarray:
    """(B, B) bool: clips of the same video whose spans touch: whose captions may stand for each other (MIL-NCE)."""
    same = clips.item[:, None] == clips.item[None, :]
    touch = (clips.start_s[:, None] <= clips.end_s[None, :]) & (clips.start_s[None, :] <= clips.end_s[:, None])
    return same & touch


def first_half_of_each_video(clips: Clips) -> np.ndarray:
    """(B,) bool: the first half (rounded up) of each video's clips, which alone the published queue keeps."""
    kept = np.zeros(len(clips), bool)
    for item in np.unique(clips.item):
        mine = np.flatnonzero(clips.item == item)
        kept[mine[: (len(mine) + 1) // 2]] = True
    return kept


def batches(
    source: TrainingClips,
    reader: ClipReader,
    *,
    epoch: int,
    first_step: int = 0,
    process: int = 0,
    num_processes: int = 1,
    with_positives: bool = False,
    with_first_half: bool = False,
) -> Iterator[Batch]:
    """Batches of one epoch from `first_step` on, this process's part of each, read ahead by one thread.

    The clips of a step are split over the processes in contiguous parts, so that rows gathered in process order are the
    rows of the one-process batch.
    """
    import torch

    def make(step: int) -> Batch:
        clips = source.draw(epoch, step)
        rows = np.array_split(np.arange(len(clips)), num_processes)[process]
        batch = reader.read(clips.take(rows))
        if with_positives:
            batch.positives = torch.from_numpy(overlapping(clips))
        if with_first_half:
            batch.first_half = torch.from_numpy(first_half_of_each_video(clips))
        return batch

    yield from read_ahead(make, range(first_step, source.steps_per_epoch))


def read_ahead(make: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
    """`make(step)` for every step in order, computed up to READ_AHEAD steps ahead in a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(make, step))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
