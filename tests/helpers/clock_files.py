"""Files whose second k shows grey level k and sounds at pitch k, and functions that damage their time stamps."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np

from trichord.media import FrameSpec, pictures, waveform

RATE_HZ, SOUND_HZ = 10, 16000
H264 = {"preset": "medium", "crf": "12", "x264-params": "keyint=10:bframes=0:scenecut=0"}
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def sound_of(seconds: Sequence[int]) -> np.ndarray:
    """Return one second at 400 + 200 k Hz for each k."""
    t = np.arange(SOUND_HZ) / SOUND_HZ
    return np.concatenate([0.4 * np.sin(2 * np.pi * (400 + 200 * k) * t) for k in seconds]).astype(np.float32)


def write_seconds(
    path: Path,
    seconds: Sequence[int],
    *,
    codec: str = "libx264",
    codec_options: dict[str, str] | None = None,
    sound_codec: str = "aac",
    container: str | None = None,
    with_sound: bool = True,
    **options: str,
) -> Path:
    """Write a file that shows and plays the given seconds, with ten frames each."""
    with av.open(str(path), "w", format=container, options=options) as out:
        video: Any = out.add_stream(codec, rate=RATE_HZ, options=codec_options or (H264 if codec == "libx264" else {}))
        video.width, video.height, video.pix_fmt, video.codec_context.thread_count = 64, 64, "yuv420p", 1
        audio: Any = out.add_stream(sound_codec, rate=SOUND_HZ, layout="mono") if with_sound else None
        out.start_encoding()
        packets = []
        for i in range(RATE_HZ * len(seconds)):
            picture = np.full((64, 64, 3), 20 + 10 * seconds[i // RATE_HZ], np.uint8)
            picture[:, 2 * i % 60 :][:, :4] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE_HZ)
            packets += video.encode(frame)
        packets += video.encode(None)
        if with_sound:
            wave, audio_format = sound_of(seconds), audio.codec_context.format.name
            if audio_format.startswith("s16"):
                wave = (wave * 32767).astype(np.int16)
            for begin in range(0, wave.size, 1024):
                block: Any = av.AudioFrame.from_ndarray(
                    wave[None, begin : begin + 1024], format=audio_format, layout="mono"
                )
                block.sample_rate, block.pts, block.time_base = SOUND_HZ, begin, Fraction(1, SOUND_HZ)
                packets += audio.encode(block)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def join(path: Path, parts: Sequence[Path]) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def restamp_flv(path: Path, stamp_of: Callable[[str, int, int], int]) -> Path:
    """Set the time of each tag of an FLV to `stamp_of(kind, number of the tag of that kind, milliseconds)`."""
    data, at, counts = bytearray(path.read_bytes()), 13, {"audio": 0, "video": 0}
    while at + 11 <= len(data):
        kind = {8: "audio", 9: "video"}.get(data[at])
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        is_header = kind is not None and data[at + 12] == 0  # the configuration of the codec, not a frame
        if kind is not None and not is_header:
            stamp = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
            stamp = stamp_of(kind, counts[kind], stamp)
            data[at + 4 : at + 7], data[at + 7] = (stamp & 0xFFFFFF).to_bytes(3, "big"), stamp >> 24
            counts[kind] += 1
        at += 11 + size + 4
    path.write_bytes(data)
    return path


def state_length(path: Path, seconds: float) -> Path:
    """Overwrite the duration in the header of a Matroska file (milliseconds) or an FLV (seconds)."""
    data = path.read_bytes()
    if path.suffix == ".flv":
        at, value = data.index(b"duration") + 9, seconds
    else:
        at, value = data.index(b"\x44\x89\x88") + 3, seconds * 1000
    path.write_bytes(data[:at] + struct.pack(">d", value) + data[at + 8 :])
    return path


def remux(source: Path, target: Path, time_of: Callable[[str, float], float], **options: str) -> Path:
    """Copy packets to another file with the times `time_of(kind, seconds)`."""
    with av.open(str(source)) as container, av.open(str(target), "w", options=options) as out:
        copies = {s.index: out.add_stream_from_template(s) for s in container.streams}
        for packet in container.demux():
            if packet.dts is None:
                continue
            base = packet.time_base
            shift = round((time_of(packet.stream.type, float(packet.dts * base)) - float(packet.dts * base)) / base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
    return target


def shift_fragments(path: Path, by_s: float) -> Path:
    """Shift the clock of a fragmented MP4, as in a recording of a live stream."""
    data = bytearray(path.read_bytes())
    rates_hz = [int.from_bytes(data[at + 16 : at + 20], "big") for at in places(data, b"mdhd")]
    for at in places(data, b"tfdt"):
        header = data.rfind(b"tfhd", 0, at)
        rate_hz = rates_hz[int.from_bytes(data[header + 8 : header + 12], "big") - 1]
        ticks = int.from_bytes(data[at + 8 : at + 16], "big") + round(by_s * rate_hz)
        data[at + 8 : at + 16] = ticks.to_bytes(8, "big")
    path.write_bytes(data)
    return path


def join_fragments(path: Path, parts: Sequence[Path]) -> Path:
    """Join the fragments of several files behind the header of the first."""
    data = [part.read_bytes() for part in parts]
    begins = [part.index(b"moof") - 4 for part in data]
    ends = [part.rindex(b"mfra") - 4 for part in data]
    fragments = [part[begin:end] for part, begin, end in zip(data, begins, ends, strict=True)]
    path.write_bytes(data[0][: begins[0]] + b"".join(fragments))
    return path


def places(data: bytes | bytearray, name: bytes) -> list[int]:
    """Return the positions of the boxes with a name."""
    positions: list[int] = []
    while (at := data.find(name, positions[-1] + 4 if positions else 0)) >= 0:
        positions.append(at)
    return positions


def seconds_shown(path: Path, *, start_s: float = 0.0, notes: list[str] | None = None, **options: Any) -> list[int]:
    """Return the second that is shown in the middle of each second."""
    shown = pictures(path, [FrameSpec(rate_hz=2, short_side=32)], start_s=start_s, notes=notes, **options)
    return [round((float(np.median(p)) - 20) / 10) for _, p in shown][1::2]


def seconds_played(path: Path, notes: list[str] | None = None) -> list[int]:
    """Return the second that is played in the middle of each second; -1 for silence."""
    wave, numbers = waveform(path, notes=notes), []
    for begin in range(SOUND_HZ // 4, wave.size - SOUND_HZ // 2, SOUND_HZ):
        part = wave[begin : begin + SOUND_HZ // 2]
        hz = float(np.abs(np.fft.rfft(part * np.hanning(part.size))).argmax()) * SOUND_HZ / part.size
        numbers.append(round((hz - 400) / 200) if np.abs(part).max() > 0.05 else -1)
    return numbers
