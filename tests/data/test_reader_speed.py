"""The fast loader compared bit for bit with a plain one, clip by clip, on stores with missing data of all kinds."""

from __future__ import annotations

import gc
import itertools
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import NUM_WORDS, WORDS, word_vectors
from trichord.audio_frames import time_to_frame
from trichord.captions import Captions
from trichord.data.batches import TrainingClips, batches, item_clips, read_ahead
from trichord.data.clips import clip_spans, words_published_order, words_published_orders
from trichord.data.reader import Batch, ClipReader, Clips
from trichord.errors import TrichordError
from trichord.modalities.base import ReadingSettings
from trichord.modalities.gather import Memory, _signed_max
from trichord.store import Item, Store, StoreWriter
from trichord.store.items import PER_CAPTION

MIN_CLIP_S, MAX_WORDS = 4.0, 5
Arrays = dict[str, np.ndarray]


# ---- the oracles: how the loader was first written


def drawn_slowly(source: TrainingClips, epoch: int, step: int) -> Clips:
    order = np.random.default_rng([source.seed, epoch]).permutation(len(source.items))
    chosen = source.items[order[step * source.videos_per_batch : (step + 1) * source.videos_per_batch]]
    rng = np.random.default_rng([source.seed, epoch, step])
    rows: list[tuple[int, float, float, np.ndarray]] = []
    for video in chosen.tolist():
        start_s, end_s, first, last = item_clips(source.store, video, source.min_clip_s)
        if source.distinct:
            shuffled = rng.permutation(len(first))
            spans = np.stack([first[shuffled], last[shuffled]], axis=1)
            _, kept = np.unique(spans, axis=0, return_index=True)
            captions = shuffled[np.sort(kept)][: source.clips_per_video]
        else:
            captions = rng.integers(0, len(first), source.clips_per_video)
        for c in captions.tolist():
            captions_of_clip = np.arange(first[c], last[c] + 1)
            if source.published_words:
                captions_of_clip = words_published_order(c, *source.store.caption_spans(video), source.min_clip_s)
            rows.append((video, start_s[c], end_s[c], captions_of_clip))
    item, start, end, held = zip(*rows, strict=True)
    return Clips(np.array(item, np.int64), np.array(start), np.array(end), list(held))


def video_slowly(store: Store, streams: tuple[str, ...], clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    dims = [store.streams[name].dim for name in streams]
    out, valid = np.zeros((len(clips), sum(dims)), np.float32), np.ones(len(clips), bool)
    for row in range(len(clips)):
        for stream, dim, offset in zip(streams, dims, np.cumsum([0, *dims]), strict=False):
            features = rows_slowly(store, stream, clips, row)
            if len(features) == 0:
                valid[row] = False
                continue
            pooled = features.max(axis=0).astype(np.float32)
            out[row, offset : offset + dim] = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
    out[~valid] = 0.0
    return out, valid


def rows_slowly(store: Store, stream: str, clips: Clips, row: int) -> np.ndarray:
    item = int(clips.item[row])
    rate_hz = store.rate_hz(stream, item)
    if rate_hz == 0.0 or store.num_rows(stream, item) == 0:
        return store.rows(stream, item)
    if rate_hz == PER_CAPTION:
        return store.rows(stream, item)[clips.captions[row]]
    begin, end = int(clips.start_s[row] * rate_hz), int(clips.end_s[row] * rate_hz) + 1
    return store.rows(stream, item, max(0, begin), end)


def audio_slowly(store: Store, clips: Clips, longest: int, pad: float) -> tuple[np.ndarray, Any]:
    slices = []
    for row in range(len(clips)):
        item, start_s, end_s = int(clips.item[row]), clips.start_s[row], clips.end_s[row]
        if start_s <= 0 and end_s >= store.duration_s(item):
            slices.append(store.rows("spectrogram", item, 0, longest))
            continue
        begin, end = time_to_frame(start_s), time_to_frame(end_s)
        slices.append(store.rows("spectrogram", item, begin, min(max(end, begin), begin + longest)))
    frames = np.array([len(s) for s in slices], np.int64)
    out = np.full((len(clips), store.streams["spectrogram"].dim, longest), pad, np.float32)
    for row, frames_bt in enumerate(slices):
        out[row, :, : len(frames_bt)] = frames_bt.T
    return out, frames


def words_slowly(store: Store, clips: Clips) -> np.ndarray:
    out = np.full((len(clips), MAX_WORDS), -1, np.int64)
    for row in range(len(clips)):
        word_ids = [w for c in clips.captions[row] for w in store.word_ids(int(clips.item[row]), int(c)).tolist()]
        out[row, : len(word_ids[:MAX_WORDS])] = word_ids[:MAX_WORDS]
    return out


# ---- stores


@st.composite
def items(draw: st.DrawFn) -> list[tuple[Item, bool]]:
    """Videos that may lack any modality, with one caption, captions of one span, of no length, overlapping or equal;
    rates that are not whole numbers; features with signs, zeros of both signs and two precisions.

    Each item comes with whether it ends a part.
    """
    items_and_ends = []
    for index in range(draw(st.integers(1, 5))):
        rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        duration_s = draw(st.sampled_from([0.0, 3.0, 9.5, 20.0]))
        count = draw(st.sampled_from([1, 1, 2, 3, 9]))
        start_s = np.sort(rng.integers(0, 2 * int(duration_s) + 1, count)) / 2
        end_s = start_s + rng.integers(0, 5, count) * draw(st.sampled_from([0.0, 0.7, 1.3]))
        if draw(st.booleans()):
            start_s[:], end_s[:] = start_s[0], end_s[0]
        text = tuple(" ".join(WORDS[w] for w in rng.integers(0, NUM_WORDS, rng.integers(0, 5))) for _ in range(count))
        streams: Arrays = {}
        rates_hz: dict[str, float] = {}
        for name, dim, rates in (
            ("visual_2d", 6, (1.0, 0.0, PER_CAPTION)),
            ("visual_3d", 3, (1.5, 0.37)),
            ("spectrogram", 4, (100.0,)),
        ):
            rate_hz = draw(st.sampled_from(rates))
            num = {0.0: 1, PER_CAPTION: count}.get(rate_hz, int(duration_s * rate_hz))
            values = rng.integers(-3, 4, (num, dim)) * rng.choice([0.25, -0.25, 1e-7], (num, dim))
            if draw(st.booleans()):
                values = np.abs(values)
            if draw(st.integers(0, 3)):
                streams[name] = values.astype(draw(st.sampled_from([np.float16, np.float16, np.float32])))
                rates_hz[name] = rate_hz
        one = Item(f"v{index}", "c", "train", duration_s, streams, rates_hz, Captions(start_s, end_s, text))
        items_and_ends.append((one, draw(st.booleans())))
    whole = {"visual_2d": np.ones((8, 6), np.float16), "visual_3d": np.ones((12, 3), np.float16)}
    whole["spectrogram"] = -np.ones((800, 4), np.float16)
    rates = {"visual_2d": 1.0, "visual_3d": 1.5, "spectrogram": 100.0}
    items_and_ends.append(
        (Item("whole", "c", "train", 8.0, whole, rates, Captions(np.zeros(1), np.full(1, 8.0), ("worda",))), True)
    )
    return items_and_ends


def written(path: Path, items_and_ends: list[tuple[Item, bool]]) -> Store:
    with StoreWriter(path, word_vectors()) as writer:
        for one, ends_part in items_and_ends:
            writer.add(one)
            if ends_part:
                writer.flush()
    return Store(path)


def bits(tensor: torch.Tensor | None) -> bytes:
    """Return the bits, with -0.0 as 0.0, since NumPy may return either of them as the maximum."""
    assert tensor is not None
    return (tensor if tensor.dtype == torch.bool else tensor + 0).contiguous().numpy().tobytes()


def same_clips(a: Clips, b: Clips) -> bool:
    arrays = all(x.tobytes() == y.tobytes() for x, y in ((a.item, b.item), (a.start_s, b.start_s), (a.end_s, b.end_s)))
    return arrays and [c.tolist() for c in a.captions] == [c.tolist() for c in b.captions]


@settings(deadline=None, max_examples=40)
@given(items(), st.booleans(), st.booleans(), st.sampled_from([0.0, -80.1]))
def test_batches_are_bit_for_bit_those_of_the_plain_loader(
    items_and_ends: list[tuple[Item, bool]], distinct: bool, published: bool, pad: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = written(Path(folder) / "s", items_and_ends)
        source = TrainingClips(
            store,
            store.select(),
            seed=len(items_and_ends),
            videos_per_batch=2,
            clips_per_video=6,
            min_clip_s=MIN_CLIP_S,
            distinct=distinct,
            published_words=published,
        )
        streams = ("visual_2d", "visual_3d")
        for epoch, step in itertools.product((0, 1), range(source.steps_per_epoch)):
            clips = source.draw(epoch, step)
            assert same_clips(clips, drawn_slowly(source, epoch, step))
            video, valid = video_slowly(store, streams, clips)
            audio, frames = audio_slowly(store, clips, 300, pad)
            how = ReadingSettings(streams, audio_frames=300, audio_pad_db=pad, max_words=MAX_WORDS)
            batch = ClipReader(store, ("video", "audio", "text"), how).read(clips)
            assert bits(batch.inputs["video"]) == (video + 0).tobytes()
            assert batch.inputs["audio"].transpose(1, 2).is_contiguous()
            assert bits(batch.inputs["audio"]) == (audio + 0).tobytes()
            assert bits(batch.inputs["audio_frames"]) == frames.tobytes()
            assert bits(batch.inputs["word_ids"]) == words_slowly(store, clips).tobytes()
            assert batch.valid["video"].tolist() == valid.tolist()
            assert batch.valid["audio"].tolist() == (frames > 0).tolist()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=7), min_size=1, max_size=4)
)
def test_published_orders_of_many_are_those_of_each(videos: list[list[tuple[int, int]]]) -> None:
    times = [np.array(video, np.float64).T for video in videos]
    offsets = np.cumsum([0, *(t.shape[1] for t in times)])
    start_s = np.concatenate([t[0] for t in times])
    end_s = start_s + np.concatenate([t[1] for t in times])
    wanted = np.random.default_rng(0).integers(0, offsets[-1], 12)
    for caption, order in zip(wanted, words_published_orders(wanted, start_s, end_s, 8.0, offsets), strict=True):
        video = int(np.searchsorted(offsets, caption, "right")) - 1
        begin, stop = offsets[video], offsets[video + 1]
        slow = words_published_order(int(caption - begin), start_s[begin:stop], end_s[begin:stop], 8.0)
        assert (order - begin).tolist() == slow.tolist()
    assert words_published_orders(np.array([], np.int64), start_s, end_s, 8.0, offsets) == []
    assert clip_spans(start_s, end_s, 8.0, offsets)[0].shape == start_s.shape


# ---- signs, precision, errors


def test_the_maximum_on_bits_knows_signs_and_both_zeros(tmp_path: Path) -> None:
    every = np.arange(0x10000, dtype=np.uint16).view(np.float16)
    finite = np.random.default_rng(0).permutation(every[np.isfinite(every)])
    rows = finite[: len(finite) // 64 * 64].reshape(-1, 16)
    zeros = np.random.default_rng(1).choice(np.array([0.0, -0.0, -1.0], np.float16), (40, 16))
    item = Item("v", "c", "", 99.0, {"visual_2d": np.concatenate([rows, zeros])}, {"visual_2d": 1.0}, Captions.empty())
    store = written(tmp_path / "s", [(item, True)])
    start_s = np.arange(len(rows) + len(zeros) - 3, dtype=np.float64)
    clips = Clips(np.zeros(len(start_s), np.int64), start_s, start_s + 2, [np.array([], np.int64)] * len(start_s))
    batch = ClipReader(store, ("video",)).read(clips)
    assert bits(batch.inputs["video"]) == (video_slowly(store, ("visual_2d",), clips)[0] + 0).tobytes()


@pytest.mark.parametrize("nan", [0x7E00, 0xFE00])
def test_nan_features_are_preserved(nan: int) -> None:
    bits_of = np.full((5, 4), 0xBC00, np.uint16)  # -1.0
    bits_of[2, 1] = nan
    maxima = _signed_max(bits_of).view(np.float16)
    assert np.isnan(maxima).tolist() == [False, True, False, False]


def test_wide_features_have_the_same_length_to_the_last_bit(tmp_path: Path) -> None:
    rows = np.abs(np.random.default_rng(0).standard_normal((60, 2048))).astype(np.float16)
    item = Item("v", "c", "", 60.0, {"visual_2d": rows}, {"visual_2d": 1.0}, Captions.empty())
    store = written(tmp_path / "s", [(item, True)])
    start_s = np.linspace(0, 55, 200)
    clips = Clips(np.zeros(200, np.int64), start_s, start_s + 4.2, [np.array([], np.int64)] * 200)
    batch = ClipReader(store, ("video",)).read(clips)
    assert bits(batch.inputs["video"]) == (video_slowly(store, ("visual_2d",), clips)[0] + 0).tobytes()


def test_a_caption_that_is_not_there_is_an_error(tiny_store: Path) -> None:
    clips = Clips(np.array([0, 1]), np.zeros(2), np.ones(2), [np.array([0]), np.array([7, 8])])
    with pytest.raises(IndexError, match="a clip of item 1 refers to caption 8, but the item has 8 captions"):
        ClipReader(Store(tiny_store), ("text",)).read(clips)


def test_many_items_are_located_as_one_by_one(tiny_store: Path) -> None:
    store = Store(tiny_store)
    chosen = np.array([3, 0, 3, 15])
    part, begin, end, rate_hz = store.located("visual_2d", chosen)
    for k, item in enumerate(chosen.tolist()):
        rows = store.part_tensor(int(part[k]), "visual_2d")[begin[k] : end[k]]
        assert np.shares_memory(rows, store.rows("visual_2d", item)) and len(rows) == store.num_rows("visual_2d", item)
        assert rate_hz[k] == store.rate_hz("visual_2d", item) and store.durations_s(chosen)[k] == store.duration_s(item)
    with pytest.raises(TrichordError, match="has no stream 'smell'"):
        store.located("smell", chosen)


# ---- memory


def test_memory_is_reused_once_it_is_released() -> None:
    memory = Memory()
    first = memory.tensor("audio", (1 << 20,), np.float32)
    view, address = first[:5], first.data_ptr()
    del first
    gc.collect()
    second = memory.tensor("audio", (1 << 20,), np.float32)
    assert second.data_ptr() != address, "a view still held it"
    view[:] = 7.0
    second[:] = 1.0
    assert view.tolist() == [7.0] * 5
    del view
    gc.collect()
    assert memory.tensor("audio", (1000, 1000), np.float32).data_ptr() == address
    assert memory.tensor("audio", (1000, 3000), np.float32).data_ptr() != address, "too small"


def test_batches_that_are_kept_are_not_overwritten(tmp_path: Path) -> None:
    rows = -np.random.default_rng(0).random((4000, 40)).astype(np.float16)
    words = Captions(np.arange(8) * 5.0, np.arange(8) * 5.0 + 4.9, ("worda",) * 8)
    item = Item("v", "c", "", 40.0, {"spectrogram": rows}, {"spectrogram": 100.0}, words)
    store = written(tmp_path / "s", [(item, True)])
    source = TrainingClips(store, np.arange(1), seed=0, videos_per_batch=1, clips_per_video=8, min_clip_s=0.0)
    reader = ClipReader(store, ("audio",))
    kept = list(batches(source, reader, epochs=range(6)))
    for epoch, batch in enumerate(kept):
        expected, _ = audio_slowly(store, drawn_slowly(source, epoch, 0), 1000, -80.0)
        assert bits(batch.inputs["audio"]) == expected.tobytes()


class Pinned:
    """A substitute for `torch.empty` on a machine without a GPU, which records requests for page-locked memory."""

    def __init__(self) -> None:
        self.empty, self.asked = torch.empty, []

    def __call__(self, *size: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        if pin_memory:
            self.asked.append((tuple(size[0]), options["dtype"]))
        return self.empty(*size, **options)


@pytest.mark.parametrize(("pad", "dtype"), [(-80.0, torch.float16), (-80.1, torch.float32)])
def test_pinned_batches_give_the_network_the_same_bits(
    pad: float, dtype: torch.dtype, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tiny_store)
    source = TrainingClips(store, store.select(), seed=0, videos_per_batch=3, clips_per_video=4, min_clip_s=6.0)
    reader = ClipReader(store, ("video", "audio", "text"), ReadingSettings(audio_frames=700, audio_pad_db=pad))
    stand_in = Pinned()
    monkeypatch.setattr(torch, "empty", stand_in)
    pinned = next(batches(source, reader, epochs=range(1), pin=True))
    assert pinned.inputs["audio"].dtype == dtype and pinned.inputs["audio"].shape == (12, 40, 700)
    assert stand_in.asked[:2] == [((12, 24), torch.float32), ((12, 700, 40), dtype)]
    table = torch.from_numpy(store.word_vectors)
    inputs = pinned.model_inputs(table)
    expected = reader.read(source.draw(0, 0)).model_inputs(table)
    assert inputs.keys() == expected.keys()
    for name, tensor in expected.items():
        assert inputs[name].dtype == tensor.dtype and inputs[name].stride() == tensor.stride()
        assert bits(inputs[name]) == bits(tensor)


# ---- reading ahead


def test_one_thread_reads_on_across_epochs(tiny_store: Path) -> None:
    store = Store(tiny_store)
    source = TrainingClips(
        store, store.select(split="train"), seed=1, videos_per_batch=4, clips_per_video=2, min_clip_s=6
    )
    reader = ClipReader(store, ("video",))
    threads, places = set(), []
    draw = source.draw

    def noted(epoch: int, step: int) -> Clips:
        threads.add(threading.get_ident())
        places.append((epoch, step))
        return draw(epoch, step)

    source.draw = noted  # type: ignore[method-assign]
    stream = batches(source, reader, epochs=range(2, 5), first_step=1, num_batches=6)
    received = [next(stream)]
    received += list(stream)
    expected = [(2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (4, 0)]
    assert places == expected and len(threads) == 1 and threading.get_ident() not in threads
    for (epoch, step), batch in zip(expected, received, strict=True):
        assert bits(batch.inputs["video"]) == bits(reader.read(draw(epoch, step)).inputs["video"])


def test_closing_ends_the_thread_and_pending_reads() -> None:
    places: list[int] = []

    def make(place: int) -> Batch:
        places.append(place)
        return Batch()

    stream = read_ahead(make, itertools.count())
    next(stream)
    stream.close()
    assert len(places) <= 4 and not [t for t in threading.enumerate() if t.name.startswith("reader")]


def test_the_order_of_an_epoch_is_shuffled_once(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tiny_store)
    source = TrainingClips(store, store.select(), seed=1, videos_per_batch=4, clips_per_video=2, min_clip_s=6.0)
    seeds: list[list[int]] = []
    default_rng = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: (seeds.append(seed), default_rng(seed))[1])
    drawn = [source.draw(epoch, step) for epoch, step in ((0, 0), (0, 1), (1, 0), (0, 1))]
    assert same_clips(drawn[1], drawn[3]) and not same_clips(drawn[0], drawn[1])
    assert [s for s in seeds if len(s) == 2] == [[1, 0], [1, 1], [1, 0]]
