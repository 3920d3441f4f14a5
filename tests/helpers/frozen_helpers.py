"""Frozen passes over the tiny store, in separate processes, with small blocks and an encoder whose values identify the clip."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from trichord.data import frozen, frozen_parts
from trichord.data.batches import TrainingClips
from trichord.data.frozen_parts import Encoder, FrozenPass
from trichord.data.listing import list_clips
from trichord.store import Store

BLOCK, PARTS = 4, 6  # 96 clips: six parts of four blocks


def small_parts(block: int = BLOCK, parts: int = PARTS) -> None:
    frozen_parts.BLOCK, frozen_parts.MOST_PARTS = block, parts
    frozen.POLL_S, frozen.SAY_EVERY_S = 0.02, 0.1


def work_on(store_path: Path, key: str = "video-k") -> FrozenPass:
    store = Store(store_path)
    items = store.select(None, "train")
    source = TrainingClips(store, items, seed=0, videos_per_batch=4, clips_per_video=4, min_clip_s=1.0)
    return FrozenPass(store_path / "frozen" / key, source, list_clips(source), "video", "embedding", 3, {"of": "test"})


def embeddings_of(clips: Any) -> np.ndarray:
    return np.stack([clips.item, clips.start_s, clips.end_s], axis=1).astype(np.float32)


def encoder(log: Path | None = None, *, sleep_s: float = 0.0, die_at: int = -1, word: str = "") -> Encoder:
    """Return an encoder that writes one line per block to `log`, and kills its process at block number `die_at`."""
    count = 0

    def encode(clips: Any) -> tuple[np.ndarray, np.ndarray]:
        nonlocal count
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        if log is not None:
            with log.open("a") as lines:
                lines.write(f"{word} {int(clips.item[0])} {clips.start_s[0]:g}\n")
        time.sleep(sleep_s)
        return embeddings_of(clips), np.ones(len(clips), bool)

    return Encoder(lambda clips: clips, encode)


def help_out(
    store_path: Path, log: Path, word: str, sleep_s: float, die_at: int, process: int = 0, start: Any = None
) -> None:
    """Run in a process: compute the pass together with other processes, starting at the barrier `start`."""
    small_parts()
    work = work_on(store_path)
    if start is not None:
        start.wait(60)
    encode = encoder(log, sleep_s=sleep_s, die_at=die_at, word=word)
    frozen.frozen_rows(work, encode, process=process, num_processes=2)
