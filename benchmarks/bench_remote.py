"""Clips per second out of a store in S3: first with nothing on this machine, then with all parts kept, against a local store;
and with a cache that is too small.

Videos as in `bench_loader.py` (390 s, 6.3 MB each), batches of 32 videos x 32 clips of 10 s, one reading thread. The S3 server
(moto's) is a process of its own on the same machine, so its work and the client's share the cores and nothing crosses a wire.

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
    """Moto's server in a process of its own, and the environment that leads to it."""
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
    """Seconds of each batch."""
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
    """The store with its words, and the seconds that it took."""
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
        rows.append((f"cold: open, words without the parts ({fetched})", f"{open_s:.2f} s", ""))
        rows.append(("cold: first batch, which waits for the parts", f"{first[0]:.1f} s", ""))
        rate = f"{per_batch * len(first) / sum(first):,.0f}"
        rows.append((f"cold: clips/s over the first {len(first)} batches", rate, ""))
        warm, open_s = opened(URL)
        rows.append(("warm: open, all parts kept", f"{open_s:.2f} s", ""))
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
        rows.append(("a cache of 70 % of the store: clips/s over 2 batches, parts fetched again in each", rate, ""))
    remarks = (
        "Parts are fetched whole, as only a whole part can be compared with its checksum: the first batch brings nearly all of "
        "a store of few parts, and a cache smaller than what training draws from is the case to avoid. The server is a Python "
        "process on the same cores; a real one is limited by the network."
    )
    record("bench_remote.py", "A store in S3: cold, kept, and with too small a cache", rows, remarks)


if __name__ == "__main__":
    main()
