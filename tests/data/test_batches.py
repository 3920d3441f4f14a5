"""Random training batches and the clips of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import CLIP_S, CLIPS, tiny_item, word_vectors, write_tiny_store
from trichord.captions import Captions
from trichord.data.batches import (
    TrainingClips,
    batches,
    evaluation_clips,
    first_half_of_each_video,
    item_clips,
    overlapping,
    read_ahead,
)
from trichord.data.reader import Batch, ClipReader, Clips, require_modalities
from trichord.errors import TrichordError
from trichord.modalities.base import ReadingSettings
from trichord.modalities.video import visual_streams_of
from trichord.store import Item, Store, StoreWriter


def source_of(store: Store, **changes: object) -> TrainingClips:
    options: dict[str, object] = {"seed": 3, "videos_per_batch": 5, "clips_per_video": 4, "min_clip_s": 6.0}
    return TrainingClips(store, store.select(split="train"), **{**options, **changes})  # type: ignore[arg-type]


def reader_of(store: Store, **changes: object) -> ClipReader:
    options: dict[str, object] = {"visual_streams": ("visual_2d",), "audio_frames": 600, "max_words": 4}
    return ClipReader(store, ("video", "audio", "text"), ReadingSettings(**{**options, **changes}))  # type: ignore[arg-type]


def same(a: Clips, b: Clips) -> bool:
    arrays = all(np.array_equal(x, y) for x, y in ((a.item, b.item), (a.start_s, b.start_s), (a.end_s, b.end_s)))
    return (
        arrays and len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a.captions, b.captions, strict=True))
    )


def test_batches_follow_from_seed_epoch_and_step_alone(tiny_store: Path) -> None:
    first, again = source_of(Store(tiny_store)), source_of(Store(tiny_store))
    assert same(first.draw(2, 1), again.draw(2, 1))
    assert not same(first.draw(2, 1), first.draw(2, 0))
    assert not same(first.draw(2, 1), first.draw(1, 1))
    assert not same(first.draw(2, 1), source_of(Store(tiny_store), seed=4).draw(2, 1))


def test_an_epoch_uses_every_video_at_most_once(tiny_store: Path) -> None:
    source = source_of(Store(tiny_store))
    assert source.steps_per_epoch == 2
    videos = [set(source.draw(0, step).item.tolist()) for step in range(2)]
    assert all(len(v) == 5 for v in videos) and not videos[0] & videos[1]
    assert source_of(Store(tiny_store), videos_per_batch=100).steps_per_epoch == 1


def test_distinct_clips_are_distinct_and_published_ones_may_repeat(tiny_store: Path) -> None:
    clips = source_of(Store(tiny_store), clips_per_video=50).draw(0, 0)
    spans = set(zip(clips.item.tolist(), clips.start_s.tolist(), clips.end_s.tolist(), strict=True))
    assert len(spans) == len(clips)
    published = source_of(Store(tiny_store), clips_per_video=50, distinct=False).draw(0, 0)
    assert len(published) == 5 * 50


def test_the_parts_of_several_processes_make_the_batch_of_one(tiny_store: Path) -> None:
    store = Store(tiny_store)
    whole = list(batches(source_of(store), reader_of(store), epochs=range(1)))
    parts = [
        list(batches(source_of(store), reader_of(store), epochs=range(1), process=p, num_processes=3)) for p in range(3)
    ]
    for step, batch in enumerate(whole):
        joined = torch.cat([part[step].inputs["video"] for part in parts])
        assert torch.equal(joined, batch.inputs["video"])


def test_a_later_first_step_continues_the_epoch(tiny_store: Path) -> None:
    store = Store(tiny_store)
    whole = list(batches(source_of(store), reader_of(store), epochs=range(1, 2)))
    rest = list(batches(source_of(store), reader_of(store), epochs=range(1, 2), first_step=1))
    assert len(rest) == len(whole) - 1 and torch.equal(rest[0].inputs["audio"], whole[1].inputs["audio"])


def test_a_clip_is_pooled_padded_and_masked(tiny_store: Path) -> None:
    store = Store(tiny_store)
    clips = Clips(np.array([0]), np.array([5.0]), np.array([9.9]), [np.array([1, 2])])
    batch = reader_of(store, audio_pad_db=-80.0).read(clips)
    rows = store.rows("visual_2d", 0, 5, 10).max(0).astype(np.float32)
    np.testing.assert_allclose(batch.inputs["video"][0].numpy(), rows / np.linalg.norm(rows), rtol=1e-6)
    assert int(batch.inputs["audio_frames"][0]) == 490  # both ends lose the same 12.5 ms
    np.testing.assert_array_equal(batch.inputs["audio"][0, :, :490].numpy(), store.rows("spectrogram", 0, 498, 988).T)
    assert (batch.inputs["audio"][0, :, 490:] == -80).all()
    words = [*store.word_ids(0, 1), *store.word_ids(0, 2)]
    assert batch.inputs["word_ids"][0].tolist() == words[:4]
    assert {m: bool(v[0]) for m, v in batch.valid.items()} == {"video": True, "audio": True, "text": True}


def test_missing_modalities_are_masked_not_invented(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.add(tiny_item(0, "train"))
        writer.add(tiny_item(1, "train", audio=False))
        writer.add(tiny_item(2, "train", video=False))
    store = Store(tmp_path / "s")
    clips = Clips(np.arange(3), np.zeros(3), np.full(3, 5.0), [np.array([0]), np.array([0]), np.array([], np.int64)])
    batch = reader_of(store).read(clips)
    assert batch.valid["video"].tolist() == [True, True, False]
    assert batch.valid["audio"].tolist() == [True, False, True]
    assert batch.valid["text"].tolist() == [True, True, False]
    assert (batch.inputs["video"][2] == 0).all() and (batch.inputs["word_ids"][2] == -1).all()


def test_a_clip_that_starts_at_zero_has_its_audio(tiny_store: Path) -> None:
    """The published rule gives frame -2 there, and thus a silent clip; ours starts at frame 0."""
    clips = Clips(np.array([0]), np.array([0.0]), np.array([4.0]), [np.array([0])])
    assert int(reader_of(Store(tiny_store)).read(clips).inputs["audio_frames"][0]) == 398


def test_evaluation_clips_hold_every_caption_once_without_overlap(tiny_store: Path) -> None:
    store = Store(tiny_store)
    clips = evaluation_clips(store, store.select(split="test"), min_clip_s=7.0)
    assert len(clips) == 4 * CLIPS // 2
    for item in set(clips.item.tolist()):
        clips_of_item = np.flatnonzero(clips.item == item)
        assert sorted(np.concatenate([clips.captions[i] for i in clips_of_item]).tolist()) == list(range(CLIPS))
        assert (clips.start_s[clips_of_item][1:] >= clips.end_s[clips_of_item][:-1]).all()
        assert (clips.end_s[clips_of_item] - clips.start_s[clips_of_item] >= 7.0).all()


def test_remaining_captions_join_the_last_clip(tiny_store: Path) -> None:
    store = Store(tiny_store)
    clips = evaluation_clips(store, store.select(split="test")[:1], min_clip_s=2.5 * CLIP_S)
    assert [len(c) for c in clips.captions] == [3, 5]


def test_captions_of_one_span_are_clips_of_their_own(tmp_path: Path) -> None:
    spoken = Captions(np.zeros(3), np.full(3, 4.0), ("worda", "wordb", "wordc"))
    with StoreWriter(tmp_path / "s", word_vectors()) as writer:
        writer.add(Item("v", "c", "test", 4.0, {"visual_2d": np.ones((1, 6), np.float32)}, {"visual_2d": 0.0}, spoken))
    store = Store(tmp_path / "s")
    assert [c.tolist() for c in evaluation_clips(store, np.array([0]), 10.0).captions] == [[0], [1], [2]]
    assert item_clips(store, 0, 10.0)[2].tolist() == [0, 1, 2]
    reader = ClipReader(store, ("video",))
    video = reader.read(evaluation_clips(store, np.array([0]), 10.0)).inputs["video"]
    np.testing.assert_allclose(video.norm(dim=1).numpy(), 1.0, rtol=1e-6)


def test_overlapping_clips_of_one_video_are_positives() -> None:
    clips = Clips(np.array([0, 0, 0, 1]), np.array([0.0, 4, 11, 0]), np.array([5.0, 10, 15, 5]), [np.array([0])] * 4)
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert overlapping(clips).astype(int).tolist() == expected


def test_the_first_half_of_each_videos_clips() -> None:
    clips = Clips(np.array([4, 4, 4, 2, 2, 7]), np.zeros(6), np.ones(6), [np.array([0])] * 6)
    assert first_half_of_each_video(clips).tolist() == [True, True, False, True, False, True]


def test_reading_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert list(read_ahead(lambda step: step, range(3, 9))) == list(range(3, 9))  # type: ignore[arg-type, return-value]

    def fail(step: int) -> Batch:
        raise ValueError(f"step {step}")

    with pytest.raises(ValueError, match="step 0"):
        list(read_ahead(fail, range(2)))


def test_errors_name_missing_data(tmp_path: Path) -> None:
    store = Store(write_tiny_store(tmp_path / "s", num_train=2, num_test=1, audio=False))
    with pytest.raises(TrichordError, match="order av>t needs audio, which the store lacks; it has video, text"):
        require_modalities(store, ("video", "audio"), "order av>t")
    with pytest.raises(TrichordError, match="visual_3d is yes, but the store has no 3-D features"):
        visual_streams_of(store, "yes")
    silent = Store(write_tiny_store(tmp_path / "silent", num_train=2, num_test=1, captions=False))
    with pytest.raises(TrichordError, match="none of the training videos has captions"):
        source_of(silent)
