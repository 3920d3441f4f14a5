"""The choice of tracks, and notes about tracks that cannot be read, about silence, and about complete files."""

from __future__ import annotations

import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from clock_files import FFMPEG, seconds_played, seconds_shown, sound_of, write_seconds
from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.extraction.extract import ExtractSummary, extract
from trichord.media import FrameSpec, pictures, probe, sound, waveform

REAL = FIXTURES / "videos"


def with_codec(path: Path, old: bytes, new: bytes) -> Path:
    """Rename a codec in an MP4's sample descriptions."""
    data = path.read_bytes()
    at = data.index(old, data.index(b"stsd"))
    data = data[:at] + new + data[at + 4 :]
    path.write_bytes(data[:at] + data[at:].replace(b"esds", b"xxxx", 1))
    return path


def ffmpeg(*arguments: object) -> None:
    subprocess.run([FFMPEG, "-v", "error", "-y", *(str(a) for a in arguments)], check=True)


def noted(path: Path) -> list[str]:
    notes: list[str] = []
    seconds_shown(path, notes=notes)
    seconds_played(path, notes)
    return [note.removeprefix(f"{path}: ") for note in notes]


def run(folder: Path, store: Path) -> list[str]:
    summary = extract(folder, store, workers=0, visual_2d="none")
    assert isinstance(summary, ExtractSummary)
    return summary.notes


# ---- codecs without a decoder


def test_a_track_that_can_be_decoded_is_read_beside_one_that_cannot(tmp_path: Path) -> None:
    for k in (0, 1):
        write_seconds(tmp_path / f"{k}.mp4", [3 * k, 3 * k + 1, 3 * k + 2])
    both = tmp_path / "v" / "a.mp4"
    both.parent.mkdir()
    copied = [
        "-map",
        "0:v",
        "-map",
        "0:a",
        "-map",
        "1:a",
        "-c",
        "copy",
        "-disposition:a:0",
        "default",
        "-disposition:a:1",
        "0",
    ]
    ffmpeg("-i", tmp_path / "0.mp4", "-i", tmp_path / "1.mp4", *copied, both)
    assert seconds_played(both) == [0, 1, 2]
    with_codec(both, b"mp4a", b"ac-4")
    assert probe(both).has_audio and seconds_played(both) == [3, 4, 5]
    expected = "the audio codec of one track (ac4) cannot be decoded by this version of FFmpeg; track 2 (aac) is read"
    assert noted(both) == [expected]
    assert [note for note in run(both.parent, tmp_path / "s") if "ac4" in note] == [f"a.mp4: {expected}"]


def test_a_codec_without_a_decoder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    path = with_codec(write_seconds(folder / "a.mp4", [0, 1]), b"mp4a", b"ac-4")
    info = probe(path)
    assert not info.has_audio and info.no_audio == "its audio codec (ac4) cannot be decoded by this version of FFmpeg"
    assert list(sound(path)) == [] and noted(path) == [info.no_audio]
    with pytest.raises(TrichordError, match=re.escape(f"nor captions ({info.no_audio})")):
        run(folder, tmp_path / "s")
    (folder / "a.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nstir\n")
    assert f"a.mp4: {info.no_audio}; stored without spectrogram" in run(folder, tmp_path / "t")
    other = with_codec(write_seconds(tmp_path / "b.mp4", [0, 1]), b"avc1", b"zzzz")
    assert not probe(other).has_video and seconds_played(other)[:2] == [0, 1]
    message = "b.mp4: its video codec (unknown) cannot be decoded by this version of FFmpeg; convert the file to another codec"
    with pytest.raises(TrichordError, match=re.escape(message)):
        seconds_shown(other)


def test_sound_that_is_there_and_pictures_that_are_not(tmp_path: Path) -> None:
    path = write_seconds(tmp_path / "a.mp4", [0], with_sound=False)
    assert probe(path).no_audio == "has no sound" and probe(path).no_video == "" and noted(path) == []


# ---- programs


def test_pictures_and_sound_are_of_the_same_program(tmp_path: Path) -> None:
    """The sound of the other program has a higher bit rate and another clock, and comes first."""
    write_seconds(tmp_path / "a.mp4", range(4))
    write_seconds(tmp_path / "b.mp4", range(10, 14), with_sound=False)
    path = tmp_path / "both.ts"
    noise = ["-f", "lavfi", "-i", "sine=3000:d=4"]
    for name, rate, track in (("a", "32k", "0:a"), ("b", "192k", "1:a")):
        maps = ["-map", "0:v", "-map", track, "-c:v", "copy", "-c:a", "mp2", "-b:a", rate, "-ar", "48000", "-ac", "2"]
        ffmpeg("-i", tmp_path / f"{name}.mp4", *noise, *maps, tmp_path / f"{name}.ts")
    order = ["-map", "1:a", "-map", "0:v", "-map", "0:a", "-map", "1:v"]
    programs = ["-program", "title=Two:program_num=7:st=0:st=3", "-program", "title=One:program_num=1:st=1:st=2"]
    ffmpeg("-i", tmp_path / "a.ts", "-i", tmp_path / "b.ts", *order, "-c", "copy", *programs, path)
    shown = seconds_shown(path)
    if shown[0] < 10:
        assert shown[:4] == seconds_played(path)[:4] == [0, 1, 2, 3]
        expected = "it contains 2 programs; read: pictures and sound of program 1 (One); not read: 7 (Two)"
    else:
        assert seconds_played(path)[:4] == [13] * 4
        expected = "it contains 2 programs; read: pictures and sound of program 7 (Two); not read: 1 (One)"
    assert noted(path) == [expected]


# ---- whole files


def write_slides(path: Path, ticks: list[int], sound_s: float) -> Path:
    """Write pictures at `ticks` seconds, and sound with another duration."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=1, options={"x264-params": "bframes=0"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio: Any = out.add_stream("aac", rate=16000, layout="mono")
        packets = []
        for tick in ticks:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 + 10 * tick, np.uint8), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1)
            packets += video.encode(frame)
        packets += video.encode(None)
        if path.suffix == ".mp4":
            packets[-1].duration = ticks[-1] - ticks[-2]
        wave = sound_of(range(int(sound_s)))
        for begin in range(0, wave.size, 1024):
            block: Any = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 16000, begin, Fraction(1, 16000)
            packets += audio.encode(block)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.flv", "a.ts"])
def test_a_whole_file_is_not_missing_its_rest(tmp_path: Path, name: str) -> None:
    assert noted(write_slides(tmp_path / name, [0, 4], 8)) == []
    assert noted(write_slides(tmp_path / name, [0, 1, 2], 8)) == []
    assert noted(write_slides(tmp_path / name, [0, 4, 8], 2)) == []


@pytest.mark.parametrize("options", [{"movflags": "+faststart"}, {}])
def test_a_file_that_is_cut_off_still_is(tmp_path: Path, options: dict[str, str]) -> None:
    path = write_seconds(tmp_path / ("a.mp4" if options else "a.mkv"), range(8), **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    notes = noted(path)
    assert len(notes) == 2 and all(note.endswith("the rest is missing from the file") for note in notes)
    assert probe(path).duration_s == pytest.approx(8.0, abs=0.1)


# ---- silence


def write_stereo(path: Path, left: np.ndarray, right: np.ndarray, codec: str = "aac") -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=16000, layout="stereo")
        is_whole = stream.codec_context.format.name == "s16"
        for begin in range(0, left.size, 1024):
            both = np.stack([left[begin : begin + 1024], right[begin : begin + 1024]])
            samples = (both.T.reshape(1, -1) * 32767).astype(np.int16) if is_whole else both
            frame: Any = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples), format="s16" if is_whole else "fltp", layout="stereo"
            )
            frame.sample_rate, frame.pts, frame.time_base = 16000, begin, Fraction(1, 16000)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return path


@pytest.mark.parametrize("name", ["a.m4a", "a.wav"])
def test_silence_is_noted(tmp_path: Path, name: str) -> None:
    tone, codec = sound_of([0, 1]), "aac" if name.endswith("m4a") else "pcm_s16le"
    notes: list[str] = []

    def note_of(left: np.ndarray, right: np.ndarray) -> list[str]:
        notes.clear()
        waveform(write_stereo(tmp_path / name, left, right, codec), notes=notes)
        return [note.removeprefix(f"{tmp_path / name}: ") for note in notes]

    assert note_of(0 * tone, 0 * tone) == ["its sound is silence"]
    assert note_of(tone, -tone) == [
        "the channels of its sound cancel each other, so their mix, which is used, is silence"
    ]
    assert note_of(tone, tone) == note_of(tone, 0 * tone) == note_of(0.01 * tone, 0.01 * tone) == []
    assert note_of(np.append(0 * tone, tone), np.append(0 * tone, tone)) == []


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "flipping_a_pancake.mkv", "nasa_13013.mp4"])
def test_ordinary_files_give_no_notes(name: str) -> None:
    notes: list[str] = []
    waveform(REAL / name, notes=notes)
    assert notes == []


def test_encrypted_tracks_are_called_so(tmp_path: Path) -> None:
    source, path = write_seconds(tmp_path / "source.mp4", range(3)), tmp_path / "a.mp4"
    key = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "00" * 16, "-encryption_kid", "11" * 16]
    subprocess.run([FFMPEG, "-v", "error", "-i", source, "-c", "copy", *key, "-y", path], check=True)
    with pytest.raises(TrichordError, match="a.mp4: its video is encrypted; get the file without encryption"):
        list(pictures(path, [FrameSpec()]))
    notes: list[str] = []
    assert waveform(path, notes=notes).size == 0
    assert notes == [f"{path}: its sound is encrypted; get the file without encryption"]
