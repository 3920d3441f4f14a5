"""The contents and the duration of a media file, even if its header does not state them correctly."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.files.faults import raise_fault
from trichord.media.clock import LEAP_S, longest_s
from trichord.media.decode import opened
from trichord.media.streams import av_streams, choice_notes, no_sound, no_video, origin_s, stream_of
from trichord.media.timeline import Timeline, placed_packets

if TYPE_CHECKING:
    from av.container import InputContainer

COUNTED = {"matroska", "mp4"}  # containers whose header states their duration, and which can be read from any position
# Containers of sound without timestamps, whose samples are counted.
_EXACT = {"wav", "w64", "flac", "aiff", "au", "caf"}
_STREAMED = {"flac"}  # the one of these whose blocks state their position, so that files can be joined and cut
_AGREES_S = 1.0  # a stated duration is kept if it differs by less than this
_OVERLAP_S = 0.2  # sound overlaps if its samples last this much longer than its timestamps allow
_TAIL_S = 1.0  # a check of the end begins this far before the stated end


@dataclass(frozen=True)
class MediaInfo:
    """The contents of a media file. Values that do not apply are 0.

    Attributes:
        duration_s: Duration in seconds.
        width: Width of the pictures in pixels.
        height: Height of the pictures in pixels.
        frame_rate_hz: Frames per second.
        has_video: Whether the file has pictures that can be decoded.
        has_audio: Whether the file has sound that can be decoded.
        has_subtitles: Whether the file has a subtitle track.
        no_video: Reason why there are no pictures, or an empty string.
        no_audio: Reason why there is no sound, or an empty string.
    """

    duration_s: float
    width: int
    height: int
    frame_rate_hz: float
    has_video: bool
    has_audio: bool
    has_subtitles: bool
    no_video: str = ""
    no_audio: str = ""


@dataclass(frozen=True)
class Span:
    """The duration of a file.

    Attributes:
        duration_s: Duration in seconds.
        is_plain: Whether the clock runs without a jump from the beginning to the stated end.
    """

    duration_s: float
    is_plain: bool


def probe(path: str | Path) -> MediaInfo:
    """Return the contents of a media file.

    Args:
        path: Path of the file.

    Returns:
        The contents.

    Raises:
        TrichordError: If the file is missing or not a media file.
    """
    with opened(path) as container:
        video, audio, text = (stream_of(container, kind) for kind in ("video", "audio", "subtitle"))
        rate = video.average_rate or video.guessed_rate if video else None
        return MediaInfo(
            duration_s=span_of(path).duration_s,
            width=video.width if video else 0,
            height=video.height if video else 0,
            frame_rate_hz=float(rate or 0.0),
            has_video=video is not None,
            has_audio=audio is not None,
            has_subtitles=text is not None,
            no_video="" if video is not None else no_video(container),
            no_audio="" if audio is not None else no_sound(container),
        )


def clock_can_differ(path: str | Path) -> bool:
    """Return whether version 2 of the clock rules (`timeline.CLOCK_RULES`) can give other results for a file than version 1.

    The function reads the header and, for Matroska and MP4, the end of the file. It returns False for sound without timestamps
    (WAV, FLAC, ...), and for Matroska and MP4 files whose end agrees with the header, whose index shows no jump, and whose
    streams are selected in the same way by both versions. It does not detect single timestamps of a Matroska file that overlap or
    leap and return, because this would require reading the whole file.

    Args:
        path: Path of the file.

    Returns:
        Whether the results can differ.

    Raises:
        TrichordError: If the file is missing or not a media file.
    """
    with opened(path) as container:
        names = set(container.format.name.split(","))
        if names & _EXACT:
            return False
        if not names & COUNTED or not container.duration or choice_notes(container) or _sound_overlaps(container):
            return True
        if origin_s(container) > _AGREES_S:
            return True
    return not _span_at_the_end(path).is_plain


def span_of(path: str | Path) -> Span:
    """Return the duration of a file according to its packets. It is cached, because files are often opened for many clips.

    Only the end of Matroska and MP4 files is read. Other files are read as a whole once. Nothing is decoded.

    Args:
        path: Path of the file.

    Returns:
        The duration.
    """
    try:
        state = os.stat(path)
    except OSError:
        return _measured(path)
    return _remembered(
        os.path.abspath(path), (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    )


@lru_cache(maxsize=256)
def _remembered(path: str, state: tuple[int, ...]) -> Span:
    return _measured(path)


def _measured(path: str | Path) -> Span:
    with opened(path) as container:
        names = set(container.format.name.split(","))
        stated_s = (container.duration or 0) / 1e6
        if stated_s and names & _EXACT - _STREAMED:
            return Span(stated_s, True)
    if stated_s and names & COUNTED:
        span = _span_at_the_end(path)
        if span.is_plain:
            return span
    with opened(path) as container:
        timeline = _run(container)
        stated_s = _from_start_s(container, stated_s, timeline.end_s)
        is_kept = not timeline.num_jumps and stated_s <= longest_s(container.size)
    is_kept = is_kept and (
        abs(stated_s - timeline.end_s) <= _AGREES_S or bool(names & COUNTED and timeline.end_s < stated_s)
    )
    return Span(stated_s if stated_s and is_kept else max(timeline.end_s, 0.0), not timeline.num_jumps)


def _span_at_the_end(path: str | Path) -> Span:
    """Return the stated duration of a Matroska or MP4 file, and whether the end of the file agrees with it."""
    import av

    with opened(path) as container:
        stated_s = (container.duration or 0) / 1e6
        if _leaps(container):
            return Span(stated_s, False)
        begin_s = origin_s(container)
        tail_s = max(stated_s - _TAIL_S, begin_s if begin_s > _AGREES_S else 0.0)
        begin = int(tail_s * 1e6) + (0 if begin_s > _AGREES_S else container.start_time or 0)
        sound = (
            stream_of(container, "audio") if "mp4" in container.format.name else None
        )  # every frame of sound is a key frame
        try:
            if sound is not None:
                container.seek(int(begin / 1e6 / sound.time_base), stream=sound)
            else:
                container.seek(begin)
        except (av.FFmpegError, OverflowError) as error:
            if isinstance(error, av.FFmpegError):
                raise_fault(path, error)
            return Span(stated_s, not stated_s > longest_s(container.size))
        timeline = _run(container, sought=True)
        stated_s = _from_start_s(container, stated_s, timeline.end_s)
        return Span(stated_s, not timeline.num_jumps and timeline.end_s <= stated_s + _AGREES_S)


def _from_start_s(container: InputContainer, stated_s: float, end_s: float) -> float:
    """Return the stated duration of a file that ends at `end_s`, relative to its start.

    Matroska and fragmented MP4 files may state the last timestamp instead, even though the clock does not begin at 0, as in
    recordings of live streams.
    """
    begin_s = origin_s(container)
    counts_from_zero = begin_s > _AGREES_S and abs(stated_s - begin_s - end_s) <= _AGREES_S
    return stated_s - begin_s if counts_from_zero else stated_s


def _run(container: InputContainer, sought: bool = False) -> Timeline:
    """Read all packets of a file, and return its time line."""
    import av

    streams = av_streams(container)
    timeline = Timeline(container, [stream.index for stream in streams], sought)
    try:
        for _ in placed_packets(container, streams, timeline) if streams else ():
            pass
    except av.FFmpegError as error:  # the packets before the end of a truncated file count
        raise_fault(container.name, error)
    return timeline


def _leaps(container: InputContainer) -> bool:
    """Return whether the index shows a jump of the clock. Only files longer than an hour and fragmented MP4 are checked."""
    lasts_s, streams = (container.duration or 0) / 1e6, av_streams(container)
    is_fragmented = "mp4" in container.format.name and not any(stream.frames for stream in streams)
    if not lasts_s or (lasts_s <= LEAP_S and not is_fragmented):
        return False
    if lasts_s > longest_s(container.size):
        return True
    for stream in streams:
        leap = LEAP_S / stream.time_base
        stamps = [entry.timestamp for entry in stream.index_entries]
        if any(not 0 <= after - before <= leap for before, after in zip(stamps, stamps[1:], strict=False)):
            return True
    return False


def _sound_overlaps(container: InputContainer) -> bool:
    """Return whether the packets of the sound of an MP4 contain more samples than their timestamps allow."""
    sound = stream_of(container, "audio")
    if sound is None or not sound.frames or not sound.duration or not sound.codec_context.frame_size:
        return False
    samples_s = sound.frames * sound.codec_context.frame_size / sound.codec_context.sample_rate
    return bool(samples_s - float(sound.duration * sound.time_base) > _OVERLAP_S)
