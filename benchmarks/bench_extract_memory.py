"""Compare the peak memory of extracting a 1080p file of 2 hours and one of 2 minutes, which repeat the same packets."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from results import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))


def peak_mb(command: list[str]) -> tuple[float, float, float]:
    """Run a command and sample the memory of its processes.

    Returns:
        The largest sum of proportional set sizes (PSS: unique memory, and shared memory counted once) in MB, the largest sum of
        resident set sizes (RSS) in MB, and the seconds that the command took.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root, peaks, stop = psutil.Process(process.pid), [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            pss = rss = 0
            try:
                for one in [root, *root.children(recursive=True)]:
                    info = one.memory_full_info()
                    pss, rss = pss + info.pss, rss + info.rss
            except psutil.Error:
                continue
            peaks[0], peaks[1] = max(peaks[0], pss / 1e6), max(peaks[1], rss / 1e6)

    watcher = threading.Thread(target=watch)
    began = time.monotonic()
    watcher.start()
    code = process.wait()
    stop.set()
    watcher.join()
    assert code == 0, f"{command} ended with {code}"
    return peaks[0], peaks[1], time.monotonic() - began


def main() -> None:
    from odd_media import repeat_packets
    from trichord.media import write_video

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (100, 27, 48, 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix="trichord-memory-") as name:
        root = Path(name)
        sound = (0.2 * rng.standard_normal(160000)).astype(np.float32)
        write_video(root / "ten_seconds.mp4", (p.repeat(40, 0).repeat(40, 1) for p in small), 10, sound)
        figures = {}
        for label, minutes in (("short", 2.0), ("long", arguments.minutes)):
            (root / label).mkdir()
            repeat_packets(root / "ten_seconds.mp4", root / label / "v.mp4", round(minutes * 6))
            store = root / f"store_{label}"
            figures[label] = peak_mb(
                [sys.executable, "-m", "trichord", "extract", str(root / label), "--store", str(store)]
            )
    (short_pss, short_rss, short_s), (long_pss, long_rss, long_s) = figures["short"], figures["long"]
    record(
        "bench_extract_memory.py",
        f"Extraction memory: a 1080p file of {arguments.minutes:.0f} minutes compared with 2 minutes",
        [
            ("peak of all processes (PSS), 2 minutes / long, MB", f"{short_pss:.0f} / {long_pss:.0f}", ""),
            ("ratio (PSS)", f"{long_pss / short_pss:.3f}", "at most 1.2"),
            ("peak of all processes (RSS), MB", f"{short_rss:.0f} / {long_rss:.0f}", ""),
            ("ratio (RSS)", f"{long_rss / short_rss:.3f}", "at most 1.2"),
            ("seconds", f"{short_s:.0f} / {long_s:.0f}", ""),
        ],
    )


if __name__ == "__main__":
    main()
