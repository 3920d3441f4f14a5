"""Sound in blocks: gaps, damaged time stamps, memory."""

from __future__ import annotations

import itertools
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import forked
from odd_media import SOUND_HZ, repeat_packets, tone, write
from trichord.media import audio, sound, waveform


def write_sound(path: Path, jumps_s: dict[int, float], num_packets: int = 40, **options: str) -> Path:
    """Write PCM sound whose packets (of 64 ms) are delayed by `jumps_s[n]` from packet n on."""
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream("pcm_s16le", rate=SOUND_HZ, layout="mono")
        out.start_encoding()
        late_s = 0.0
        samples = (tone(num_packets * 0.064) * 32767).astype(np.int16)
        for n in range(num_packets):
            late_s = jumps_s.get(n, late_s)
            frame = av.AudioFrame.from_ndarray(samples[None, 1024 * n : 1024 * n + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = SOUND_HZ, Fraction(1, SOUND_HZ)
            frame.pts = 1024 * n + round(late_s * SOUND_HZ)
            for packet in stream.encode(frame):
                out.mux(packet)
    return path


def test_blocks_are_ten_seconds_and_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", num_frames=0, sound=tone(35.0))
    blocks = list(sound(path))
    assert [block.size for block in blocks[:-1]] == [160000] * 3 and 70000 < blocks[-1].size < 90000
    assert np.array_equal(np.concatenate(blocks), waveform(path))
    assert [block.size for block in sound(path, sample_rate_hz=8000)][:3] == [80000] * 3
    assert [block.size for block in sound(path, start_s=1.0, end_s=12.5)] == [160000, 24000]


def test_a_hole_is_silence_of_its_length(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mkv", {20: 300.0})
    blocks = list(sound(path))
    assert max(block.size for block in blocks) == 160000
    samples = np.concatenate(blocks)
    assert samples.size == pytest.approx(40 * 1024 + 300 * SOUND_HZ, abs=20)
    assert (samples[20 * 1024 + 20 : 20 * 1024 + 300 * SOUND_HZ - 20] == 0).all()
    assert np.abs(samples[-20 * 1024 :] - tone(2.56)[20 * 1024 :]).max() < 1e-3
    clip = np.concatenate(list(sound(path, start_s=200.0, end_s=302.0)))
    assert np.array_equal(clip, samples[200 * SOUND_HZ : 302 * SOUND_HZ])


def test_silence_is_created_lazily(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "a.mkv", {20: 3000.0})
    num_created = 0
    zeros = np.zeros

    def counted(shape: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        nonlocal num_created
        num_created += int(np.prod(shape))
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(audio.np, "zeros", counted)
    first = list(itertools.islice(sound(path), 3))
    assert sum(block.size for block in first) == 3 * 160000 and num_created <= 5 * 160000


@pytest.mark.parametrize("live", ["0", "1"])
def test_a_damaged_time_stamp_does_not_become_silence(tmp_path: Path, live: str) -> None:
    """A packet claims to be 30 hours late: beyond the stated end, or beyond an hour if no end is stated. Time continues."""
    path = write_sound(tmp_path / "a.mkv", {39: 30 * 3600.0}, live=live)
    if live == "0":  # the header believes the packet: put the length right
        data = path.read_bytes()
        at = data.index(b"\x44\x89\x88") + 3
        path.write_bytes(data[:at] + struct.pack(">d", 2560.0) + data[at + 8 :])
    notes: list[str] = []
    samples = waveform(path, notes=notes)
    assert samples.size == pytest.approx(40 * 1024, abs=20)
    assert len(notes) == 1 and notes[0].startswith(f"{path}: its timestamps jump by +108000.0 s at 2.5 s; ")


@pytest.mark.parametrize("hole", [False, True])
def test_skipped_sound_shows_as_empty_blocks(tmp_path: Path, hole: bool) -> None:
    """Otherwise, waiting for the first block of a late clip would take as long as decoding everything before it."""
    if hole:
        path = write_sound(tmp_path / "a.mkv", {20: 300.0})
    else:
        path = repeat_packets(write(tmp_path / "b.mkv", num_frames=0, sound=tone(3.0)), tmp_path / "a.mkv", 101)
    whole = waveform(path)
    blocks = list(sound(path, start_s=200.0, end_s=215.0))
    assert all(block.dtype == np.float32 and block.shape == (block.size,) for block in blocks)
    assert [block.size for block in blocks[-2:]] == [160000, 80000]
    assert 18 <= len(blocks) - 2 <= 20 and not any(block.size for block in blocks[:-2])
    assert np.array_equal(np.concatenate(blocks), whole[200 * SOUND_HZ : 215 * SOUND_HZ])
    assert not any(block.size for block in sound(path, start_s=1000.0))
    assert all(block.size for block in sound(path))


def test_a_partially_read_file_gives_no_note(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", num_frames=0, sound=tone(30), movflags="+faststart")
    path.write_bytes(path.read_bytes()[:90000])
    notes: list[str] = []
    assert sum(block.size for block in sound(path, end_s=2.0, notes=notes)) == 32000 and notes == []
    list(sound(path, notes=notes))
    assert len(notes) == 1 and "of 30.0 s" in notes[0]


def test_sound_is_not_shifted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", num_frames=0, sound=tone(2.0))
    assert np.corrcoef(waveform(path)[:30000], tone(2.0)[:30000])[0, 1] > 0.99


PEAK = """
import resource, sys
from trichord.features.spectrogram import LogMel
from trichord.media import FrameSpec, pictures, sound
path = sys.argv[1]
for _ in pictures(path, [FrameSpec(), FrameSpec(rate_hz=24, short_side=32, crop=32)], num_threads=1): pass
for _ in LogMel().encode(lambda: sound(path)): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    short = write(tmp_path / "a.mkv", sound=tone(3.0))
    peaks = []
    for times in (40, 400):  # two minutes, twenty
        path = repeat_packets(short, tmp_path / f"{times}.mkv", times)
        run = forked.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        peaks.append(float(run.stdout))
    assert peaks[1] < peaks[0] + 30, f"{peaks} MB"
