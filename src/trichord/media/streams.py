"""Selection of the streams of a container: streams that FFmpeg can decode, and sound of the same program as the pictures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from trichord.errors import TrichordError

if TYPE_CHECKING:
    from av.container import InputContainer

Kind = Literal["video", "audio", "subtitle"]
_KINDS: tuple[Kind, ...] = ("video", "audio")
_STREAM_LINE = r"^\s*Stream #0:{index}\b.*?: (?:Video|Audio|Subtitle): ([\w.-]+)"


def stream_of(container: InputContainer, kind: Kind) -> Any:
    """Select a stream of a container. Cover pictures are not video.

    The stream that FFmpeg prefers is selected (streams marked as default, then the highest bit rate). Sound is first searched for
    in the program of the pictures. If FFmpeg cannot decode the stream, another one of the same kind is selected.

    Args:
        container: Open container.
        kind: "video", "audio" or "subtitle".

    Returns:
        The stream, or None.
    """
    best = container.streams.best(kind, related=stream_of(container, "video") if kind == "audio" else None)
    if best is None or _is_readable(best):
        return best
    return max((s for s in _streams(container, kind) if _is_readable(s)), key=_rank, default=None)


def av_streams(container: InputContainer) -> list[Any]:
    """Return the selected video and audio streams, which determine the clock of the file.

    Args:
        container: Open container.

    Returns:
        Up to two streams.
    """
    return [stream for kind in _KINDS if (stream := stream_of(container, kind)) is not None]


def origin_s(container: InputContainer) -> float:
    """Return the start of a file on the clock of its container. All times are relative to it.

    Each program of a transport stream has its own clock, so it is the start of the program that is read.

    Args:
        container: Open container.

    Returns:
        The start in seconds.
    """
    if len(container.streams.video) > 1 and "mpegts" in container.format.name:
        read = [s for s in av_streams(container) if s.start_time is not None]
        if read:
            return min(float(stream.start_time * stream.time_base) for stream in read)
    return (container.start_time or 0) / 1e6


def undecodable(container: InputContainer, kind: Kind) -> list[str]:
    """Return the names of the codecs in a file that FFmpeg cannot decode.

    Args:
        container: Open container.
        kind: "video", "audio" or "subtitle".

    Returns:
        Sorted names of codecs.
    """
    indices = [stream.index for stream in _streams(container, kind) if stream.codec_context is None]
    if not indices:
        return []
    text = _dumped(container)
    names = [re.search(_STREAM_LINE.format(index=index), text, re.MULTILINE) for index in indices]
    return sorted({"unknown" if m is None or m[1] in ("none", "unknown") else m[1] for m in names})


def video_of(container: InputContainer, path: object) -> Any:
    """Return the selected video stream.

    Args:
        container: Open container.
        path: Path of the file, for messages.

    Returns:
        The stream.

    Raises:
        TrichordError: If there is no video stream that can be decoded.
    """
    stream = stream_of(container, "video")
    if stream is None:
        raise TrichordError(f"{path}: {no_video(container)}")
    return stream


def no_video(container: InputContainer) -> str:
    """Return the reason why no video can be read from a file, and the next action."""
    if names := undecodable(container, "video"):
        return f"its video codec ({names[0]}) cannot be decoded by this version of FFmpeg; convert the file to another codec"
    return "has no video stream; remove it from the folder or replace it"


def no_sound(container: InputContainer) -> str:
    """Return the reason why no sound can be read from a file."""
    if names := undecodable(container, "audio"):
        return f"its audio codec ({names[0]}) cannot be decoded by this version of FFmpeg"
    return "has no sound"


def choice_notes(container: InputContainer) -> list[str]:
    """Return notes about tracks that cannot be decoded and programs of a transport stream that are not read."""
    notes = []
    for kind in _KINDS:
        chosen = stream_of(container, kind)
        if chosen is not None and (names := undecodable(container, kind)):
            other = f"track {chosen.index} ({chosen.codec_context.name}) is read"
            notes.append(
                f"the {kind} codec of one track ({names[0]}) cannot be decoded by this version of FFmpeg; {other}"
            )
    if len(programs := _programs(container)) > 1:
        read = {stream.index for stream in av_streams(container)}
        name, indices = max(programs, key=lambda program: len(read & program[1]))
        streams_read = (
            "pictures and sound" if len(read & indices) > 1 else "pictures" if read & indices else "no stream"
        )
        others = ", ".join(other for other, _ in programs if other != name)
        notes.append(
            f"it contains {len(programs)} programs; read: {streams_read} of program {name}; not read: {others}"
        )
    return notes


def _streams(container: InputContainer, kind: Kind) -> list[Any]:
    return [stream for stream in container.streams if stream.type == kind]


def _is_readable(stream: Any) -> bool:
    from av.stream import Disposition

    return stream.codec_context is not None and Disposition.attached_pic not in stream.disposition


def _rank(stream: Any) -> tuple[bool, int, int]:
    from av.stream import Disposition

    return Disposition.default in stream.disposition, stream.codec_context.bit_rate or 0, -stream.index


def _programs(container: InputContainer) -> list[tuple[str, set[int]]]:
    """Return the name and stream indices of each program of a transport stream that has pictures or sound."""
    kinds = [stream.type for stream in container.streams]
    if "mpegts" not in container.format.name or max(kinds.count("video"), kinds.count("audio")) < 2:
        return []
    programs: list[tuple[str, set[int]]] = []
    for line in _dumped(container).splitlines():
        if start := re.match(r"\s*Program (\d+)", line):
            programs.append((start[1], set()))
        elif re.match(r"\s*No Program", line):
            programs.append(("", set()))
        elif programs and (title := re.match(r"\s*service_name\s*:\s*(\S.*)", line)):
            programs[-1] = (f"{programs[-1][0]} ({title[1].strip()[:30]})", programs[-1][1])
        elif programs and (stream := re.match(r"\s*Stream #0:(\d+).*: (?:Video|Audio): ", line)):
            programs[-1][1].add(int(stream[1]))
    return [(name, indices) for name, indices in programs if name and indices]


def _dumped(container: InputContainer) -> str:
    """Return FFmpeg's description of the file. Unlike PyAV, it lists programs and the codecs without a decoder."""
    import av.logging

    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        return str(container.dumps_format())  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(level)
