"""A small store whose modalities carry the same content: every clip has three words, which determine its video and audio."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from trichord.captions import Captions
from trichord.store import Item, StoreWriter, WordVectors

NUM_WORDS, WORD_DIM, VIDEO_DIM, CLIPS, CLIP_S = 20, 12, 24, 8, 5
WORDS = [f"word{chr(97 + i)}" for i in range(NUM_WORDS)]


def word_vectors(seed: int = 0) -> WordVectors:
    rng = np.random.default_rng(seed)
    return WordVectors(WORDS, rng.standard_normal((NUM_WORDS, WORD_DIM)).astype(np.float32), f"tiny {seed}", False)


@cache
def _content(index: int, video: bool) -> tuple[np.ndarray | None, np.ndarray, Captions]:
    """Return the video rows, audio frames and captions of a video. The rows are drawn before the frames, if at all."""
    shared = np.random.default_rng(1)
    looks, sounds = np.abs(shared.standard_normal((NUM_WORDS, VIDEO_DIM))), shared.standard_normal((NUM_WORDS, 40))
    rng = np.random.default_rng([2, index])
    word_indices = rng.integers(0, NUM_WORDS, (CLIPS, 3))
    rows = None
    if video:
        rows = np.repeat(looks[word_indices].sum(1), CLIP_S, axis=0) + 0.1 * rng.random((CLIPS * CLIP_S, VIDEO_DIM))
        rows = rows.astype(np.float16)
    frames = np.repeat(5 * sounds[word_indices].mean(1) - 40, CLIP_S * 100, axis=0)
    frames += rng.standard_normal(frames.shape)
    start_s = np.arange(CLIPS, dtype=np.float64) * CLIP_S
    text = tuple(" ".join(WORDS[w] for w in words) for words in word_indices)
    return rows, frames.astype(np.float16), Captions(start_s, start_s + CLIP_S - 0.1, text)


def tiny_item(index: int, split: str, *, video: bool = True, audio: bool = True, captions: bool = True) -> Item:
    rows, frames, spoken = _content(index, video)
    streams = {} if rows is None else {"visual_2d": rows.copy()}
    if audio:
        streams["spectrogram"] = frames.copy()
    rates = {name: {"visual_2d": 1.0, "spectrogram": 100.0}[name] for name in streams}
    kept_captions = spoken if captions else Captions.empty()
    return Item(f"video{index:03d}", "tiny", split, float(CLIPS * CLIP_S), streams, rates, kept_captions)


def write_tiny_store(path: Path, *, num_train: int = 12, num_test: int = 4, **missing: bool) -> Path:
    with StoreWriter(path, word_vectors()) as writer:
        for index in range(num_train + num_test):
            writer.add(tiny_item(index, "train" if index < num_train else "test", **missing))
    return path
