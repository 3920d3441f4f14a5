"""Draw and read random batches from stores of 1,000,000 and 1,000 videos, and measure the memory per video.

The manifests and the index of the stores are real: one row per video, in parts of 1,000 videos. The shards of all parts are
hard links to one file of 40 videos (390 s, full width), whose rows the 1,000 videos of a part share, so that the store fits on
a disk.

python benchmarks/bench_million.py [--parts 1000] [--rounds 15]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch
from bench_loader import CLIPS, MIN_CLIP_S, STREAMS, VIDEOS, write_videos
from results import record

from trichord.data.batches import TrainingClips
from trichord.data.reader import ClipReader
from trichord.modalities.base import ReadingSettings
from trichord.store import Store
from trichord.store.manifest import read_manifest, write_manifest

PER_PART, SHARED = 1000, 40


def write_store(folder: Path, num_parts: int) -> Path:
    """Write a store of `num_parts` x 1,000 videos whose shards are a single file."""
    seed, path = folder / "seed", folder / f"store{num_parts}"
    if not seed.exists():
        write_videos(seed, SHARED)
    first = read_manifest(next((seed / "parts").glob("*.parquet")))
    assert first.num_rows == SHARED, "the shared videos fill more than one part"
    (path / "parts").mkdir(parents=True)
    shared = [k % SHARED for k in range(PER_PART)]
    columns = {name: values[shared].tolist() for name, values in first.numbers.items()}
    columns |= {name: [texts[k].as_py() for k in shared] for name, texts in first.texts.items()}
    for part in range(num_parts):
        columns["video_id"] = [f"v{part:05d}x{k:03d}" for k in range(PER_PART)]  # same length as a YouTube id
        columns["source"] = [f"{part * PER_PART + k:032x}" for k in range(PER_PART)]
        info = replace(first.info, shard=f"{part:05d}.safetensors")
        if part:
            info = replace(info, first_word=first.info.num_new_words, num_new_words=0)
        os.link(first.shard_path, path / "parts" / info.shard)
        write_manifest(path / "parts" / f"{part:05d}.parquet", columns, info)
    return path


def resident() -> dict[str, int]:
    """Return the resident bytes of this process: all of them, and those that do not belong to mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return {"all": 1024 * kilobytes["VmRSS"], "own": 1024 * kilobytes["RssAnon"]}


def draws(path: Path, num_draws: int) -> dict[str, dict[str, int]]:
    """Open the store, draw batches without reading features, and return the resident bytes of this process."""
    torch.set_num_threads(1)
    source = source_of(Store(path))
    pa.default_memory_pool().release_unused()
    opened = resident()
    for step in range(num_draws):
        source.draw(step // source.steps_per_epoch, step % source.steps_per_epoch)
    return {"opened": opened, "drawn": resident()}


def source_of(store: Store) -> TrainingClips:
    options = {"videos_per_batch": VIDEOS, "clips_per_video": CLIPS, "distinct": False, "published_words": True}
    return TrainingClips(store, store.select(), seed=0, min_clip_s=MIN_CLIP_S, **options)  # type: ignore[arg-type]


def in_own_process(path: Path, num_draws: int) -> dict[str, dict[str, int]]:
    command = [sys.executable, __file__, "--draws", str(num_draws), "--store", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def batch_seconds(stores: dict[int, Store], rounds: int) -> dict[int, tuple[list[float], list[float], list[float]]]:
    """Measure batches of each store, in turn.

    An epoch's first draw, which shuffles, is made before the rounds; `shuffle_seconds` measures it.

    Returns:
        For each store and round, the seconds of drawing a batch, the seconds of drawing and reading it, and the processor
        seconds of both.
    """
    sources = {size: source_of(store) for size, store in stores.items()}
    readers = {
        s: ClipReader(store, ("video", "audio", "text"), ReadingSettings(STREAMS)) for s, store in stores.items()
    }
    found: dict[int, tuple[list[float], list[float], list[float]]] = {size: ([], [], []) for size in stores}
    for store in stores.values():
        for part in range(len(store) // PER_PART):
            store.part_tensor(part, "word_ids")  # maps the part, once per process
    for number in range(rounds + 3):
        for size in stores:
            source = sources[size]
            step = number % source.steps_per_epoch
            epoch = number // source.steps_per_epoch
            if step == 0:
                source.draw(epoch, 0)
            began, processor = time.perf_counter(), time.process_time()
            clips = source.draw(epoch, step)
            drawn = time.perf_counter()
            readers[size].read(clips)
            if number >= 3:
                spent = drawn - began, time.perf_counter() - began, time.process_time() - processor
                for column, seconds in zip(found[size], spent, strict=True):
                    column.append(seconds)
    return found


def shuffle_seconds(source: TrainingClips) -> float:
    """Return the difference between an epoch's first draw and another one, median of five epochs."""
    extra = []
    for epoch in range(5):
        marks = [time.perf_counter()]
        for step in (0, 1):
            source.draw(epoch, step)
            marks.append(time.perf_counter())
        extra.append((marks[1] - marks[0]) - (marks[2] - marks[1]))
    return statistics.median(extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--draws", type=int, default=0)
    parser.add_argument("--store", type=Path)
    arguments = parser.parse_args()
    if arguments.store:
        print(json.dumps(draws(arguments.store, arguments.draws)))
        return
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="trichord-million-"))
    try:
        began = time.perf_counter()
        paths = {parts * PER_PART: write_store(folder, parts) for parts in (1, arguments.parts)}
        written_s = time.perf_counter() - began
        small, large = paths
        memory = {size: in_own_process(path, 20) for size, path in paths.items()}
        began = time.perf_counter()
        stores = {size: Store(path) for size, path in paths.items()}
        opened_s = time.perf_counter() - began
        found = batch_seconds(stores, arguments.rounds)
        shuffled_s = shuffle_seconds(source_of(stores[large]))
    finally:
        shutil.rmtree(folder)
    rows = []
    for name, column, asked in (
        ("drawing a batch", 0, ""),
        ("drawing and reading a batch", 1, "1.3"),
        ("both, processor time", 2, ""),
    ):
        a, b = (statistics.median(found[size][column]) for size in (small, large))
        times = f"{1000 * a:.1f} / {1000 * b:.1f} ms; {b / a:.2f}"
        rows.append((f"{name}, {small:,} / {large:,} videos; ratio", times, asked and f"at most {asked}"))
    rows.append((f"once per epoch, shuffling {large:,} videos", f"{1000 * shuffled_s:.0f} ms", ""))
    rows.append((f"opening {large:,} videos in {arguments.parts:,} parts", f"{opened_s:.1f} s", ""))
    for moment, text in (("opened", "opened"), ("drawn", "opened, and 20 batches drawn")):
        for kind, of in (("own", "its own memory"), ("all", "all resident memory, including mapped files")):
            extra = (memory[large][moment][kind] - memory[small][moment][kind]) / (large - small)
            rows.append((f"bytes per video, {text}: {of}", f"{extra:.0f}", "under 300"))
    remarks = (
        f"{arguments.rounds} rounds, stores in turn, on a busy machine. Bytes per video are the difference between a "
        "process with the large store and one with the small store. Mapped pages of captions belong to the page cache, so the "
        f"kernel can reclaim them. Writing both stores took {written_s:.0f} s."
    )
    record("bench_million.py", f"Random batches from {large:,} videos", rows, remarks)


if __name__ == "__main__":
    main()
