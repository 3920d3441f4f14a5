"""What a media file holds and how long it lasts, also where its header says nothing or something wrong."""

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

COUNTED = {"matroska", "mp4"}  # containers whose header states their length, and which can be read from any place
_EXACT = {"wav", "w64", "flac", "aiff", "au", "caf"}  # containers of sound whose times are counted, not stamped
_STREAMED = {"flac"}  # of these, one whose parts say where they lie, so that they can be joined and cut
_AGREES_S = 1.0  # a stated length that differs by less is kept
_OVERLAP_S = 0.2  # sound that holds this much more than its stamps leave room for overlaps
_TAIL_S = 1.0  # how far before the stated end a check of the end begins


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. `duration_s` and `frame_rate_hz` are 0.0 and the sizes 0 where they do not apply.

    `no_video`, `no_audio`: why there are no pictures, or no sound; empty where there are.
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
    """How long a file lasts, and whether its clock goes on without a jump from its beginning to its stated end."""

    duration_s: float
    is_plain: bool


def probe(path: str | Path) -> MediaInfo:
    """What `path` holds. Raises TrichordError if it is missing or no media file."""
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
    """Whether version 2 of the clock's rules (`timeline.CLOCK_RULES`) can give other results for a file than version 1.

    Reads the header, and of Matroska and MP4 the end of the file. False is said of sound that is counted (WAV, FLAC, ...), and of
    Matroska and MP4 whose end lies where the header states it, without a jump on the way there that the header shows, with
    one stream of either kind or ones that were chosen before too. Not seen without reading all of a file: single stamps of a
    Matroska file that overlap, leap and return. Raises TrichordError if the file is missing or no media file.
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
    """The length of a file as its packets have it. Remembered, since files are often opened for many clips.

    Of Matroska and MP4 only the end is read, others are read once as a whole; nothing is decoded.
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
    """Of a Matroska or MP4 file: the stated length, and whether what lies at the end of the file agrees with it."""
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
        )  # it has a key frame everywhere
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
    """The stated length of a file that ends at `end_s`, counted from its own start.

    Matroska, and MP4 in fragments, may state the last time stamp instead, though the clock does not begin at 0: recordings of
    live streams do.
    """
    begin_s = origin_s(container)
    counts_from_zero = begin_s > _AGREES_S and abs(stated_s - begin_s - end_s) <= _AGREES_S
    return stated_s - begin_s if counts_from_zero else stated_s


def _run(container: InputContainer, sought: bool = False) -> Timeline:
    """Read all packets of the file and return its timeline."""
    import av

    streams = av_streams(container)
    timeline = Timeline(container, [stream.index for stream in streams], sought)
    try:
        for _ in placed_packets(container, streams, timeline) if streams else ():
            pass
    except av.FFmpegError as error:  # a file that is cut off: what came before the cut counts
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
    """Whether the packets of an MP4's sound hold more samples than their stamps leave room for."""
    sound = stream_of(container, "audio")
    if sound is None or not sound.frames or not sound.duration or not sound.codec_context.frame_size:
        return False
    held_s = sound.frames * sound.codec_context.frame_size / sound.codec_context.sample_rate
    return bool(held_s - float(sound.duration * sound.time_base) > _OVERLAP_S)
