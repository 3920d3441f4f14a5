"""Media files as they are found in the wild, made on the spot: what each is, and what must come out of it.

`odd_media(folder)` makes all of them (small: a second or two of work); `repeat_packets` makes long files of short ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, RATE_HZ = 96, 64, 10
SOUND_HZ = 16000
_ASS = b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\nFormat: Text\n"


@dataclass(frozen=True)
class OddFile:
    """A file and what it gives.

    Attributes:
        path: The file.
        frames: Frame (see `card`) that is shown at 0, 1, 2, ... seconds; empty if it has no pictures.
        size: Width and height of its upright pictures.
        sound_s: Seconds of sound, about; 0 if it has none.
        note: What a line of the notes says, if there is one.
        has_subtitles: Whether it has a subtitle track.
    """

    path: Path
    frames: tuple[int, ...] = ()
    size: tuple[int, int] = (WIDTH, HEIGHT)
    sound_s: float = 0.0
    note: str = ""
    has_subtitles: bool = False


def card(i: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Frame i: grey of level 24 + 5 i with a coloured square that moves; `card_of` reads i from it at any size."""
    picture = np.full((height, width, 3), 24 + 5 * i, np.uint8)
    x = (7 * i) % max(width - width // 4, 1)
    picture[: height // 3, x : x + width // 4] = (200, 40, (90 * i) % 256)
    return picture


def card_of(picture: np.ndarray) -> int:
    return round((float(np.median(picture)) - 24) / 5)


def tone(seconds: float, hz: float = 440.0, rate: int = SOUND_HZ) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * hz * t * (1 + 0.1 * t))).astype(np.float32)


def write(
    path: Path,
    *,
    num_frames: int = 30,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, RATE_HZ),
    sound: np.ndarray | None = None,
    sound_hz: int = SOUND_HZ,
    start: int = 0,
    first: int = 0,
    drop: int = 0,
    num_copies: int = 1,
    codec_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Cards first, first + 1, ... at `start` + `ticks` of `time_base`, with sound; the first `drop` packets left out."""
    codec_options = codec_options or ({"preset": "ultrafast", "crf": "12"} if codec == "libx264" else {})
    with av.open(str(path), "w", options=options) as out:
        videos: list[Any] = []
        for copy in range(num_copies if num_frames else 0):
            video: Any = out.add_stream(codec, rate=RATE_HZ, options=codec_options)
            video.width, video.height, video.pix_fmt = size[0] // (copy + 1), size[1] // (copy + 1), pixels
            video.codec_context.time_base, video.codec_context.thread_count = time_base, 1
            videos.append(video)
        audios: list[Any] = []
        for _ in range(num_copies if sound is not None else 0):
            audios.append(out.add_stream("aac", rate=sound_hz, layout="mono"))
        out.start_encoding()
        for video in videos:
            frames = (card(first + i, video.width, video.height) for i in range(num_frames))
            packets = list(encoded(video, frames, time_base, start, ticks))
            for packet in packets[drop:]:
                out.mux(packet)
        for audio in audios:
            for packet in encoded_sound(audio, sound, sound_hz, 0 if videos else int(start * time_base * sound_hz)):
                out.mux(packet)
    return path


def encoded(
    stream: Any, pictures: Iterator[np.ndarray], time_base: Fraction, start: int = 0, ticks: Sequence[int] | None = None
) -> Iterator[Any]:
    for i, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = start + (i if ticks is None else ticks[i]), time_base
        yield from stream.encode(frame)
    yield from stream.encode(None)


def encoded_sound(stream: Any, sound: Any, rate: int, start: int = 0) -> Iterator[Any]:
    for begin in range(0, len(sound), 1024):
        frame = av.AudioFrame.from_ndarray(sound[None, begin : begin + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start + begin, Fraction(1, rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a, b, c, d (units of one) as the display matrix of the first track of an MP4."""
    data = bytearray(path.read_bytes())
    begin = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[begin : begin + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def repeat_packets(source: Path, target: Path, times: int) -> Path:
    """`source` `times` times over, its packets copied, time stamps shifted: an hour of video in some seconds."""
    with av.open(str(target), "w") as out:
        with av.open(str(source)) as container:
            streams = [s for s in container.streams if s.type in ("video", "audio")]
            copies = {s.index: out.add_stream_from_template(s) for s in streams}
            packets = [(p, p.pts, p.dts) for p in container.demux(streams) if p.pts is not None]
            length_s = max((pts + p.duration) * p.time_base for p, pts, _ in packets) - min(
                pts * p.time_base for p, pts, _ in packets
            )
            indices = [p.stream_index for p, _, _ in packets]
            missing = {i: sum(p.stream_index == i and dts is None for p, _, dts in packets) for i in copies}
            known = {i: min(d for p, _, d in packets if p.stream_index == i and d is not None) for i in copies}
        for i in range(times):
            left = dict(missing)
            for (packet, pts, dts), index in zip(packets, indices, strict=True):
                if dts is None:  # the first ones of a file with B-frames in Matroska
                    dts = known[index] - left[index] * packet.duration
                    left[index] -= 1
                shift = round(i * length_s / packet.time_base)
                again = av.Packet(bytes(packet))
                again.time_base, again.is_keyframe, again.duration = (
                    packet.time_base,
                    packet.is_keyframe,
                    packet.duration,
                )
                again.pts, again.dts, again.stream = pts + shift, dts + shift, copies[index]
                out.mux(again)
    return target


def odd_media(folder: Path) -> dict[str, OddFile]:
    """All files, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    second = (0, 10, 20)
    sound = tone(3.0)
    made = {**_odd_times(folder, sound, second), **_odd_streams(folder, sound, second)}

    def add(name: str, suffix: str, frames: tuple[int, ...] = second, **kwargs: Any) -> None:
        size = kwargs.get("size", (WIDTH, HEIGHT))
        made[name] = OddFile(write(folder / f"{name}{suffix}", sound=sound, **kwargs), frames, size, 3.0)

    slow = {"preset": "medium", "crf": "12"}
    add("b_frames", ".mp4", codec_options={**slow, "x264-params": "keyint=9:bframes=3:scenecut=0"})
    add("open_gop", ".mkv", codec_options={**slow, "x264-params": "keyint=9:bframes=3:open-gop=1:scenecut=0"})
    add("intra_refresh", ".mkv", codec_options={**slow, "x264-params": "keyint=9:intra-refresh=1:scenecut=0"})
    late = (0, 9, 19, 29)  # these containers let the sound's first packet, 64 ms of encoder delay, begin at zero
    add("transport", ".ts", late, codec_options={**slow, "x264-params": "keyint=9:bframes=3:scenecut=0"})
    add("ten_bit", ".mkv", pixels="yuv420p10le", codec_options={**slow, "x264-params": "keyint=9"})
    add("hevc_open_gop", ".mkv", codec="libx265", codec_options={"x265-params": "keyint=9:log-level=none:pools=none"})
    add("vp9", ".mkv", codec="libvpx-vp9", codec_options={"cpu-used": "8", "deadline": "realtime", "g": "9"})
    add("mpeg4", ".avi", late, codec="mpeg4", codec_options={"bf": "2", "g": "9", "b": "2000000"})
    add("full_range", ".mkv", codec="mjpeg", pixels="yuvj420p", codec_options={"qmin": "2", "qmax": "2"})
    add("odd_size", ".mkv", codec="ffv1", pixels="yuv444p", size=(97, 63))
    turns = {"clockwise": (0, 1, -1, 0), "upside_down": (-1, 0, 0, -1), "anticlockwise": (0, -1, 1, 0)}
    for name, matrix in {**turns, "mirrored": (0, 1, 1, 0)}.items():
        path = turn(write(folder / f"{name}.mp4", movflags="+faststart"), matrix)
        made[name] = OddFile(path, second, (WIDTH, HEIGHT) if name == "upside_down" else (HEIGHT, WIDTH))
    return made


def _odd_times(folder: Path, sound: np.ndarray, second: tuple[int, ...]) -> dict[str, OddFile]:
    made = {}
    ticks = np.cumsum([0, *np.random.RandomState(0).randint(1, 9, 29)]).tolist()  # of 1/45 s: 22 to 200 ms apart
    shown = tuple(max(i for i in range(30) if ticks[i] <= 45 * s) for s in range(4))
    path = write(folder / "variable_rate.mkv", ticks=ticks, time_base=Fraction(1, 45), sound=sound)
    made["variable_rate"] = OddFile(path, shown, sound_s=3.0)
    gop = {"preset": "ultrafast", "crf": "12", "g": "10"}
    path = write(folder / "no_first_key.mkv", codec_options=gop, drop=3, sound=sound)
    made["no_first_key"] = OddFile(path, (10, 10, 20), sound_s=3.0)
    path = write(folder / "no_duration.mkv", sound=sound, live="1")
    made["no_duration"] = OddFile(path, second, sound_s=3.0)
    path = write(folder / "truncated.mp4", sound=sound, movflags="+faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    made["truncated"] = OddFile(path, (0, 10), sound_s=1.66, note="the rest is missing from the file")
    path = write(folder / "short.mp4", num_frames=4, sound=tone(0.4))
    made["short"] = OddFile(path, (0,), sound_s=0.4)
    path = write(folder / "late_video.mkv", start=15, sound=sound)
    made["late_video"] = OddFile(path, (0, 0, 5, 15, 25), sound_s=3.0)
    path = write(folder / "negative_times.mkv", start=-12, avoid_negative_ts="disabled")
    made["negative_times"] = OddFile(path, (12, 22))  # Matroska has no number below zero: such frames have no time
    path = write(folder / "edit_list.mp4", start=-12, avoid_negative_ts="disabled", sound=sound)
    made["edit_list"] = OddFile(path, (12, 22), sound_s=3.0)  # what lies before zero is not shown, the key frame too
    return made


def _odd_streams(folder: Path, sound: np.ndarray, second: tuple[int, ...]) -> dict[str, OddFile]:
    made = {}
    made["no_audio"] = OddFile(write(folder / "no_audio.mp4"), second)
    path = write(folder / "audio_only.m4a", num_frames=0, sound=sound)
    made["audio_only"] = OddFile(path, (), (0, 0), 3.0)
    path = write(folder / "several_streams.mkv", sound=sound, num_copies=2)
    made["several_streams"] = OddFile(path, second, sound_s=3.0)
    made["picture_and_cover"] = OddFile(_with_cover(folder / "picture_and_cover.mp4", sound, True), second, sound_s=3.0)
    made["cover_art"] = OddFile(_with_cover(folder / "cover_art.m4a", sound), (), (0, 0), 3.0)
    made["subtitles_only"] = OddFile(_subtitles(folder / "subtitles_only.mkv"), (), (0, 0), has_subtitles=True)
    halves = [write(folder / f"part{i}.ts", num_frames=15, size=size, start=15 * i, first=15 * i)
              for i, size in enumerate(((WIDTH, HEIGHT), (64, 96)))]  # fmt: skip
    path = folder / "resolution_change.ts"
    path.write_bytes(b"".join(half.read_bytes() for half in halves))
    made["resolution_change"] = OddFile(path, second)
    pieces = [write(folder / f"sound{i}.ts", num_frames=0, sound=tone(1.5, rate=hz), sound_hz=hz, start=15 * i)
              for i, hz in enumerate((16000, 48000))]  # fmt: skip
    path = folder / "sound_change.ts"
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    made["sound_change"] = OddFile(path, (), (0, 0), 3.0)
    for left in (*halves, *pieces):
        left.unlink()
    return made


def _with_cover(path: Path, sound: np.ndarray, with_video: bool = False) -> Path:
    with av.open(str(path), "w", format="mp4") as out:
        video: Any = out.add_stream("libx264", rate=RATE_HZ) if with_video else None
        if with_video:
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = out.add_stream("aac", rate=SOUND_HZ, layout="mono")
        cover: Any = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.start_encoding()
        for packet in encoded(cover, iter([card(5, 64, 64)]), Fraction(1, 1)):
            out.mux(packet)
        if with_video:
            for packet in encoded(video, (card(i) for i in range(30)), Fraction(1, RATE_HZ)):
                out.mux(packet)
        for packet in encoded_sound(audio, sound, SOUND_HZ):
            out.mux(packet)
    return path


def _subtitles(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("subrip")
        stream.codec_context.subtitle_header = _ASS
        out.start_encoding()
        for begin_s, text in ((0.5, "crack the egg"), (2.0, "and stir")):
            packet = av.Packet(text.encode())
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = int(begin_s * 1000)
            packet.duration = 1000
            out.mux(packet)
    return path
