"""Media files with subtitle tracks, made on the spot."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

_ASS = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


@dataclass
class Track:
    """A subtitle track: its codec, and start, end and text of its cues."""

    codec: str
    cues: list[tuple[float, float, str]]
    language: str = ""
    flags: int = 0
    title: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def write_tracks(path: Path, tracks: list[Track], sound_language: str = "") -> Path:
    """A file of a short tone with `tracks`."""
    with av.open(str(path), "w") as out:
        sound: Any = out.add_stream("aac", rate=16000)
        sound.layout = "mono"
        if sound_language:
            sound.metadata["language"] = sound_language
        streams = []
        for track in tracks:
            stream: Any = out.add_stream(track.codec)
            stream.codec_context.subtitle_header = _ASS
            for name, value in {"language": track.language, "title": track.title, **track.metadata}.items():
                if value:
                    stream.metadata[name] = value
            stream.disposition = track.flags
            streams.append(stream)
        out.start_encoding()
        packets = []
        for at, (track, stream) in enumerate(zip(tracks, streams, strict=True)):
            for start_s, end_s, text in track.cues:
                payload = text.encode()
                if track.codec == "mov_text":
                    payload = len(payload).to_bytes(2, "big") + payload
                packet = av.Packet(payload)
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = round(start_s * 1000)
                packet.duration = round(end_s * 1000) - packet.pts
                packets.append((packet.pts, at, packet))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 16000, 0
        for packet in [*sound.encode(frame), *sound.encode(None)]:
            out.mux(packet)
        for _, _, packet in sorted(packets, key=lambda entry: entry[:2]):
            out.mux(packet)
    return path
