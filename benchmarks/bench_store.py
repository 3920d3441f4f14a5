"""Measure random clips of 10 rows per second from a store of 200 videos (390 s, 2048 x float16), in one process with a warm
cache.

python benchmarks/bench_store.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from trichord.captions import Captions
from trichord.store import Item, Store, StoreWriter, WordVectors

NUM_VIDEOS, NUM_ROWS, DIM, CLIP_ROWS, NUM_CLIPS = 200, 390, 2048, 10, 500_000


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rng = np.random.default_rng(0)
    words = WordVectors([], np.empty((0, 50), dtype=np.float32), "none")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        begin = time.perf_counter()
        with StoreWriter(path, words) as writer:
            for i in range(NUM_VIDEOS):
                rows = rng.standard_normal((NUM_ROWS, DIM), dtype=np.float32).astype(np.float16)
                streams, rates_hz = {"visual_2d": rows}, {"visual_2d": 1.0}
                writer.add(Item(f"v{i:05d}", "bench", "train", NUM_ROWS, streams, rates_hz, Captions.empty()))
        print(f"write        {NUM_VIDEOS / (time.perf_counter() - begin):,.0f} videos/s (including their generation)")
        begin = time.perf_counter()
        store = Store(path)
        print(f"open         {1000 * (time.perf_counter() - begin):.1f} ms")
        for i in range(len(store)):
            store.rows("visual_2d", i).sum(dtype=np.float32)
        videos = rng.integers(NUM_VIDEOS, size=NUM_CLIPS).tolist()
        starts = rng.integers(NUM_ROWS - CLIP_ROWS, size=NUM_CLIPS).tolist()
        begin = time.perf_counter()
        for i, start in zip(videos, starts, strict=True):
            store.rows("visual_2d", i, start, start + CLIP_ROWS)
        print(f"view         {NUM_CLIPS / (time.perf_counter() - begin):,.0f} clips/s")
        begin = time.perf_counter()
        for i, start in zip(videos, starts, strict=True):
            store.rows("visual_2d", i, start, start + CLIP_ROWS).copy()
        print(f"view + copy  {NUM_CLIPS / (time.perf_counter() - begin):,.0f} clips/s")


if __name__ == "__main__":
    main()
