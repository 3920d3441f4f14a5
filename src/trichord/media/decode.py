"""Opening of media files, and decoding of their frames as a stream.

All times are in seconds from the start of the file. If a file is truncated or damaged, the readable frames are decoded, and the
damage is described by one line in `notes`. Related modules select the streams (`streams`), place packets on a time line
(`timeline`), measure the duration (`length`), and decode pictures (`video`), sound (`audio`) and captions (`subtitles`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError, one_line
from trichord.files.faults import raise_fault, reason_of
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import unreadable
from trichord.media.clock import longest_s
from trichord.media.media_file import MediaFile
from trichord.media.streams import av_streams, choice_notes
from trichord.media.timeline import FrameTimes, Timeline, placed_packets

if TYPE_CHECKING:
    from av.container import InputContainer

FRAME_WIDTH, FRAME_HEIGHT = 454, 256  # the default size of pictures
SAMPLE_RATE_HZ = 16000
# Containers whose header states their duration.
_STATING = {"asf", "avi", "flac", "flv", "matroska", "mp4", "nut", "wav"}
_STATING_TRACKS = {"avi", "mp4"}  # containers whose header states the duration of every track
_TAIL_S = 1.0  # a stream that ends at least this much before its stated end is reported as truncated


# Formats of FFmpeg in which a file can refer to other files, servers or devices.
_OTHERS = {"concat", "dash", "hls", "image2", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub", "webm_dash_manifest"}
_OTHERS |= {"alsa", "avisynth", "fbdev", "imf", "kmsgrab", "oss", "vapoursynth", "video4linux2", "v4l2", "x11grab"}


@cache
def _formats() -> str:
    """Return the formats of FFmpeg that do not refer to other files, as a list for its option `format_whitelist`."""
    import av

    known = {name for names in av.formats_available for name in names.split(",")}
    return ",".join(sorted(known - _OTHERS))


@contextmanager
def opened(path: str | Path) -> Iterator[InputContainer]:
    """Open a media file.

    Args:
        path: Path of the file.

    Yields:
        The container.

    Raises:
        TrichordError: If the file is missing or not a media file.
        SystemFaultError: If the system failed to read the file, even if this is detected only at the end.
    """
    import av

    with closing(_opened_file(path)) as file:
        try:
            container = av.open(file, "r", options={"protocol_whitelist": "file", "format_whitelist": _formats()})
        except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
            file.raise_if_failed()
            raise_fault(path, error)
            problem = f"cannot be opened as a video ({reason_of(error)})"
            raise TrichordError(f"{path}: {problem}; check that the file is complete") from None
        try:
            with container:
                yield container
        except Exception:
            file.raise_if_failed()
            raise
        file.raise_if_failed()


def _opened_file(path: str | Path) -> MediaFile:
    refuse_lfs_pointer(path)
    try:
        return MediaFile(path)
    except OSError as error:
        raise_fault(path, error)
        raise unreadable(path, error) from None


def decoded(
    path: str | Path,
    container: InputContainer,
    stream: Any,
    notes: list[str] | None,
    num_threads: int | None = None,
    *,
    sought: bool = False,
) -> Iterator[tuple[float, Any]]:
    """Iterate over the frames of a stream that can be decoded, from the current position of the container.

    Times are on the time line of the file (`media.timeline`), and those of pictures increase. Damage is skipped and noted once,
    when the stream is exhausted or closed. A time counts as damaged if it is more than an hour after all earlier packets, or
    later than the maximum plausible duration of the file.

    Args:
        path: Path of the file, for messages.
        container: Open container.
        stream: Stream to decode.
        notes: List to which notes about damage are appended.
        num_threads: Number of threads of the decoder. None leaves it to FFmpeg.
        sought: Whether the container is not at its beginning.

    Yields:
        The time in seconds and the frame.

    Raises:
        TrichordError: If the video is encrypted.
        SystemFaultError: If the system failed to read the file, which is not damage of the file.
    """
    import av

    stream.thread_type = "AUTO"
    if num_threads is not None:
        stream.codec_context.thread_count = num_threads
    kind, choices = stream.type, choice_notes(container)
    streams = {each.index: each for each in [*av_streams(container), stream]}
    timeline = Timeline(container, list(streams), sought)
    times, start_s, latest_s = (
        FrameTimes(kind == "video", stream.start_time),
        timeline.origin_s,
        longest_s(container.size),
    )
    if kind == "video" and stream.time_base:
        start_s = float(
            round(start_s / stream.time_base) * stream.time_base
        )  # an integer number of ticks, as in the tools of FFmpeg
    stated_s, stream_end_s = _stated_ends_s(container, stream, start_s)
    num_bad, end_s, read_error, is_exhausted, is_first = 0, 0.0, "", False, True
    packets = placed_packets(container, list(streams.values()), timeline)
    try:
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise_fault(path, error)
                read_error = one_line(error.strerror)
                break
            if packet.stream.index != stream.index:
                continue
            if is_first and packet.has_sidedata("encryption_info"):
                problem = f"its {'video' if kind == 'video' else 'sound'} is encrypted; get the file without encryption"
                if kind == "video":
                    raise TrichordError(f"{path}: {problem}")
                choices = [*choices, problem]
                break
            is_first = False
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                raise_fault(path, error)
                num_bad += 1
                continue
            for frame in frames:
                length_s = duration_s_of(frame, stream)
                base = frame.time_base
                time_s = seconds(times.ticks_of(frame, length_s, base), base) - start_s
                if time_s > latest_s or timeline.is_beyond(time_s):
                    num_bad += 1
                    continue
                end_s = max(end_s, time_s + length_s)
                yield time_s, frame
        is_exhausted = not is_first
    finally:
        if notes is not None:  # the stream is not used here, because its container may be closed already
            is_short = end_s < stream_end_s - _TAIL_S or timeline.end_s + max(start_s, 0.0) < stated_s - _TAIL_S
            lines = [*choices, *timeline.notes()]
            if is_exhausted and (read_error or (is_short and not timeline.num_jumps)):
                full_s = stream_end_s or stated_s
                problem = (
                    f"the {kind} ends at {end_s:.1f} s"
                    + (f" of {full_s:.1f} s" if full_s else "")
                    + (f" ({read_error})" if read_error else "")
                )
                lines.append(f"{problem}; the rest is missing from the file")
            elif num_bad:
                lines.append(f"{num_bad} damaged {kind} packets skipped")
            notes += [note for line in lines if (note := f"{path}: {line}") not in notes]


def _stated_ends_s(container: InputContainer, stream: Any, start_s: float) -> tuple[float, float]:
    """Return the ends of the file and of the stream that the container states, or 0.0 if it does not state them.

    The durations that FFmpeg estimates for other containers are not used.
    """
    names = set(container.format.name.split(","))
    stated_s = (container.duration or 0) / 1e6 if names & _STATING else 0.0
    stated_s = stated_s if stated_s <= longest_s(container.size) else 0.0
    if not stated_s or not names & _STATING_TRACKS or not stream.duration or not stream.time_base:
        return stated_s, 0.0
    begin = (stream.start_time or 0) if stream.frames else 0  # FFmpeg counts the duration of a fragmented MP4 from 0
    end_s = float((begin + stream.duration) * stream.time_base) - start_s
    return stated_s, min(end_s, stated_s)


def duration_s_of(frame: Any, stream: Any) -> float:
    """Return the duration of a frame.

    Args:
        frame: Frame.
        stream: Stream of the frame.

    Returns:
        The duration in seconds. If the file does not state that of a picture, it is one interval of the average rate.
    """
    if stream.type == "audio":
        return frame.samples / frame.sample_rate
    if frame.duration:
        return seconds(frame.duration, frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def seconds(ticks: float, base: Fraction) -> float:
    """Convert ticks to seconds, as `float(ticks * base)` does, but without computing a fraction.

    Args:
        ticks: Number of ticks.
        base: Duration of a tick in seconds.

    Returns:
        The seconds.
    """
    return ticks * base.numerator / base.denominator if isinstance(ticks, int) else ticks * float(base)
