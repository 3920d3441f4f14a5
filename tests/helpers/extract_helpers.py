"""Small videos that are extracted in this process with a small encoder, shared by tests of the extraction."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from process_helpers import FORKSERVER
from trichord.extraction import pool
from trichord.extraction.choice import load
from trichord.extraction.extract import ExtractSummary, extract
from trichord.media import write_video
from trichord.store import Store
from trichord.store.ledger import read_ledger

SMALL = "efficientnet-lite0-64"
VTT = "WEBVTT\n\n00:00.000 --> 00:01.500\nCrack the egg\n\n00:01.500 --> 00:09.000\nstir it zzqqxx\n"


load_once = functools.cache(load)


@contextmanager
def quick_processes() -> Iterator[None]:
    """Fork worker processes from a server that has imported the libraries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.multiprocessing, "get_context", lambda method: FORKSERVER)
        yield


def pictures(num_frames: int, seed: int = 0) -> np.ndarray:
    small = np.random.RandomState(seed).randint(0, 255, (num_frames, 8, 12, 3), np.uint8)
    return small.repeat(8, 1).repeat(8, 2)


def sound(seconds: float) -> np.ndarray:
    return (0.2 * np.random.RandomState(0).randn(int(seconds * 16000))).astype(np.float32)


def run(videos: Path, store: Path, **options: object) -> ExtractSummary:
    """Extract in this process, with the small encoder."""
    summary = extract(videos, store, **{"visual_2d": SMALL, "workers": 0, **options})  # type: ignore[arg-type]
    assert isinstance(summary, ExtractSummary)
    return summary


def ids_of(store: Path) -> list[str]:
    opened = Store(store)
    return [opened.video_id(i) for i in range(len(opened))]


def ledger(store: Path) -> dict[str, str]:
    return {entry["source"]: entry.get("class", "") for entry in read_ledger(store)}


def odd_folder(root: Path) -> Path:
    """Write valid videos and every kind of irregular one."""
    for i, name in enumerate(("egg/a", "egg/b", "tea/c")):
        write_video(root / f"{name}.mp4", pictures(30, i), 10, sound(3.0))
        (root / f"{name}.vtt").write_text(VTT)
    write_video(root / "mute.mkv", pictures(25), 10)
    (root / "mute.csv").write_text("start,end,text\n0,2,no sound\n2,1,wrong\n")
    write_video(root / "short.mp4", pictures(4), 10, sound(0.4))
    (root / "broken.mp4").write_bytes(b"this is no video")
    write_video(root / "badtext.mp4", pictures(4, 9), 10)
    (root / "badtext.vtt").write_text("WEBVTT\n\n00:01.000 --> soon\nhi\n")
    (root / ".hidden.mp4").write_bytes(b"")
    (root / "notes.txt").write_text("not a video")
    return root


def many(folder: Path, count: int) -> Path:
    for i in range(count):
        write_video(folder / f"v{i:02d}.mp4", pictures(20, i), 10, sound(2.0))
        (folder / f"v{i:02d}.vtt").write_text(VTT)
    return folder
