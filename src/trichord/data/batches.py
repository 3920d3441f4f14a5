"""Which clips make which batch: a pure function of (seed, epoch, step), the same on every process, read ahead by one
thread that goes on from epoch to epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trichord.data.batch import Batch, Clips
from trichord.data.clips import clip_spans, words_published_orders
from trichord.data.reader import ClipReader
from trichord.errors import TrichordError
from trichord.threads import Ahead

if TYPE_CHECKING:
    from trichord.store import Store

READ_AHEAD = 2
WHOLE_S, WHOLE_SHARE = 0.1, 0.01  # a caption may lack so many seconds, and such a share, of what it spans as a whole
Place = TypeVar("Place")
Made = TypeVar("Made")


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
    last clip. A video whose captions share one span, or all span the whole of it, gives one row per caption, whose spans are
    equal; `clips_of_texts` says which of these are one clip.
    """
    rows: list[tuple[int, float, float, np.ndarray]] = []
    store.bring(items)
    for item in items.tolist():
        start_s, end_s = (np.asarray(a, np.float64) for a in store.caption_spans(item))
        if len(start_s) == 0:
            continue
        if (start_s == start_s[0]).all() and (end_s == end_s[0]).all():
            rows += [(item, start_s[c], end_s[c], np.array([c])) for c in range(len(start_s))]
            continue
        if _is_whole(start_s, end_s, store.duration_s(item)).all():
            rows += [(item, start_s.min(), end_s.max(), np.array([c])) for c in range(len(start_s))]
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


def clips_of_texts(store: Store, texts: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of `evaluation_clips` are texts of one clip: those of a video whose captions all span the whole of it.

    Captions with times of their own stay clips of their own.

    Returns:
        (M,) the clip of each row, and (N,) the first row of each clip.
    """
    key = np.arange(len(texts), dtype=np.int64)
    begins = np.flatnonzero(np.diff(texts.item, prepend=-1)) if len(texts) else key
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(texts)], strict=True):
        rows = slice(begin, end)
        if (
            end > begin + 1
            and _is_whole(texts.start_s[rows], texts.end_s[rows], store.duration_s(int(texts.item[begin]))).all()
        ):
            key[rows] = begin
    first, text_clip = np.unique(key, return_inverse=True)
    return text_clip, first


def _is_whole(start_s: np.ndarray, end_s: np.ndarray, duration_s: float) -> np.ndarray:
    """(N,) whether captions span the whole of a video, but for what rounding leaves, or have no times at all."""
    near_s = WHOLE_S + WHOLE_SHARE * duration_s
    return (start_s <= near_s) & ((end_s >= duration_s - near_s) | (end_s <= start_s))


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
        _, begin, end, _ = store.located("caption", items)
        self.items = items[end > begin].astype(np.int64)
        if len(self.items) == 0:
            raise TrichordError(
                f"{store.path}: no training video has captions; add captions, or choose another data.train_split"
            )
        self.store, self.seed, self.min_clip_s = store, seed, min_clip_s
        self.videos_per_batch = min(videos_per_batch, len(self.items))
        self.clips_per_video, self.distinct, self.published_words = clips_per_video, distinct, published_words
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    @property
    def most_clips(self) -> int:
        """The most clips that a batch can hold."""
        if self.videos_per_batch > 1 or not self.distinct:
            return self.videos_per_batch * self.clips_per_video
        _, begin, end, _ = self.store.located("caption", self.items)
        return min(self.clips_per_video, int((end - begin).max()))

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of an epoch; the rest of the shuffled videos waits for the next epoch's shuffle."""
        return len(self.items) // self.videos_per_batch

    def draw(self, epoch: int, step: int) -> Clips:
        """Clips of step `step` (0-based within the epoch), over all processes."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step {step} of {self.steps_per_epoch}")
        chosen = self._shuffled(epoch)[step * self.videos_per_batch : (step + 1) * self.videos_per_batch]
        rng = np.random.default_rng([self.seed, epoch, step])
        self.store.bring(chosen)
        in_turn = {video: self.store.caption_spans(video) for video in sorted(chosen.tolist())}  # part by part
        spans = [in_turn[video] for video in chosen.tolist()]
        caption_start_s, caption_end_s = (np.concatenate(column) for column in zip(*spans, strict=True))
        offsets = np.cumsum([0, *(len(start_s) for start_s, _ in spans)])
        start_s, end_s, first, last = _clips_of_videos(caption_start_s, caption_end_s, offsets, self.min_clip_s)
        videos = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
        drawn = [begin + self._drawn(rng, first[begin:end], last[begin:end]) for begin, end in videos]
        captions = np.concatenate(drawn)
        counts = [len(d) for d in drawn]
        shift = np.repeat(offsets[:-1], counts)
        if self.published_words:
            orders = words_published_orders(captions, caption_start_s, caption_end_s, self.min_clip_s, offsets)
            said = [order - begin for order, begin in zip(orders, shift.tolist(), strict=True)]
        else:
            held = zip((first[captions] - shift).tolist(), (last[captions] - shift + 1).tolist(), strict=True)
            every = np.arange(int(np.diff(offsets).max()))
            said = [every[begin:end] for begin, end in held]
        return Clips(np.repeat(chosen, counts), start_s[captions], end_s[captions], said, captions - shift)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The videos in the order of that epoch, kept while batches of it are drawn."""
        kept, order = self._order
        if kept != epoch:
            order = self.items[np.random.default_rng([self.seed, epoch]).permutation(len(self.items))]
            self._order = epoch, order
        return order

    def _drawn(self, rng: np.random.Generator, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Captions whose clips are drawn."""
        if not self.distinct:
            return rng.integers(0, len(first), self.clips_per_video)
        shuffled = rng.permutation(len(first))
        span = (first[shuffled] - first.min()) * len(first) + (last[shuffled] - first.min())
        _, kept = np.unique(span, return_index=True)
        return shuffled[np.sort(kept)][: self.clips_per_video]


def _clips_of_videos(
    start_s: np.ndarray, end_s: np.ndarray, offsets: np.ndarray, min_clip_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`item_clips` of several videos, each with captions, laid end to end: start_s, end_s, first and last (N,)."""
    one_span = np.ones(len(offsets) - 1, bool)
    for times in (start_s, end_s):
        one_span &= np.minimum.reduceat(times, offsets[:-1]) == np.maximum.reduceat(times, offsets[:-1])
    lengths = np.diff(offsets)
    # no clip grows beyond its video: a caption that must not grow is a video of its own
    alone = np.repeat(one_span, lengths)
    bounds = np.unique(np.concatenate([offsets, np.flatnonzero(alone), np.flatnonzero(alone) + 1]))
    return clip_spans(start_s, end_s, min_clip_s, bounds)


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
    epochs: range,
    first_step: int = 0,
    num_batches: int | None = None,
    process: int = 0,
    num_processes: int = 1,
    with_positives: bool = False,
    with_first_half: bool = False,
    pin: bool = False,
    timeout_s: float = 0.0,
) -> Generator[Batch]:
    """Batches of these epochs, one after the other, this process's part of each, read ahead by one thread.

    The thread does not stop between epochs: the first batches of the next are read during the last steps of this one.
    The clips of a step are split over the processes in contiguous parts, so that rows gathered in process order are the
    rows of the one-process batch. Close the iterator to end the thread early.

    Args:
        source: Draws the clips.
        reader: Reads them.
        epochs: Numbers of the epochs.
        first_step: Step within the first epoch to begin with.
        num_batches: Stop after as many, also within an epoch; None reads all.
        process: Number of this process.
        num_processes: Processes that share a batch.
        with_positives: Also find which texts count as true (`overlapping`).
        with_first_half: Also find the first half of each video's clips.
        pin: As of `ClipReader.read`: for batches that move to a GPU.
        timeout_s: Most seconds to wait for a batch; 0 waits for ever.

    Raises TrichordError when a batch does not come in time; it names the file that is being read. (A page that the disk does
    not give to a slice of fewer than some 500 numbers stops the whole process: numpy holds the interpreter's lock there.)
    """
    import torch

    store = source.store

    def make(place: tuple[int, int]) -> Batch:
        clips = source.draw(*place)
        mine = clips
        if num_processes > 1:
            mine = clips.take(np.array_split(np.arange(len(clips)), num_processes)[process])
        batch = reader.read(mine, pin=pin)
        batch.step_clips, batch.clips = len(clips), mine
        if with_positives:
            batch.positives = torch.from_numpy(overlapping(clips))
        if with_first_half:
            batch.first_half = torch.from_numpy(first_half_of_each_video(clips))
        store.reading.end()
        return batch

    def stalled() -> TrichordError:
        return TrichordError(
            f"no batch came for {timeout_s:g} s: the reader waits for {store.now_reading()}; see that the disk or the network "
            "answers, then the same command goes on; training.loader_timeout_s sets how long to wait (0: for ever)"
        )

    places = (
        (epoch, step)
        for epoch in epochs
        for step in range(first_step if epoch == epochs.start else 0, source.steps_per_epoch)
    )
    yield from read_ahead(make, islice(places, num_batches), timeout_s=timeout_s, stalled=stalled)


def read_ahead(
    make: Callable[[Place], Made],
    places: Iterable[Place],
    *,
    timeout_s: float = 0.0,
    stalled: Callable[[], TrichordError] | None = None,
) -> Generator[Made]:
    """`make(place)` for every place in order, computed up to READ_AHEAD places ahead in a thread.

    Args:
        make: Called in the thread.
        places: Iterated by the caller.
        timeout_s: Most seconds to wait for one; 0 waits for ever. A thread that came too late is left to itself.
        stalled: What to raise then.
    """
    pool, on_time = Ahead("reader"), True
    waiting: deque[Future[Made]] = deque()

    def taken() -> Made:
        nonlocal on_time
        future = waiting.popleft()
        on_time = bool(wait([future], timeout_s or None).done)
        if not on_time:
            raise stalled() if stalled else TrichordError(f"nothing came for {timeout_s:g} s; is the disk still there?")
        return future.result()

    try:
        for place in places:
            waiting.append(pool.submit(make, place))
            if len(waiting) > READ_AHEAD:
                yield taken()
        while waiting:
            yield taken()
    finally:
        for future in waiting:
            future.cancel()
        pool.close(wait=on_time)
