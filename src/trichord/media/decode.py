"""The frames of a media file as a stream: opening, decoding past damage.

All times are seconds from the file's own start. A file that is cut off or damaged gives what can still be decoded; what was
wrong goes as one line into `notes`. Which streams are read is in `streams`, their clock in `timeline`, the length of the
file in `length`; pictures are in `video`, sound in `audio`, captions in `subtitles`.
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

FRAME_WIDTH, FRAME_HEIGHT = 454, 256  # the picture size of the order study
SAMPLE_RATE_HZ = 16000
_STATING = {"asf", "avi", "flac", "flv", "matroska", "mp4", "nut", "wav"}  # containers whose header states their length
_STATING_TRACKS = {"avi", "mp4"}  # containers whose header states the length of every track
_TAIL_S = 1.0  # a stream that ends this much before its stated end is noted as cut off


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

    with closing(_opened_file(path)) as file:
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
    """(time_s, frame) of every frame of `stream` that decodes, from where the container stands on.

    Times are on the file's time line (`media.timeline`); those of pictures ascend. Damage is skipped and noted once, when the
    stream is used up or closed. A time is damaged that lies an hour past all packets before it, or later than a file of that
    size lasts. `num_threads` None leaves the number to FFmpeg; `sought`: the container does not stand at its beginning.

    Raises SystemFaultError for what the system failed to do, which is no damage.
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
        start_s = float(round(start_s / stream.time_base) * stream.time_base)  # whole ticks, as FFmpeg's own tools do
    stated_s, stream_end_s = _stated_ends_s(container, stream, start_s)
    num_bad, end_s, cut, is_through, is_first = 0, 0.0, "", False, True
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
                cut = one_line(error.strerror)
                break
            if packet.stream.index != stream.index:
                continue
            if is_first and packet.has_sidedata("encryption_info"):
                what = f"its {'video' if kind == 'video' else 'sound'} is encrypted; get the file without encryption"
                if kind == "video":
                    raise TrichordError(f"{path}: {what}")
                choices = [*choices, what]
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
        is_through = not is_first
    finally:
        if notes is not None:  # nothing of the stream is touched here: its container may be closed by now
            is_short = end_s < stream_end_s - _TAIL_S or timeline.end_s + max(start_s, 0.0) < stated_s - _TAIL_S
            lines = [*choices, *timeline.notes()]
            if is_through and (cut or (is_short and not timeline.num_jumps)):
                whole_s = stream_end_s or stated_s
                what = (
                    f"the {kind} ends at {end_s:.1f} s"
                    + (f" of {whole_s:.1f} s" if whole_s else "")
                    + (f" ({cut})" if cut else "")
                )
                lines.append(f"{what}; the rest is missing from the file")
            elif num_bad:
                lines.append(f"{num_bad} damaged {kind} packets skipped")
            notes += [note for line in lines if (note := f"{path}: {line}") not in notes]


def _stated_ends_s(container: InputContainer, stream: Any, start_s: float) -> tuple[float, float]:
    """Where the file, and the stream, end by what the container states; 0.0 where it does not (FFmpeg may still guess it)."""
    names = set(container.format.name.split(","))
    stated_s = (container.duration or 0) / 1e6 if names & _STATING else 0.0
    stated_s = stated_s if stated_s <= longest_s(container.size) else 0.0
    if not stated_s or not names & _STATING_TRACKS or not stream.duration or not stream.time_base:
        return stated_s, 0.0
    begin = (stream.start_time or 0) if stream.frames else 0  # of an MP4 in fragments, FFmpeg counts the length from 0
    end_s = float((begin + stream.duration) * stream.time_base) - start_s
    return stated_s, min(end_s, stated_s)


def duration_s_of(frame: Any, stream: Any) -> float:
    """How long a frame lasts; for pictures whose file does not say, one interval of the average rate."""
    if stream.type == "audio":
        return frame.samples / frame.sample_rate
    if frame.duration:
        return seconds(frame.duration, frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def seconds(ticks: float, base: Fraction) -> float:
    """`float(ticks * base)`, without making a fraction of it."""
    return ticks * base.numerator / base.denominator if isinstance(ticks, int) else ticks * float(base)
