"""Small items and stores for the tests of the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from trichord.captions import Captions
from trichord.store import Item, StoreWriter, WordVectors

VOCABULARY = ["add", "the", "salt", "Um", "crème", "it's", "stir", "now"]


def word_vectors(source: str = "test 3-d", lowercase: bool = False, words: Sequence[str] = VOCABULARY) -> WordVectors:
    """Three numbers per word that tell the word."""
    vectors = np.array([[len(word), ord(word[0]), sum(map(ord, word))] for word in words], dtype=np.float32)
    return WordVectors(list(words), vectors.reshape(-1, 3), source, lowercase)


def captions(*texts: str) -> Captions:
    start_s = np.arange(len(texts), dtype=np.float64) * 2.5
    return Captions(start_s, start_s + 2.0, texts)


def item(video_id: str, num_rows: int = 6, *, split: str = "train", texts: Sequence[str] = ("add the salt",)) -> Item:
    """An item whose every value tells video, row and column."""
    seed = sum(map(ord, video_id))
    grid = np.arange(num_rows)[:, None] * 4.0 + np.arange(4) / 8 + seed
    return Item(
        video_id=video_id,
        collection="howto",
        split=split,
        duration_s=float(num_rows),
        streams={"visual_2d": grid.astype(np.float32), "spectrogram": np.ones((3 * num_rows, 40), np.float16) * -seed},
        rates_hz={"visual_2d": 1.0, "spectrogram": 3.0},
        captions=captions(*texts),
    )


def build(path: Path, items: Iterable[Item], *, items_per_part: int = 2, words: WordVectors | None = None) -> Path:
    """A store of these items, in parts of `items_per_part`."""
    with StoreWriter(path, words or word_vectors()) as writer:
        for number, one in enumerate(items, 1):
            writer.add(one)
            if number % items_per_part == 0:
                writer.flush()
    return path
