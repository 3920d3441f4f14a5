"""What a media file holds, and its frames as a stream: opening, choosing a stream, decoding past damage.

Of several streams of a kind the one is read that FFmpeg itself prefers: marked as default, then the highest bit rate.
All times are seconds from the file's own start. A file that is cut off or damaged gives what can still be decoded;
what was wrong goes as one line into `notes`. Pictures are in `video`, sound in `audio`, captions in
`subtitles`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trichord.errors import TrichordError, one_line
from trichord.faults import raise_fault, reason_of
from trichord.files.reading import unreadable
from trichord.media.clock import LEAP_S, longest_s
from trichord.media.media_file import MediaFile

if TYPE_CHECKING:
    from av.container import InputContainer

FRAME_WIDTH, FRAME_HEIGHT = 454, 256  # the picture size of the order study
SAMPLE_RATE_HZ = 16000
_BEYOND_S = 60.0  # a time stamp this far past the stated end is damaged
_TAIL_S = 1.0  # a stream that ends this much before its stated end is noted as cut off


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


# What FFmpeg would let a file name other files, servers or devices to be read in its place.
_OTHERS = {"concat", "dash", "hls", "image2", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub", "webm_dash_manifest"}
_OTHERS |= {"alsa", "avisynth", "fbdev", "imf", "kmsgrab", "oss", "vapoursynth", "video4linux2", "v4l2", "x11grab"}


@cache
def _formats() -> str:
    """FFmpeg's formats that hold what they show, as it wants a list of them."""
    import av

    known = {name for names in av.formats_available for name in names.split(",")}
    return ",".join(sorted(known - _OTHERS))


@contextmanager
def opened(path: str | Path) -> Iterator[InputContainer]:
    """The container of `path`.

    Raises TrichordError if it is missing or no media file, SystemFaultError if the system kept it from being read, also when
    that shows only at the end.
    """
    import av

    with _opened_file(path) as file:
        try:
            container = av.open(file, "r", options={"protocol_whitelist": "file", "format_whitelist": _formats()})
        except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
            file.raise_if_failed()
            raise_fault(path, error)
            what = f"cannot be opened as a video ({reason_of(error)})"
            raise TrichordError(f"{path}: {what}; check that the file is complete") from None
        try:
            with container:
                yield container
        except Exception:
            file.raise_if_failed()
            raise
        file.raise_if_failed()


def _opened_file(path: str | Path) -> MediaFile:
    try:
        return MediaFile(path)
    except OSError as error:
        raise_fault(path, error)
        raise unreadable(path, error) from None


def stream_of(container: InputContainer, kind: Literal["video", "audio", "subtitle"]) -> Any:
    """The preferred stream of `kind` that can be decoded, or None. Cover pictures are not video."""
    from av.stream import Disposition

    stream = container.streams.best(kind)
    if stream is None or stream.codec_context is None or Disposition.attached_pic in stream.disposition:
        return None
    return stream


def origin_s(container: InputContainer) -> float:
    """The file's own start, from which all times count, as the container has it."""
    return (container.start_time or 0) / 1e6


def _measured_duration_s(container: InputContainer, streams: list[Any]) -> float:
    """The end of the last packet, for files that do not state their length. Reads the file once, decodes nothing."""
    import av

    end_s = 0.0
    try:
        for packet in container.demux(streams):
            if packet.pts is not None and packet.time_base is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except av.FFmpegError as error:  # a file that is cut off: what came before the cut counts
        raise_fault(container.name, error)
    return max(end_s - origin_s(container), 0.0)


def probe(path: str | Path) -> MediaInfo:
    """What `path` holds. Raises TrichordError if it is missing or no media file."""
    with opened(path) as container:
        video, audio, text = (stream_of(container, kind) for kind in ("video", "audio", "subtitle"))
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


def decoded(
    path: str | Path,
    container: InputContainer,
    stream: Any,
    notes: list[str] | None,
    num_threads: int | None = None,
    *,
    sought: bool = False,
) -> Iterator[tuple[float, Any]]:
    """(time_s, frame) of every frame of `stream` that decodes, from where the container stands on.

    Damage is skipped and noted once, when the stream is used up or closed. A time stamp is damaged that lies a minute past
    the end that the file states, an hour past the frame before it, or later than a file of that size lasts. `num_threads`
    None leaves the number to FFmpeg; `sought`: the container does not stand at its beginning.

    Raises SystemFaultError for what the system failed to do, which is no damage.
    """
    import av

    stream.thread_type = "AUTO"
    if num_threads is not None:
        stream.codec_context.thread_count = num_threads
    start_s, num_bad, last_s, cut, is_through = origin_s(container), 0, 0.0, "", False
    if stream.type == "video" and stream.time_base:
        start_s = float(round(start_s / stream.time_base) * stream.time_base)  # whole ticks, as FFmpeg's own tools do
    stated_s = container.duration / 1e6 if container.duration else 0.0
    latest_s = min(stated_s + _BEYOND_S if stated_s else math.inf, longest_s(container.size))
    leap_from_s = math.inf if sought else 0.0
    stream_end_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else stated_s
    kind, packets = stream.type, container.demux(stream)
    try:
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise_fault(path, error)
                cut = one_line(error.strerror)
                break
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                raise_fault(path, error)
                num_bad += 1
                continue
            for frame in frames:
                ticks = frame.pts if frame.pts is not None else frame.dts
                time_s = last_s + duration_s_of(frame, stream)
                if ticks is not None:
                    time_s = float(ticks * frame.time_base) - start_s
                if time_s > latest_s or time_s > leap_from_s + LEAP_S:
                    num_bad += 1
                    continue
                last_s = leap_from_s = time_s
                yield time_s, frame
        is_through = True
    finally:
        if notes is not None:  # nothing of the stream is touched here: its container may be closed by now
            end_s = min(stated_s or stream_end_s, stream_end_s)
            if is_through and (cut or last_s < end_s - _TAIL_S):
                what = f"the {kind} ends at {last_s:.1f} s of {end_s:.1f} s" + (f" ({cut})" if cut else "")
                notes.append(f"{path}: {what}; the rest is missing from the file")
            elif num_bad:
                notes.append(f"{path}: {num_bad} damaged {kind} packets skipped")


def duration_s_of(frame: Any, stream: Any) -> float:
    """How long a frame lasts; for pictures whose file does not say, one interval of the average rate."""
    if stream.type == "audio":
        return frame.samples / frame.sample_rate
    if frame.duration:
        return float(frame.duration * frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.0
