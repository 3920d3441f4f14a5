"""A batch that does not arrive: the wait ends, and the error names the file and the video."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forked
from tiny import write_tiny_store
from trichord.cli import main
from trichord.data.batches import TrainingClips, batches, read_ahead
from trichord.data.reader import ClipReader
from trichord.errors import TrichordError
from trichord.modalities.base import ReadingSettings
from trichord.store import Store, store

STALLED = """
import os, sys, threading
from trichord.cli import main
from trichord.store import store

spans, map_shard = store.Store.caption_spans, store.map_shard

def reopened(self, item):
    if threading.current_thread().name == "reader":
        self._shards = [None] * len(self._shards)
    return spans(self, item)

def stalled(path):
    if threading.current_thread().name == "reader":
        os.read(os.pipe()[0], 1)  # waits in the kernel: nobody writes to it
    return map_shard(path)

store.Store.caption_spans, store.map_shard = reopened, stalled
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """An event that a stalled reader waits for; it is set at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def drawn(path: Path, modalities: tuple[str, ...] = ("video", "text"), **options: Any) -> Any:
    opened = Store(path)
    items = opened.select(split="train")
    source = TrainingClips(opened, items, seed=0, videos_per_batch=4, clips_per_video=2, min_clip_s=4.0)
    reader = ClipReader(opened, modalities, ReadingSettings(audio_frames=100))
    return batches(source, reader, epochs=range(2), **options)


@pytest.mark.parametrize(("modality", "stream"), [("video", "visual_2d"), ("audio", "spectrogram")])
def test_a_stalled_slice_names_file_stream_and_video(
    modality: str, stream: str, tiny_store: Path, let_go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the slice blocks, like a page of a disk that does not respond."""
    opened = Store(tiny_store)
    video = 5
    shard, _ = opened.shard_path(video), opened.rows(stream, video)
    begin = int(opened.located(stream, np.array([video]))[1][0])
    part_tensor = store.Store.part_tensor

    class Slow(np.ndarray):
        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, slice) and begin <= key.start < begin + opened.num_rows(stream, video):
                let_go.wait(20)
            return super().__getitem__(key)

    def slow(self: Store, part: int, name: str) -> np.ndarray:
        tensor = part_tensor(self, part, name)
        return tensor.view(Slow) if name == stream else tensor

    monkeypatch.setattr(store.Store, "part_tensor", slow)
    started = time.monotonic()
    with pytest.raises(TrichordError) as caught:
        list(drawn(tiny_store, (modality, "text"), timeout_s=0.2))
    message = str(caught.value)
    assert (
        f"no batch arrived within 0.2 s: the reader is waiting for {shard} (stream {stream}, video 'video005')"
        in message
    )
    assert "training.loader_timeout_s" in message and "\n" not in message
    assert time.monotonic() - started < 10, "nobody waits for the stalled thread"


@pytest.mark.slow
def test_a_shard_that_does_not_open_is_named_by_a_command_that_ends(tmp_path: Path) -> None:
    """Opening a shard on an unreachable network share never returns; the process must still be able to exit."""
    path = write_tiny_store(tmp_path / "store")
    shard = Store(path).shard_path(0)
    command = [
        sys.executable, "-c", STALLED, "train", "--store", str(path), "--out", str(tmp_path / "run"), "--order", "vt",
        "--training.loader_timeout_s", "0.5", "--training.device", "cpu", "--training.tensorboard", "false",
    ]  # fmt: skip
    done = forked.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    error_lines = done.stderr.strip().splitlines()
    assert len(error_lines) == 1 and f"the reader is waiting for {shard} (video 'video0" in error_lines[0]


def test_without_a_limit_it_waits(let_go: threading.Event) -> None:
    threading.Timer(0.3, let_go.set).start()
    assert list(read_ahead(lambda place: (let_go.wait(20), place)[1], range(3))) == [0, 1, 2]


def test_a_slow_reader_is_not_reported_as_stalled() -> None:
    """The limit applies to one batch, not to all."""
    assert list(read_ahead(lambda place: (time.sleep(0.1), place)[1], range(6), timeout_s=0.4)) == list(range(6))


def test_an_end_before_the_last_place_waits_for_the_thread() -> None:
    """Otherwise, the thread could read from a store whose files are deleted."""
    busy: list[int] = []

    def make(place: int) -> int:
        busy.append(1)
        time.sleep(0.05)
        busy.pop()
        return place

    stream = read_ahead(make, iter(range(100)))
    assert next(stream) == 0
    stream.close()
    assert not busy and not [t for t in threading.enumerate() if t.name == "reader" and t.is_alive()]


def test_notes_of_reading_change_no_batch(tiny_store: Path) -> None:
    first, again = (list(drawn(tiny_store, ("video", "audio", "text"), timeout_s=t)) for t in (0.0, 30.0))
    assert len(first) == len(again) > 0
    for a, b in zip(first, again, strict=True):
        assert all(a.inputs[name].equal(b.inputs[name]) for name in ("video", "audio", "word_ids"))
        assert a.clips is not None and len(a.clips) == len(a.inputs["video"])


def test_a_limit_below_zero_is_refused(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--store", str(tiny_store), "--out", str(tmp_path / "run"), "--training.loader_timeout_s", "-1"]
    assert main(words) == 2
    assert "training.loader_timeout_s is -1.0; it must be at least 0" in capsys.readouterr().err
