"""The assignment of clips to batches, and the reading of batches ahead of their use.

The clips of a batch are a pure function of (seed, epoch, step) and are the same in every process. One thread reads batches ahead
and continues from epoch to epoch.
"""

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
# A caption spans its whole video if it lacks at most WHOLE_S seconds plus the share WHOLE_SHARE of the duration at either end.
WHOLE_S, WHOLE_SHARE = 0.1, 0.01
Place = TypeVar("Place")
Made = TypeVar("Made")


def item_clips(store: Store, item: int, min_clip_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the clip of each of the N captions of a video.

    A clip grows from a caption by the neighbouring captions until it lasts `min_clip_s`. If all captions have the same span, the
    video itself is the clip (YouCook2, MSR-VTT), each caption describes it on its own, and no clip grows.

    Args:
        store: Store of the captions.
        item: Index of the video.
        min_clip_s: Minimum duration of a clip in seconds.

    Returns:
        Start and end in seconds, and the first and last caption of each clip, each of shape (N,).
    """
    start_s, end_s = (np.asarray(a, np.float64) for a in store.caption_spans(item))
    if len(start_s) and (start_s == start_s[0]).all() and (end_s == end_s[0]).all():
        alone = np.arange(len(start_s))
        return start_s, end_s, alone, alone
    return clip_spans(start_s, end_s, min_clip_s)


def evaluation_clips(store: Store, items: np.ndarray, min_clip_s: float) -> Clips:
    """Return disjoint clips that together contain every caption once, in the order of time.

    Neighbouring captions are joined until the clip lasts `min_clip_s`. Captions that are left at the end of a video are added to
    its last clip. If the captions of a video all have the same span, or all span the whole video, the result has one row with
    this span per caption; `clips_of_texts` returns which of these rows are one clip.

    Args:
        store: Store of the captions.
        items: Indices of the videos.
        min_clip_s: Minimum duration of a clip in seconds.

    Returns:
        The clips.
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
    """Group the rows of `evaluation_clips` that are texts of one clip.

    These are the captions of a video that all span the whole video. Captions with times of their own remain separate clips.

    Args:
        store: Store of the videos.
        texts: Clips that `evaluation_clips` returned, M rows.

    Returns:
        The clip of each row, of shape (M,), and the first row of each of the N clips, of shape (N,).
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
    """Return a mask (N,) of the captions that span the whole video, up to rounding, or that have no times."""
    near_s = WHOLE_S + WHOLE_SHARE * duration_s
    return (start_s <= near_s) & ((end_s >= duration_s - near_s) | (end_s <= start_s))


class TrainingClips:
    """A sampler of the clips of each training batch.

    Args:
        store: Store of the captions and features.
        items: Indices of the videos to train on. Videos without captions are left out, because clips are derived from captions.
        seed: Random seed of the shuffles and draws.
        videos_per_batch: Number of videos in a batch. If there are fewer videos, a batch contains all of them.
        clips_per_video: Maximum number of clips of each video. A video with fewer different clips contributes fewer.
        min_clip_s: Minimum duration of a clip in seconds.
        distinct: Whether to draw different clips of a video. False draws captions with replacement, as in the published code, so
            that repeated clips become false negatives.
        published_words: Whether the words of neighbouring captions follow those of the caption itself, as in the published code,
            instead of being sorted by time.

    Raises:
        TrichordError: If none of the videos has captions.
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
                f"{store.path}: none of the training videos has captions; add captions, or choose another data.train_split"
            )
        self.store, self.seed, self.min_clip_s = store, seed, min_clip_s
        self.videos_per_batch = min(videos_per_batch, len(self.items))
        self.clips_per_video, self.distinct, self.published_words = clips_per_video, distinct, published_words
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    @property
    def most_clips(self) -> int:
        """Maximum number of clips in a batch."""
        if self.videos_per_batch > 1 or not self.distinct:
            return self.videos_per_batch * self.clips_per_video
        _, begin, end, _ = self.store.located("caption", self.items)
        return min(self.clips_per_video, int((end - begin).max()))

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in an epoch. The remaining shuffled videos are not used in this epoch."""
        return len(self.items) // self.videos_per_batch

    def draw(self, epoch: int, step: int) -> Clips:
        """Draw the clips of one step for all processes.

        Args:
            epoch: Index of the epoch.
            step: Index of the step within the epoch.

        Returns:
            The clips.

        Raises:
            ValueError: If the epoch does not have this step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step is {step}, but it must be in [0, {self.steps_per_epoch}), the steps of an epoch")
        chosen = self._shuffled(epoch)[step * self.videos_per_batch : (step + 1) * self.videos_per_batch]
        rng = np.random.default_rng([self.seed, epoch, step])
        self.store.bring(chosen)
        # Sorted videos are read part by part.
        spans_by_video = {video: self.store.caption_spans(video) for video in sorted(chosen.tolist())}
        spans = [spans_by_video[video] for video in chosen.tolist()]
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
            captions_of_clips = [order - begin for order, begin in zip(orders, shift.tolist(), strict=True)]
        else:
            bounds = zip((first[captions] - shift).tolist(), (last[captions] - shift + 1).tolist(), strict=True)
            indices = np.arange(int(np.diff(offsets).max()))
            captions_of_clips = [indices[begin:end] for begin, end in bounds]
        return Clips(np.repeat(chosen, counts), start_s[captions], end_s[captions], captions_of_clips, captions - shift)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Return the videos in the order of an epoch. The order of the latest epoch is cached."""
        cached_epoch, order = self._order
        if cached_epoch != epoch:
            order = self.items[np.random.default_rng([self.seed, epoch]).permutation(len(self.items))]
            self._order = epoch, order
        return order

    def _drawn(self, rng: np.random.Generator, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return the captions whose clips are drawn from one video."""
        if not self.distinct:
            return rng.integers(0, len(first), self.clips_per_video)
        shuffled = rng.permutation(len(first))
        span = (first[shuffled] - first.min()) * len(first) + (last[shuffled] - first.min())
        _, kept = np.unique(span, return_index=True)
        return shuffled[np.sort(kept)][: self.clips_per_video]


def _clips_of_videos(
    start_s: np.ndarray, end_s: np.ndarray, offsets: np.ndarray, min_clip_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the clips of the concatenated captions of several videos, as `item_clips` does for one video."""
    one_span = np.ones(len(offsets) - 1, bool)
    for times in (start_s, end_s):
        one_span &= np.minimum.reduceat(times, offsets[:-1]) == np.maximum.reduceat(times, offsets[:-1])
    lengths = np.diff(offsets)
    # A clip does not grow beyond its video, so a caption that must not grow is treated as a video of its own.
    alone = np.repeat(one_span, lengths)
    bounds = np.unique(np.concatenate([offsets, np.flatnonzero(alone), np.flatnonzero(alone) + 1]))
    return clip_spans(start_s, end_s, min_clip_s, bounds)


def overlapping(clips: Clips) -> np.ndarray:
    """Return which pairs of clips overlap in time and belong to the same video.

    The captions of overlapping clips count as candidate positives of each other (MIL-NCE).

    Args:
        clips: B clips.

    Returns:
        Matrix of shape (B, B), bool.
    """
    same = clips.item[:, None] == clips.item[None, :]
    touch = (clips.start_s[:, None] <= clips.end_s[None, :]) & (clips.start_s[None, :] <= clips.end_s[:, None])
    return same & touch


def first_half_of_each_video(clips: Clips) -> np.ndarray:
    """Return a mask of the first half (rounded up) of the clips of each video. The published queue stores only these.

    Args:
        clips: B clips.

    Returns:
        Mask of shape (B,), bool.
    """
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
    """Iterate over this process's part of the batches of some epochs, which one thread reads ahead.

    The thread does not stop between epochs: the first batches of an epoch are read during the last steps of the previous one. The
    clips of a step are split over the processes in contiguous parts, so that rows gathered in the order of processes are the rows
    of the one-process batch. Close the iterator to stop the thread early.

    Args:
        source: Sampler of the clips.
        reader: Reader of the clips.
        epochs: Indices of the epochs.
        first_step: Step of the first epoch at which to start.
        num_batches: Number of batches after which to stop, possibly within an epoch. None reads all batches.
        process: Index of this process.
        num_processes: Number of processes that share a batch.
        with_positives: Whether to compute the mask of positive texts (`overlapping`).
        with_first_half: Whether to compute the mask of the first half of the clips of each video.
        pin: Whether batches are copied to a GPU, as in `ClipReader.read`.
        timeout_s: Maximum time to wait for a batch in seconds. 0 waits without limit.

    Yields:
        Batches.

    Raises:
        TrichordError: If a batch does not arrive in time. The message names the file that is being read. The timeout cannot take
            effect while a disk does not deliver a page for a slice of fewer than about 500 numbers, because NumPy then holds the
            lock of the interpreter and blocks the whole process.
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
            f"no batch arrived within {timeout_s:g} s: the reader is waiting for {store.now_reading()}; check that the disk or the "
            "network responds, and run the same command again to continue; training.loader_timeout_s sets the time limit (0: none)"
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
    """Iterate over `make(place)` for every place in order, computed in a thread up to READ_AHEAD places ahead.

    Args:
        make: Function that the thread calls.
        places: Arguments of `make`. They are iterated in the thread of the caller.
        timeout_s: Maximum time to wait for a result in seconds. 0 waits without limit. A thread that exceeds it is abandoned.
        stalled: Function that returns the error to raise when the time limit is exceeded.

    Yields:
        The results.

    Raises:
        TrichordError: If a result does not arrive in time.
    """
    pool, on_time = Ahead("reader"), True
    waiting: deque[Future[Made]] = deque()

    def next_result() -> Made:
        nonlocal on_time
        future = waiting.popleft()
        on_time = bool(wait([future], timeout_s or None).done)
        if not on_time:
            raise (
                stalled()
                if stalled
                else TrichordError(f"no data arrived within {timeout_s:g} s; check that the disk is available")
            )
        return future.result()

    try:
        for place in places:
            waiting.append(pool.submit(make, place))
            if len(waiting) > READ_AHEAD:
                yield next_result()
        while waiting:
            yield next_result()
    finally:
        for future in waiting:
            future.cancel()
        pool.close(wait=on_time)
