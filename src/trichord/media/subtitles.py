"""Reading of captions from the subtitle tracks of a media file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.captions.formats.ass import cue_of_event
from trichord.captions.formats.cues import cue_of
from trichord.captions.languages import language_of
from trichord.captions.model import Captions, Cue
from trichord.captions.rolling import merged
from trichord.errors import TrichordError
from trichord.files.faults import raise_fault
from trichord.media.decode import opened
from trichord.media.streams import av_streams, stream_of
from trichord.media.timeline import Timeline, placed_packets

if TYPE_CHECKING:
    from av.container import InputContainer

# Codecs whose packets contain the same text of a cue as caption files.
_PLAIN_TEXT = ("webvtt", "subrip", "srt", "text")
_MP4_BOXES = (b"vttc", b"vtte", b"vttx")


def subtitles(path: str | Path, notes: list[str] | None = None) -> Captions | None:
    """Read the captions of a subtitle track.

    Tracks of pictures are not read. Complete tracks are preferred to forced ones, then tracks in the language of the sound, then
    tracks marked as default, then earlier tracks. Tracks without words are skipped.

    Args:
        path: Path of the media file.
        notes: List to which a note about the selected and the other tracks is appended if there are several tracks, or if no
            track has text.

    Returns:
        The captions, or None if no track has text.

    Raises:
        TrichordError: If the file is missing or not a media file.
    """
    with opened(path) as container:
        tracks = _ranked(container)
        described = [_described(stream) for stream in tracks]
        indices = [stream.index for stream in tracks if not _is_pictures(stream)]
    chosen, captions = None, Captions.empty()
    for at, index in enumerate(indices):
        with opened(path) as container:
            cues = list(_cues(container, container.streams[index]))
        captions = merged(cue for cue in cues if cue.lines)
        if len(captions):
            chosen = at
            break
    if notes is not None and tracks and (chosen is None or len(tracks) > 1):
        others = [name for at, name in enumerate(described) if at != chosen]
        if chosen is None and not indices:
            note = f"its subtitles are pictures, which are not read: {', '.join(others)}"
        elif chosen is None:
            note = f"its subtitle tracks have no text: {', '.join(others)}"
        else:
            note = f"captions are read from subtitle track {described[chosen]}; not read: {', '.join(others)}"
        notes.append(f"{path}: {note}")
    return captions if chosen is not None else None


def sound_language(path: str | Path) -> str:
    """Return the language of the sound of a file.

    Args:
        path: Path of the media file.

    Returns:
        The short code of the language, or an empty string if the file does not state it or cannot be read.
    """
    try:
        with opened(path) as container:
            return _sound_language(container)
    except TrichordError:
        return ""


def _sound_language(container: InputContainer) -> str:
    sound = stream_of(container, "audio")
    return language_of(sound.language or "") if sound is not None else ""


def _ranked(container: InputContainer) -> list[Any]:
    """Return the subtitle tracks that can be decoded, with the best track first."""
    from av.stream import Disposition

    spoken = _sound_language(container)

    def rank(stream: Any) -> tuple[object, ...]:
        title, flags = _title(stream).lower(), stream.disposition
        return (
            _is_pictures(stream),
            Disposition.forced in flags or any(word in title for word in ("forced", "sign", "song")),
            Disposition.comment in flags or "commentary" in title,
            bool(spoken) and language_of(stream.language or "") != spoken,
            Disposition.default not in flags,
            stream.index,
        )

    tracks: list[Any] = [stream for stream in container.streams.subtitles if stream.codec_context is not None]
    return sorted(tracks, key=rank)


def _is_pictures(stream: Any) -> bool:
    return bool(stream.codec_context.codec.bitmap_sub)


def _title(stream: Any) -> str:
    return str(stream.metadata.get("title", ""))


def _described(stream: Any) -> str:
    named = [name for name in (stream.language or "", stream.codec_context.codec.name, _title(stream)[:30]) if name]
    return f"{stream.index} ({', '.join(named)})"


def _cues(container: InputContainer, stream: Any) -> Iterator[Cue]:
    """Iterate over the cues of a track, up to the end of a truncated file."""
    import av

    streams = {each.index: each for each in [*av_streams(container), stream]}
    timeline = Timeline(container, [index for index in streams if index != stream.index])
    first_s = timeline.origin_s
    is_plain = stream.codec_context.codec.name in _PLAIN_TEXT
    try:
        for packet in placed_packets(container, list(streams.values()), timeline):
            if packet.stream.index != stream.index or packet.pts is None:
                continue
            start_s = float(packet.pts * packet.time_base) - first_s
            end_s = start_s + float((packet.duration or 0) * packet.time_base)
            if is_plain:
                payload = bytes(packet)
                if payload[4:8] not in _MP4_BOXES:
                    yield cue_of(start_s, end_s, payload.decode("utf-8", "replace").rstrip("\0"))
                continue
            yield from _decoded(packet, start_s, end_s)
    except av.FFmpegError as error:
        raise_fault(container.name, error)


def _decoded(packet: Any, start_s: float, end_s: float) -> Iterator[Cue]:
    import av

    try:
        events = packet.decode()
    except av.FFmpegError as error:  # a damaged event is skipped
        raise_fault("a subtitle track", error)
        return
    for event in events:
        if ass := getattr(event, "ass", None):
            yield cue_of_event(start_s, end_s, ass.decode("utf-8", "replace"))
