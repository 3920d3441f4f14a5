"""Kill an extraction twenty times at random moments (SIGKILL), restart it, and compare the result with an undisturbed run.

After each kill, the store must open if it holds anything. At the end, it must pass verification and hold every video once with
bit-equal features, and no video that a killed run reported as finished may be extracted again. Every second kill ends only the
driver, so that its worker processes are orphaned.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from results import record

from trichord.media import write_video
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.store.spool import spool_name, spooled


def make_videos(folder: Path, count: int, seconds: float = 6.0) -> None:
    """Write videos of noise with two captions each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 255, (int(seconds * 10), 16, 28, 3), np.uint8)
        pictures = small.repeat(16, 1).repeat(16, 2)
        sound = (0.2 * rng.standard_normal(int(seconds * 16000))).astype(np.float32)
        write_video(folder / f"v{number:03d}.mp4", pictures, 10, sound)
        (folder / f"v{number:03d}.vtt").write_text(
            f"WEBVTT\n\n00:00.000 --> 00:03.000\nstir pot {number}\n\n00:03.000 --> 00:06.000\nadd salt\n"
        )


def command(videos: Path, store: Path) -> list[str]:
    return [sys.executable, "-m", "trichord", "extract", str(videos), "--store", str(store), "--workers", "2"]


def content(store: Path) -> dict[str, dict[str, object]]:
    """Return the content of every item that does not depend on the order of commits."""
    opened = Store(store)
    items: dict[str, dict[str, object]] = {}
    for i in range(len(opened)):
        video_id = opened.video_id(i)
        assert video_id not in items, f"{video_id} is stored twice"
        captions = [
            (opened.caption_text(i, c), [opened.words[w] for w in opened.word_ids(i, c)])
            for c in range(opened.num_captions(i))
        ]
        items[video_id] = {
            "duration_s": opened.duration_s(i),
            "split": opened.split(i),
            "captions": captions,
            **{name: opened.rows(name, i).tobytes() for name in opened.streams},
        }
    return items


def finished(store: Path) -> set[str]:
    """Return the keys of the items in the store or in its spool."""
    keys = {path.name for path in spooled(store)}
    if any((store / "parts").glob("*.parquet")):
        keys |= {spool_name(key, "videos") for key in Store(store).sources("videos")}
    return keys


def run(num_kills: int, num_videos: int, seed: int) -> list[tuple[str, str, str]]:
    """Kill and restart extractions; return the rows of the results."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="trichord-kills-") as name:
        root = Path(name)
        make_videos(root / "videos", num_videos)
        began = time.monotonic()
        subprocess.run(command(root / "videos", root / "whole"), check=True, stdout=subprocess.DEVNULL)
        whole_s = time.monotonic() - began
        kills = lost = starts = rounds = twice = 0
        useful: set[str] = set()
        reports: Counter[str] = Counter()
        folder = root / "killed"

        def finish_round(process: subprocess.Popen[str]) -> None:
            nonlocal useful, reports, rounds, twice
            assert content(folder) == content(root / "whole") and not verify(folder)
            twice += sum(count - 1 for count in reports.values())
            folder.rename(root / f"done{rounds}")
            useful, reports, rounds = set(), Counter(), rounds + 1

        while kills < num_kills:
            log = (root / "log").open("w+")
            process = subprocess.Popen(command(root / "videos", folder), stdout=log, text=True, start_new_session=True)
            starts += 1
            try:
                process.wait(timeout=rng.uniform(0.3, min(whole_s, 12.0)))
            except subprocess.TimeoutExpired:
                if kills % 2:
                    os.kill(process.pid, signal.SIGKILL)
                    time.sleep(0.5)  # time for the orphans to notice
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            log.seek(0)
            reports.update(line.split(" ")[1].rstrip(":") for line in log if " captions, " in line and "/" in line[:9])
            log.close()
            now = finished(folder) if folder.exists() else set()
            lost += len(useful - now)
            useful |= now
            if process.returncode == 0:  # finished before the last kill: start another store
                finish_round(process)
        last = subprocess.run(command(root / "videos", folder), check=True, capture_output=True, text=True)
        reports.update(
            line.split(" ")[1].rstrip(":")
            for line in last.stdout.splitlines()
            if " captions, " in line and "/" in line[:9]
        )
        twice += sum(count - 1 for count in reports.values())
        equal = content(folder) == content(root / "whole")
        problems = verify(folder)
    return [
        ("kills (SIGKILL, whole process group) and restarts", f"{kills}, {starts} starts", "20"),
        ("problems items by `store verify` at the end", str(len(problems)), "0"),
        ("finished videos lost by a kill", str(lost), "0"),
        ("every video stored once, features bit-equal to the undisturbed run", f"{equal}", "True"),
        ("videos extracted again after they were reported as finished", str(twice), "0"),
        (f"stores of {num_videos} videos that were completed in between", str(rounds + 1), ""),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    record(
        "bench_extract_kills.py",
        "Extraction killed at random moments",
        run(arguments.kills, arguments.videos, arguments.seed),
    )
