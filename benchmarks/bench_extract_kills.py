"""Twenty kills (SIGKILL at random moments) and restarts of an extraction, compared with one that was left alone.

After each kill the store must open if it holds anything; at the end it must verify, hold every video once with
bit-equal features, and no video that was finished before a kill may be extracted again.
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
from pathlib import Path

import numpy as np
from results import record

from trichord.media import write_video
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.store.spool import spooled


def make_videos(folder: Path, count: int, seconds: float = 6.0) -> None:
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
    """Everything of every item that does not depend on the order of committing."""
    opened = Store(store)
    found: dict[str, dict[str, object]] = {}
    for i in range(len(opened)):
        video_id = opened.video_id(i)
        assert video_id not in found, f"{video_id} is there twice"
        captions = [
            (opened.caption_text(i, c), [opened.words[w] for w in opened.word_ids(i, c)])
            for c in range(opened.num_captions(i))
        ]
        found[video_id] = {
            "duration_s": opened.duration_s(i),
            "split": opened.split(i),
            "captions": captions,
            **{name: opened.rows(name, i).tobytes() for name in opened.streams},
        }
    return found


def finished(store: Path) -> set[str]:
    """Keys of what is in the store or in its spool."""
    keys = {path.name for path in spooled(store)}
    if any((store / "parts").glob("*.parquet")):
        keys |= {f"{k.partition(':')[0][:40]}-{k.partition(':')[2][:24]}" for k in Store(store).sources()}
    return keys


def run(num_kills: int, num_videos: int, seed: int) -> list[tuple[str, str, str]]:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="trichord-kills-") as name:
        root = Path(name)
        make_videos(root / "videos", num_videos)
        began = time.monotonic()
        subprocess.run(command(root / "videos", root / "whole"), check=True, stdout=subprocess.DEVNULL)
        whole_s = time.monotonic() - began
        kills = lost = starts = 0
        useful: set[str] = set()
        while kills < num_kills:
            process = subprocess.Popen(
                command(root / "videos", root / "killed"), stdout=subprocess.DEVNULL, start_new_session=True
            )
            starts += 1
            try:
                process.wait(timeout=rng.uniform(0.3, min(whole_s, 12.0)))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            now = finished(root / "killed") if (root / "killed").exists() else set()
            lost += len(useful - now)
            useful |= now
            if len(useful) == num_videos and process.returncode == 0:  # done before all kills: begin another store
                assert content(root / "killed") == content(root / "whole")
                (root / "killed").rename(root / f"done{kills}")
                useful = set()
        last = subprocess.run(command(root / "videos", root / "killed"), check=True, capture_output=True, text=True)
        added = int(last.stdout.split(" videos (")[0].split()[-1]) if " videos (" in last.stdout else -1
        equal = content(root / "killed") == content(root / "whole")
        problems = verify(root / "killed")
    return [
        ("kills (SIGKILL, whole process group) and restarts", f"{kills}, {starts} starts", "20"),
        ("problems that verify finds at the end", str(len(problems)), "0"),
        ("finished videos lost by a kill", str(lost), "0"),
        ("videos there once, features bit-equal to the run left alone", f"{equal}", "True"),
        ("videos committed by the last run", f"{added} of {num_videos}", ""),
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
