"""Pictures, sound and subtitles of a video file, decoded with PyAV as a stream, one picture in memory at a time.

Of several streams of a kind the one is read that FFmpeg itself prefers: marked as default, then the highest bit rate.
All times are seconds from the file's own start. A file that is cut off or damaged gives what can still be decoded;
what was wrong goes as one line into `notes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trichord.captions import Captions, plain_text
from trichord.errors import TrichordError, one_line

if TYPE_CHECKING:
    from av.container import InputContainer

FRAME_WIDTH, FRAME_HEIGHT = 454, 256  # the picture size of the order study
SAMPLE_RATE_HZ = 16000
_EPSILON_S = 6e-4  # containers such as Matroska round times to milliseconds
_GAP_S = 0.1  # a longer hole between two audio frames is filled with silence
_BEYOND_S = 60.0  # a time stamp this far past the stated end is damaged
_TAIL_S = 1.0  # a video that ends this much before its stated end is noted as cut off


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. `duration_s` and `frame_rate_hz` are 0.0 and the sizes 0 where they do not apply."""

    duration_s: float
    width: int
    height: int
    frame_rate_hz: float
    has_video: bool
    has_audio: bool
    has_subtitles: bool


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    import av

    path = Path(path)
    if not path.is_file():
        raise TrichordError(f"{path}: no such file; check the path")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        what = f"cannot be opened as a video ({reason})"
        raise TrichordError(f"{path}: {what}; check that the file is complete") from None
    with container:
        yield container


def _stream(container: InputContainer, kind: Literal["video", "audio", "subtitle"]) -> Any:
    """The preferred stream of `kind` that can be decoded, or None. Cover pictures are not video."""
    stream = container.streams.best(kind)
    if stream is None or stream.codec_context is None:
        return None
    return None if "attached_pic" in str(stream.disposition) else stream


def _origin_s(container: InputContainer) -> float:
    return (container.start_time or 0) / 1e6


def _measured_duration_s(container: InputContainer, streams: list[Any]) -> float:
    """The end of the last packet, for files that do not state their length. Reads the file once, decodes nothing."""
    import av

    end_s = 0.0
    try:
        for packet in container.demux(streams):
            if packet.pts is not None and packet.time_base is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except av.FFmpegError:
        pass
    return max(end_s - _origin_s(container), 0.0)


def probe(path: str | Path) -> MediaInfo:
    """What `path` holds. Raises TrichordError if it is missing or no media file."""
    with _opened(path) as container:
        video, audio, text = _stream(container, "video"), _stream(container, "audio"), _stream(container, "subtitle")
        if container.duration:
            duration_s = container.duration / 1e6
        else:
            duration_s = _measured_duration_s(container, [s for s in (video, audio) if s is not None])
        rate = video.average_rate or video.guessed_rate if video else None
        return MediaInfo(
            duration_s=duration_s,
            width=video.width if video else 0,
            height=video.height if video else 0,
            frame_rate_hz=float(rate or 0.0),
            has_video=video is not None,
            has_audio=audio is not None,
            has_subtitles=text is not None,
        )


def _decoded(
    path: str | Path, container: InputContainer, stream: Any, notes: list[str] | None
) -> Iterator[tuple[float, Any]]:
    """(time_s, frame) of every frame of `stream` that decodes; damage is skipped and noted once."""
    import av

    stream.thread_type = "AUTO"
    origin_s, num_bad, last_s, cut = _origin_s(container), 0, 0.0, ""
    stated_s = container.duration / 1e6 if container.duration else 0.0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.FFmpegError as error:
            cut = one_line(error.strerror)
            break
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            num_bad += 1
            continue
        for frame in decoded:
            ticks = frame.pts if frame.pts is not None else frame.dts
            time_s = last_s + _duration_s(frame, stream)
            if ticks is not None:
                time_s = float(ticks * frame.time_base) - origin_s
            if stated_s and time_s > stated_s + _BEYOND_S:
                num_bad += 1
                continue
            last_s = time_s
            yield time_s, frame
    if stream.duration and stream.time_base:
        stated_s = min(stated_s or np.inf, float(stream.duration * stream.time_base))
    if notes is not None:
        if cut or last_s < stated_s - _TAIL_S:
            what = f"the {stream.type} ends at {last_s:.1f} s of {stated_s:.1f} s" + (f" ({cut})" if cut else "")
            notes.append(f"{path}: {what}; the rest is missing from the file")
        elif num_bad:
            notes.append(f"{path}: {num_bad} damaged {stream.type} packets skipped")


def frames(
    path: str | Path,
    *,
    rate_hz: float = 1.0,
    width: int = FRAME_WIDTH,
    height: int = FRAME_HEIGHT,
    notes: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Pictures of a video at a fixed rate, (height, width, 3) uint8 RGB, one at a time.

    Picture n is what the screen shows at n / rate_hz seconds: the latest decoded frame at or before that time (the
    first frame, if none is earlier). There is one picture for each started interval of the video, so even a 0.4 s
    video gives one. The picture is scaled (bicubic, as the ffmpeg tool does) without keeping its aspect, like the
    clips of the order study, and turned upright where the file says that it is rotated.
    Raises TrichordError if the file has no video stream or not one frame decodes.
    """
    with _opened(path) as container:
        stream = _stream(container, "video")
        if stream is None:
            raise TrichordError(f"{path}: has no video stream; remove it from the folder or replace it")
        shown, count, end_s = None, 0, 0.0
        for time_s, frame in _decoded(path, container, stream, notes):
            picture = None
            while shown is not None and count / rate_hz < time_s - _EPSILON_S:
                picture = _picture(shown, width, height) if picture is None else picture
                yield picture
                count += 1
            shown = frame
            end_s = time_s + _duration_s(frame, stream)
        if shown is None:
            raise TrichordError(f"{path}: not one picture can be decoded; replace the file")
        picture = _picture(shown, width, height)
        while count == 0 or count / rate_hz < end_s - _EPSILON_S:
            yield picture
            count += 1


def _duration_s(frame: Any, stream: Any) -> float:
    if stream.type == "audio":
        return frame.samples / frame.sample_rate
    if frame.duration:
        return float(frame.duration * frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def _picture(frame: Any, width: int, height: int) -> np.ndarray:
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise
    if quarter_turns % 2:
        width, height = height, width
    picture = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def waveform(path: str | Path, *, sample_rate_hz: int = SAMPLE_RATE_HZ, notes: list[str] | None = None) -> np.ndarray:
    """The sound of a file as mono float32 (N,) in [-1, 1]; sample i is heard at i / sample_rate_hz seconds.

    Sound that starts late or has holes is filled with silence there. A file without sound gives an empty array.
    """
    import av

    with _opened(path) as container:
        stream = _stream(container, "audio")
        if stream is None:
            return np.zeros(0, np.float32)
        pieces: list[np.ndarray] = []
        length, layout, resampler = 0, None, None

        def collect(frame: Any) -> None:
            nonlocal length
            if resampler is not None:
                for resampled in resampler.resample(frame):
                    pieces.append(resampled.to_ndarray().reshape(-1).astype(np.float32, copy=False))
                    length += pieces[-1].size

        for time_s, frame in _decoded(path, container, stream, notes):
            expected = (frame.format.name, frame.layout.name, frame.sample_rate)
            missing_s = time_s - length / sample_rate_hz
            if resampler is None or layout != expected or missing_s > _GAP_S:
                collect(None)
                resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate_hz)
                layout = expected
                num_silent = round((time_s - length / sample_rate_hz) * sample_rate_hz)
                if num_silent > 0:
                    pieces.append(np.zeros(num_silent, np.float32))
                    length += num_silent
            collect(frame)
        collect(None)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def subtitles(path: str | Path) -> Captions | None:
    """The captions of the preferred subtitle track, or None if the file has no subtitle track with text."""
    import av

    rows: list[tuple[float, float, str]] = []
    with _opened(path) as container:
        stream = _stream(container, "subtitle")
        if stream is None:
            return None
        origin_s = _origin_s(container)
        try:
            for packet in container.demux(stream):
                if packet.pts is None or packet.time_base is None:
                    continue
                start_s = float(packet.pts * packet.time_base) - origin_s
                end_s = start_s + float((packet.duration or 0) * packet.time_base)
                for subtitle in packet.decode():
                    dialogue = getattr(subtitle, "dialogue", b"").decode("utf-8", errors="replace")
                    if text := plain_text(dialogue.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")):
                        rows.append((start_s, end_s, text))
        except av.FFmpegError:  # a file that is cut off: what came before the cut is good
            pass
    return Captions.from_rows(rows) if rows else None
