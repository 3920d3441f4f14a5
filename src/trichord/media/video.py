"""Pictures of a video file for several uses in one decoding pass, one picture in memory at a time (PyAV)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.media.clock import Clock, due_pictures, longest_s
from trichord.media.decode import FRAME_HEIGHT, FRAME_WIDTH, decoded, duration_s_of, opened
from trichord.media.decoders import Decoder, choose_decoder
from trichord.media.length import span_of
from trichord.media.sampling import FrameSpec
from trichord.media.scaling import Scaler, upright_size
from trichord.media.streams import origin_s, video_of

_SEEKABLE = {"matroska", "mp4", "mpegts"}  # containers whose frames carry the same times wherever reading begins
_PAST_END_S = 1.0  # how far past the stated end the last frame may reach
_LONGEST_FRAME_S = 600.0  # in a file that states no end
_BACK_S = (0.0, 2.0, 8.0, 30.0)  # how much earlier than the clip a key frame is looked for, before giving up


def pictures(
    path: str | Path,
    specs: Sequence[FrameSpec],
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    notes: list[str] | None = None,
    decoder: Decoder | str | None = None,
    num_threads: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """(index of the spec, picture (H, W, 3) uint8 RGB) in time order, from one decoding pass for all specs.

    Picture n of a spec is what the clip [start_s, end_s) shows at start_s + n / rate_hz: the latest frame at or before
    that time (the first frame of the file, if none is earlier). There is one picture for each started interval, so
    even 0.4 s give one. Sampling `published` takes frames, and as many, as ffmpeg's `fps` filter does (`sampling`),
    except that a video of less than half an interval, of which the filter makes nothing, gives its last frame.

    A picture is turned upright where the file says that it is rotated, brought to `FrameSpec.size_of` the upright
    picture by bicubic scaling as in the ffmpeg tool, then cropped. The size is settled by the file's header: pictures
    of another size further on are stretched to it. Pixels are taken to be square.

    A clip is read from a key frame before it on where the container allows that exactly (MP4, Matroska, MPEG-TS, without a
    jump of the clock), else from the start; its pictures are the same either way. One array may be handed out several times
    in a row: where one frame is seen for longer than an interval.

    Args:
        notes: gets a line about damage, see `decode`.
        decoder: `media.decoders.Decoder` or a name; None is PyAV, which also reads the files whose time stamps torchcodec
            would not put in order (other containers than those above, and clocks that jump).
        num_threads: threads of the decoder; None leaves the number to FFmpeg. It changes no picture.

    Raises TrichordError if the file is missing or no media file, has no video stream, or not one frame decodes; if the
    clip begins after its end; if a crop is larger than the picture.
    """
    if end_s is not None and end_s <= start_s:
        raise TrichordError(f"{path}: a clip from {start_s:g} s to {end_s:g} s is empty; correct its start and end")
    chosen = choose_decoder(decoder or "pyav") if decoder is None or isinstance(decoder, str) else decoder
    if chosen.name == "torchcodec" and _has_plain_times(path):
        from trichord.media.torchcodec import pictures as by_torchcodec

        yield from by_torchcodec(
            path, specs, start_s=start_s, end_s=end_s, device=chosen.device, num_threads=num_threads
        )
        return
    clocks = [Clock(spec, start_s, end_s) for spec in specs]
    with ExitStack() as stack:
        stream, (width, height), frames = _frames_from(path, start_s, notes, num_threads, stack)
        scalers = [Scaler(path, spec) for spec in specs]
        shown, video_end_s = None, 0.0
        for time_s, frame in frames:
            if shown is None:
                for scaler in scalers:
                    scaler.settle(*upright_size(width or frame.width, height or frame.height, frame))
                for clock in clocks:
                    clock.begin(time_s)
            else:
                for index in due_pictures(clocks, [clock.before(time_s) for clock in clocks]):
                    yield index, scalers[index](shown)
            shown = frame
            video_end_s = time_s + _credible_s(duration_s_of(frame, stream), time_s, stream.container)
            if all(clock.is_done for clock in clocks):
                return
        if shown is None:
            raise TrichordError(f"{path}: not one picture can be decoded; replace the file")
        if start_s and video_end_s <= start_s:
            what = f"the clip begins at {start_s:g} s, its pictures end at {video_end_s:.2f} s"
            raise TrichordError(f"{path}: {what}; correct its start")
        for index in due_pictures(clocks, [clock.at_end(video_end_s) for clock in clocks]):
            yield index, scalers[index](shown)


def frames(
    path: str | Path,
    *,
    rate_hz: float = 1.0,
    width: int = FRAME_WIDTH,
    height: int = FRAME_HEIGHT,
    notes: list[str] | None = None,
) -> Iterator[np.ndarray]:
    """Pictures of a whole video at a fixed rate and size, whatever its aspect; see `pictures`."""
    spec = FrameSpec(rate_hz=rate_hz, width=width, height=height)
    for _, picture in pictures(path, [spec], notes=notes):
        yield picture


def _credible_s(duration_s: float, time_s: float, container: Any) -> float:
    """A frame's length. Where a damaged header makes it reach far past the end that the file states, or past what a file of
    that size lasts, it is up to there."""
    stated_s = (container.duration or 0) / 1e6
    most_s = max(stated_s - time_s, 0.0) + _PAST_END_S if stated_s else _LONGEST_FRAME_S
    return min(duration_s, most_s, max(longest_s(container.size) - time_s, 0.0))


# ---- where reading begins


def _frames_from(
    path: str | Path, start_s: float, notes: list[str] | None, num_threads: int | None, stack: ExitStack
) -> tuple[Any, tuple[int, int], Iterator[tuple[float, Any]]]:
    """The video stream, its size, and its (time_s, frame) from the first key frame of a seek or the file's start on.

    The size is the header's, taken before a frame is decoded: so it is the same wherever reading begins.

    After a seek, frames before the first key frame in time are left out: they may lean on frames that were not read
    (open groups of pictures). If what comes first then is later than `start_s`, or has no time stamp, the seek is
    tried again further back, and at last not at all.
    """
    for back_s in _BACK_S if start_s > 0 and _has_plain_times(path) else ():
        attempt = stack.enter_context(ExitStack())
        container, stream, size = _opened_video(path, attempt)
        if start_s - back_s <= 0:
            attempt.close()
            break
        if _seek(container, stream, start_s - back_s):
            held: list[str] = []
            frames = _from_key_frame(decoded(path, container, stream, held, num_threads, sought=True), start_s)
            first = next(frames, None)
            if first is not None and first[0] <= start_s and first[1].pts is not None:
                return stream, size, _noted(first, frames, held, notes)
        attempt.close()
    container, stream, size = _opened_video(path, stack)
    return stream, size, decoded(path, container, stream, notes, num_threads)


def _has_plain_times(path: str | Path) -> bool:
    """Whether the frames carry the same times wherever reading begins."""
    with opened(path) as container:
        is_seekable = bool(_SEEKABLE & set(container.format.name.split(",")))
    return is_seekable and span_of(path).is_plain


def _opened_video(path: str | Path, stack: ExitStack) -> tuple[Any, Any, tuple[int, int]]:
    container = stack.enter_context(opened(path))
    stream = video_of(container, path)
    return container, stream, (stream.width, stream.height)


def _seek(container: Any, stream: Any, time_s: float) -> bool:
    import av

    try:
        container.seek(int((time_s + origin_s(container)) / stream.time_base), stream=stream)
    except (av.FFmpegError, OverflowError):
        return False
    return True


def _from_key_frame(frames: Iterator[tuple[float, Any]], by_s: float) -> Generator[tuple[float, Any], None, None]:
    """Frames from the first key frame on, if it comes in time."""
    key_s = None
    for time_s, frame in frames:
        if key_s is None:
            if time_s > by_s:
                return
            key_s = time_s if frame.key_frame else None
        if key_s is not None and time_s >= key_s:
            yield time_s, frame


def _noted(
    first: tuple[float, Any], frames: Generator[tuple[float, Any], None, None], held: list[str], notes: list[str] | None
) -> Iterator[tuple[float, Any]]:
    """The same frames; what the decoder noted is passed on at the end, or when nobody wants more."""
    try:
        yield first
        yield from frames
    finally:
        frames.close()
        if notes is not None:
            notes += held
