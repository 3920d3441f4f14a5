"""Measure the clips per second from a store in S3: with an empty cache, with all parts cached, and with a cache that is too
small.

The result is compared with a local store. Videos are those of `bench_loader.py` (390 s, 6.3 MB each), and batches have 32
videos x 32 clips of 10 s, read by one thread. The S3 server (moto) is a separate process on the same machine, so that it shares
the cores with the client and nothing is sent over a network.

python benchmarks/bench_remote.py [--videos 128] [--batches 12]
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from bench_loader import MIN_CLIP_S, STREAMS, write_videos
from results import record

from trichord.data.batches import TrainingClips
from trichord.data.reader import ClipReader
from trichord.modalities.base import ReadingSettings
from trichord.store import Store

VIDEOS, CLIPS, URL = 32, 32, "s3://bench/store"


@contextmanager
def s3_server(root: Path) -> Iterator[None]:
    """Run moto's server in a process of its own, with the environment variables that select it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def batch_seconds(store: Store, num_batches: int, seed: int = 0) -> list[float]:
    """Return the seconds of each batch."""
    source = TrainingClips(
        store, store.select(), seed=seed, videos_per_batch=VIDEOS, clips_per_video=CLIPS, min_clip_s=MIN_CLIP_S
    )
    reader = ClipReader(store, ("video", "audio", "text"), ReadingSettings(STREAMS))
    seconds = []
    for number in range(num_batches):
        began = time.perf_counter()
        reader.read(source.draw(*divmod(number, source.steps_per_epoch)))
        seconds.append(time.perf_counter() - began)
    return seconds


def opened(path: str | Path, cache_gb: float | None = None) -> tuple[Store, float]:
    """Open a store and its words; return the store and the seconds that it took."""
    began = time.perf_counter()
    store = Store(path, cache_gb=cache_gb)
    assert len(store.words) and store.word_vectors.ndim == 2
    return store, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=128)
    parser.add_argument("--batches", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as name, s3_server(Path(name)):
        import fsspec

        root = Path(name)
        os.environ["TRICHORD_CACHE"] = str(root / "cache")
        local = write_videos(root / "store", arguments.videos)
        num_bytes = local.shard_bytes
        fs = fsspec.filesystem("s3")
        fs.mkdir("bench")
        fs.put(str(root / "store"), URL.removeprefix("s3://"), recursive=True)
        per_batch = VIDEOS * CLIPS
        cold, open_s = opened(URL)
        first = batch_seconds(cold, arguments.batches)
        fetched = f"{num_bytes / 1e6:,.0f} MB in {len(cold._infos)} parts"
        rows.append((f"cold: opening, with words but without parts ({fetched})", f"{open_s:.2f} s", ""))
        rows.append(("cold: first batch, which waits for parts", f"{first[0]:.1f} s", ""))
        rate = f"{per_batch * len(first) / sum(first):,.0f}"
        rows.append((f"cold: clips/s over the first {len(first)} batches", rate, ""))
        warm, open_s = opened(URL)
        rows.append(("warm: opening, all parts cached", f"{open_s:.2f} s", ""))
        stores = {"local": opened(root / "store")[0], "warm": warm}
        found: dict[str, list[float]] = {"local": [], "warm": []}
        for turn in range(3):
            for label, store in stores.items():
                found[label] += batch_seconds(store, arguments.batches, seed=turn)
        for label, seconds in found.items():
            rows.append((f"{label}: clips/s (median batch)", f"{per_batch / median(seconds):,.0f}", ""))
        rows.append(("warm / local", f"{median(found['local']) / median(found['warm']):.2f}", ""))
        small, _ = opened(URL, cache_gb=0.7 * num_bytes / 1e9)
        seconds = batch_seconds(small, 2)
        rate = f"{per_batch * len(seconds) / sum(seconds):,.0f}"
        rows.append(("cache of 70 % of the store: clips/s over 2 batches, which both fetch parts again", rate, ""))
    remarks = (
        "Parts are fetched completely, since only a complete part can be compared with its checksum. The first "
        "batch therefore fetches nearly all of a store of few parts, and a cache that is smaller than the training "
        "set should be avoided. The server is a Python process on the same cores; a real server is limited by the "
        "network."
    )
    record("bench_remote.py", "A store in S3: empty cache, full cache, and a cache that is too small", rows, remarks)


if __name__ == "__main__":
    main()
