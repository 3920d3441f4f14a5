"""Videos are shuffled and their clips are drawn again in each epoch; cached values are read for the right clip."""

from __future__ import annotations

import numpy as np
import pytest

from tiny import CLIPS, write_tiny_store
from trichord.data.batches import TrainingClips
from trichord.data.frozen import FrozenRows
from trichord.data.reader import Clips
from trichord.store import Store

NUM_VIDEOS, EPOCHS = 6, 30


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(write_tiny_store(tmp_path_factory.mktemp("pinned") / "store", num_train=NUM_VIDEOS, num_test=1))


def clips_of(store: Store, *, clips_per_video: int = 2, videos_per_batch: int = NUM_VIDEOS) -> TrainingClips:
    items = store.select(None, "train")
    return TrainingClips(
        store, items, seed=0, videos_per_batch=videos_per_batch, clips_per_video=clips_per_video, min_clip_s=1.0
    )


def test_every_epoch_has_an_order_of_its_own(store: Store) -> None:
    orders = {tuple(clips_of(store, clips_per_video=1).draw(epoch, 0).item.tolist()) for epoch in range(EPOCHS)}
    assert len(orders) > EPOCHS // 2 and {tuple(sorted(order)) for order in orders} == {tuple(range(NUM_VIDEOS))}


def drawn_captions(store: Store) -> np.ndarray:
    """Return (EPOCHS, NUM_VIDEOS, 2) captions that are drawn for the first, second, ... video of each batch."""
    drawn = [clips_of(store).draw(epoch, 0).caption for epoch in range(EPOCHS)]
    assert all(captions is not None for captions in drawn)
    return np.stack(drawn).reshape(EPOCHS, NUM_VIDEOS, 2)  # type: ignore[arg-type]


def test_clips_are_drawn_again_in_each_epoch(store: Store) -> None:
    captions = drawn_captions(store)
    for place in range(NUM_VIDEOS):
        assert len({tuple(pair) for pair in captions[:, place].tolist()}) > EPOCHS // 3


def test_all_clips_of_a_video_are_drawn_equally_often(store: Store) -> None:
    """360 draws from 8 clips: 45 each, with standard deviation 6."""
    captions = drawn_captions(store)
    assert (captions[..., 0] != captions[..., 1]).all()
    counts = np.bincount(captions.ravel(), minlength=CLIPS)
    assert len(counts) == CLIPS and counts.min() >= 25 and counts.max() <= 65


def test_the_published_order_of_words_begins_with_the_drawn_caption(store: Store) -> None:
    items = store.select(None, "train")
    source = TrainingClips(
        store, items, seed=0, videos_per_batch=NUM_VIDEOS, clips_per_video=CLIPS, min_clip_s=9.0, distinct=False,
        published_words=True,
    )  # fmt: skip
    clips = source.draw(0, 0)
    assert clips.caption is not None
    caption_indices = [captions.tolist() for captions in clips.captions]
    assert [captions[0] for captions in caption_indices] == clips.caption.tolist()
    assert any(captions != sorted(captions) for captions in caption_indices) and max(map(len, caption_indices)) > 1


def test_captions_of_one_clip_share_its_cached_embeddings() -> None:
    """Captions 0 and 1 of video 0 form one clip, and caption 2 another; video 1 is not trained on; video 2 has one clip."""
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    row, begin = np.array([0, 0, 1, 2]), np.array([0, -1, 3])
    frozen = FrozenRows("video", "embedding", values, np.array([True, False, True]), row, begin)
    spans, captions = np.zeros(4), [np.array([0])] * 4
    clips = Clips(np.array([0, 0, 0, 2]), spans, spans, captions, np.array([1, 2, 0, 0]))
    embeddings, valid = frozen.read(clips)
    assert embeddings.tolist() == [[0, 1], [2, 3], [0, 1], [4, 5]] and valid.tolist() == [True, False, True, True]
