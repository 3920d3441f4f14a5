"""Decoding and encoding of generated files, including irregular ones."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from trichord.errors import TrichordError
from trichord.media import frames, probe, subtitles, waveform, write_video

ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\nFormat: Text\n"
)
WIDTH, HEIGHT = 96, 64
RATE_HZ = 16000


def grey(num_frames: int, step: int = 4, width: int = WIDTH, height: int = HEIGHT) -> Iterator[np.ndarray]:
    """Return frames, where frame i has the grey level 16 + step * i."""
    for i in range(num_frames):
        yield np.full((height, width, 3), 16 + step * i, np.uint8)


def index_of(picture: np.ndarray, step: int = 4) -> int:
    return round((float(picture.mean()) - 16) / step)


def chirp(seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (0.4 * np.sin(2 * np.pi * (300 + 150 * t) * t)).astype(np.float32)


def mux(path: Path, tracks: list[dict[str, Any]], **options: str) -> Path:
    """Write a file of several tracks with properties that write_video lacks: {kind, rate, size, start_s, rows, ...}."""
    with av.open(str(path), "w", options=options) as out:
        streams: list[Any] = []
        stream: Any
        frame: Any
        for track in tracks:
            if track["kind"] == "video":
                stream = out.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
                stream.width, stream.height = track.get("size", (WIDTH, HEIGHT))
                stream.pix_fmt = "yuv420p"
            elif track["kind"] == "audio":
                stream = out.add_stream("aac", rate=RATE_HZ, layout="mono")
            else:
                stream = out.add_stream("subrip")
                stream.codec_context.subtitle_header = ASS_HEADER
            streams.append(stream)
        out.start_encoding()
        for track, stream in zip(tracks, streams, strict=True):
            start_s = track.get("start_s", 0)
            if track["kind"] == "video":
                for i, picture in enumerate(grey(30, width=stream.width, height=stream.height)):
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = i + start_s * 10, Fraction(1, 10)
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
            elif track["kind"] == "audio":
                sound = track["sound"]
                for begin in range(0, len(sound), 1024):
                    frame = av.AudioFrame.from_ndarray(sound[None, begin : begin + 1024], format="fltp", layout="mono")
                    frame.sample_rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
                    frame.pts = begin + int(start_s * RATE_HZ) + (int(track.get("gap_s", 0) * RATE_HZ) if begin else 0)
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
            else:
                for begin_s, end_s, text in track["rows"]:
                    packet = av.Packet(text.encode())
                    packet.stream, packet.time_base = stream, Fraction(1, 1000)
                    packet.pts = packet.dts = int(begin_s * 1000)
                    packet.duration = int((end_s - begin_s) * 1000)
                    out.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_written_videos_are_read(tmp_path: Path, suffix: str) -> None:
    path, sound = tmp_path / "sub" / f"a{suffix}", chirp(5.0)
    write_video(path, grey(50), 10, sound, RATE_HZ)
    info = probe(path)
    assert info.duration_s == pytest.approx(5.0, abs=0.07)
    assert (info.width, info.height, info.frame_rate_hz) == (WIDTH, HEIGHT, 10)
    assert info.has_video and info.has_audio and not info.has_subtitles
    notes: list[str] = []
    pictures = list(frames(path, notes=notes))
    assert [index_of(p) for p in pictures] == [0, 10, 20, 30, 40]
    assert all(p.shape == (256, 454, 3) and p.dtype == np.uint8 for p in pictures)
    samples = waveform(path, notes=notes)
    assert samples.dtype == np.float32 and samples.ndim == 1 and abs(samples.size - sound.size) < 1100
    assert np.corrcoef(samples[: sound.size], sound)[0, 1] > 0.99  # not shifted by one sample
    assert subtitles(path) is None and notes == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, grey(8), 12.5, chirp(0.6))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("num_frames", [1, 7, 41])
@pytest.mark.parametrize("rate_hz", [10, 12.5, 30000 / 1001])
@pytest.mark.parametrize("wanted_hz", [1.0, 3.0])
def test_pictures_are_those_on_screen_at_each_step(
    tmp_path: Path, num_frames: int, rate_hz: float, wanted_hz: float
) -> None:
    write_video(tmp_path / "a.mp4", grey(num_frames, step=5), rate_hz, crf=10)
    expected, n = [], 0
    while n == 0 or n / wanted_hz < num_frames / rate_hz - 6e-4:
        expected.append(max(i for i in range(num_frames) if i / rate_hz <= n / wanted_hz + 6e-4))
        n += 1
    got = frames(tmp_path / "a.mp4", rate_hz=wanted_hz, width=32, height=32)
    assert [index_of(p, step=5) for p in got] == expected


def test_colours_and_places_survive(tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[32:, 48:] = (250, 20, 20), (20, 20, 250)
    write_video(tmp_path / "a.mp4", [picture] * 3, 10)
    (decoded,) = frames(tmp_path / "a.mp4")
    for y, x in ((64, 110), (64, 340), (192, 110), (192, 340)):
        expected = picture[y // 4, int(x / 454 * 96)].astype(int)
        assert np.abs(decoded[y, x].astype(int) - expected).max() < 40, (y, x)


def test_a_video_without_sound(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey(10), 10, np.zeros(0, np.float32))
    assert not probe(tmp_path / "a.mp4").has_audio
    samples = waveform(tmp_path / "a.mp4")
    assert samples.shape == (0,) and samples.dtype == np.float32


def test_sound_without_pictures(tmp_path: Path) -> None:
    mux(tmp_path / "a.m4a", [{"kind": "audio", "sound": chirp(1)}])
    info = probe(tmp_path / "a.m4a")
    assert info.has_audio and not info.has_video and info.width == 0
    with pytest.raises(TrichordError, match=r"a\.m4a: has no video stream; remove it from the folder or replace it"):
        next(frames(tmp_path / "a.m4a"))


def test_four_tenths_of_a_second_give_one_picture(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey(4), 10, chirp(0.4))
    assert [index_of(p) for p in frames(tmp_path / "a.mp4")] == [0]
    assert probe(tmp_path / "a.mp4").duration_s == pytest.approx(0.4, abs=0.07)


def test_a_file_that_does_not_state_its_length(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", [{"kind": "video"}, {"kind": "audio", "sound": chirp(3)}], live="1")
    with av.open(str(path)) as container:
        assert not container.duration
    assert probe(path).duration_s == pytest.approx(3.0, abs=0.1)
    notes: list[str] = []
    assert [index_of(p) for p in frames(path, notes=notes)] == [0, 10, 20]
    assert waveform(path, notes=notes).size == pytest.approx(3 * RATE_HZ, abs=1100) and notes == []


def test_of_several_video_streams_one_is_read(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", [{"kind": "video", "size": (32, 32)}, {"kind": "video", "size": (320, 240)}])
    info = probe(path)
    assert (info.width, info.height) in {(32, 32), (320, 240)}
    assert [index_of(p) for p in frames(path)] == [0, 10, 20]


def test_subtitle_track(tmp_path: Path) -> None:
    rows = [(0.5, 1.5, "crack <i>the</i>\negg"), (1.5, 2.75, "don't stop")]
    path = mux(tmp_path / "a.mkv", [{"kind": "video"}, {"kind": "subtitle", "rows": rows}])
    assert probe(path).has_subtitles
    captions = subtitles(path)
    assert captions is not None and captions.text == ("crack the egg", "don't stop")
    assert captions.start_s.tolist() == [0.5, 1.5] and captions.end_s.tolist() == [1.5, 2.75]


def test_late_sound_and_holes_become_silence(tmp_path: Path) -> None:
    sound = chirp(1.0)
    path = mux(tmp_path / "a.mkv", [{"kind": "video"}, {"kind": "audio", "sound": sound, "start_s": 0.5}])
    samples = waveform(path)
    assert np.abs(samples[: int(0.47 * RATE_HZ)]).max() < 1e-3
    assert np.corrcoef(samples[RATE_HZ // 2 :][: sound.size], sound)[0, 1] > 0.99
    path = mux(tmp_path / "b.mkv", [{"kind": "video"}, {"kind": "audio", "sound": sound, "gap_s": 1.0}])
    samples = waveform(path)
    assert samples.size == pytest.approx(2 * RATE_HZ, abs=1100)
    assert np.abs(samples[3000:RATE_HZ]).max() < 1e-3 and np.abs(samples[18000:30000]).max() > 0.3


def test_other_sample_rates_come_out_at_16_khz(tmp_path: Path) -> None:
    t = np.arange(44100) / 44100
    write_video(tmp_path / "a.mp4", grey(10), 10, np.sin(2 * np.pi * 1000 * t).astype(np.float32) * 0.5, 44100)
    samples = waveform(tmp_path / "a.mp4")
    spectrum = np.abs(np.fft.rfft(samples[:RATE_HZ]))
    assert samples.size == pytest.approx(RATE_HZ, abs=400) and abs(int(spectrum.argmax()) - 1000) <= 1


def test_a_truncated_file_returns_its_decoded_part_with_a_note(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    noise = (rng.randint(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(60))
    write_video(tmp_path / "a.mp4", noise, 10, chirp(6))
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    notes: list[str] = []
    assert 2 <= len(list(frames(tmp_path / "a.mp4", notes=notes))) <= 4
    assert 1.5 * RATE_HZ < waveform(tmp_path / "a.mp4", notes=notes).size < 4.5 * RATE_HZ
    assert len(notes) == 2 and all("of 6.0 s" in n and "the rest is missing from the file" in n for n in notes)
    assert "a.mp4: the video ends at" in notes[0] and "a.mp4: the audio ends at" in notes[1]


def test_a_rotated_video_is_turned_upright(tmp_path: Path) -> None:
    picture = np.full((64, 96, 3), 30, np.uint8)
    picture[:, :48] = 220  # light at the left
    write_video(tmp_path / "a.mp4", [picture] * 5, 5)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise
    (tmp_path / "a.mp4").write_bytes(data)
    (decoded,) = frames(tmp_path / "a.mp4", width=40, height=60)
    assert decoded.shape == (60, 40, 3)
    assert decoded[:25].mean() > 200 and decoded[35:].mean() < 60  # light above


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.mp4", None, r"gone\.mp4: does not exist; check the path"),
        (
            "a.mp4",
            b"not a video at all",
            r"a\.mp4: cannot be opened as a video \(.+\); check that the file is complete",
        ),
        ("b.mkv", b"", r"b\.mkv: cannot be opened as a video"),
    ],
)
def test_files_that_are_not_videos(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (probe, waveform, subtitles, lambda path: next(frames(path))):
        with pytest.raises(TrichordError, match=message):
            read(tmp_path / name)


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(TrichordError, match="a video needs at least one picture"):
        write_video(path, [], 10, chirp(1))
    with pytest.raises(TrichordError, match="pictures are 33x32, but H.264 needs an even width and height"):
        write_video(path, grey(1, width=33, height=32), 10)

    def broken() -> Iterator[np.ndarray]:
        yield from grey(3)
        raise RuntimeError("renderer broke")

    with pytest.raises(RuntimeError, match="renderer broke"):
        write_video(path, broken(), 10, chirp(1))
    assert list(tmp_path.iterdir()) == []


def test_one_picture_at_a_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey(20), 10)
    pictures = frames(tmp_path / "a.mp4")
    assert index_of(next(pictures)) == 0
    pictures.close()
    assert math.isclose(probe(tmp_path / "a.mp4").duration_s, 2.0)
