"""Decoding of the pictures of a video file for several specifications in one pass, with one picture in memory at a time."""

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

_SEEKABLE = {"matroska", "mp4", "mpegts"}  # containers whose frames have the same times after a seek
_PAST_END_S = 1.0  # maximum time by which the last frame may extend beyond the stated end
_LONGEST_FRAME_S = 600.0  # maximum duration of a frame in a file that does not state its end
_BACK_S = (0.0, 2.0, 8.0, 30.0)  # times before the clip from which a key frame is searched


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
    """Iterate over the pictures of a video in the order of time, from one decoding pass for all specifications.

    Picture n of a specification is the latest frame of the clip [start_s, end_s) at or before start_s + n / rate_hz, or the first
    frame of the file if there is no earlier one. There is one picture for each started interval, so that even 0.4 s have one. The
    sampling "published" selects the same frames as the `fps` filter of ffmpeg, except that the last frame is returned for a video
    of less than half an interval, for which the filter returns nothing.

    A picture is rotated upright according to the file, scaled to `FrameSpec.size_of` by bicubic scaling as in the ffmpeg tool, and
    cropped. The header of the file determines the size, and later frames of another size are stretched to it. Pixels are assumed
    to be square.

    A clip is read from a key frame before it if the container allows this exactly (MP4, Matroska and MPEG-TS without a jump of
    the clock), and from the start of the file otherwise. The pictures are the same in both cases. The same array may be yielded
    several times in a row, if a frame is shown for longer than an interval.

    Args:
        path: Path of the file.
        specs: Rates and sizes of the pictures.
        start_s: Start of the clip in seconds.
        end_s: End of the clip in seconds. None means the end of the video.
        notes: List to which notes about damage are appended; see `trichord.media.decode`.
        decoder: Decoder or its name. None selects PyAV, which is also used for files whose timestamps torchcodec would not put in
            order (containers other than those above, and clocks that jump).
        num_threads: Number of threads of the decoder. None leaves it to FFmpeg. The pictures do not depend on it.

    Yields:
        The index of the specification, and the picture of shape (H, W, 3), uint8 RGB.

    Raises:
        TrichordError: If the file is missing or not a media file, has no video stream or no frame that can be decoded, if the
            clip is empty or begins after the end of the video, or if a crop is larger than the scaled picture.
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
            raise TrichordError(f"{path}: no picture can be decoded; replace the file")
        if start_s and video_end_s <= start_s:
            problem = f"the clip begins at {start_s:g} s, but the pictures end at {video_end_s:.2f} s"
            raise TrichordError(f"{path}: {problem}; correct the start of the clip")
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
    """Iterate over the pictures of a whole video at a fixed rate and size. The aspect ratio is not kept.

    Args:
        path: Path of the file.
        rate_hz: Pictures per second.
        width: Width of the pictures in pixels.
        height: Height of the pictures in pixels.
        notes: List to which notes about damage are appended.

    Yields:
        Pictures of shape (height, width, 3), uint8 RGB.

    Raises:
        TrichordError: As in `pictures`.
    """
    spec = FrameSpec(rate_hz=rate_hz, width=width, height=height)
    for _, picture in pictures(path, [spec], notes=notes):
        yield picture


def _credible_s(duration_s: float, time_s: float, container: Any) -> float:
    """Limit the duration of a frame, which a damaged header may overstate.

    The frame ends shortly after the stated end of the file, and not after the maximum plausible duration of the file.
    """
    stated_s = (container.duration or 0) / 1e6
    most_s = max(stated_s - time_s, 0.0) + _PAST_END_S if stated_s else _LONGEST_FRAME_S
    return min(duration_s, most_s, max(longest_s(container.size) - time_s, 0.0))


# ---- position at which reading begins


def _frames_from(
    path: str | Path, start_s: float, notes: list[str] | None, num_threads: int | None, stack: ExitStack
) -> tuple[Any, tuple[int, int], Iterator[tuple[float, Any]]]:
    """Return the video stream, its size, and its (time_s, frame) from the first key frame after a seek or from the start.

    The size is read from the header before a frame is decoded, so that it does not depend on where reading begins.

    After a seek, frames before the first key frame in time are left out, because they may depend on frames that were not read (open
    groups of pictures). If the first remaining frame is later than `start_s` or has no timestamp, the seek is repeated further
    back. If all seeks fail, the file is read from the start.
    """
    for back_s in _BACK_S if start_s > 0 and _has_plain_times(path) else ():
        attempt = stack.enter_context(ExitStack())
        container, stream, size = _opened_video(path, attempt)
        if start_s - back_s <= 0:
            attempt.close()
            break
        if _seek(container, stream, start_s - back_s):
            decoder_notes: list[str] = []
            frames = _from_key_frame(decoded(path, container, stream, decoder_notes, num_threads, sought=True), start_s)
            first = next(frames, None)
            if first is not None and first[0] <= start_s and first[1].pts is not None:
                return stream, size, _noted(first, frames, decoder_notes, notes)
        attempt.close()
    container, stream, size = _opened_video(path, stack)
    return stream, size, decoded(path, container, stream, notes, num_threads)


def _has_plain_times(path: str | Path) -> bool:
    """Return whether frames have the same times after a seek."""
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
    """Iterate over the frames from the first key frame, if it is not later than `by_s`."""
    key_s = None
    for time_s, frame in frames:
        if key_s is None:
            if time_s > by_s:
                return
            key_s = time_s if frame.key_frame else None
        if key_s is not None and time_s >= key_s:
            yield time_s, frame


def _noted(
    first: tuple[float, Any],
    frames: Generator[tuple[float, Any], None, None],
    decoder_notes: list[str],
    notes: list[str] | None,
) -> Iterator[tuple[float, Any]]:
    """Iterate over the frames. The notes of the decoder are added to `notes` at the end, or when the iterator is closed."""
    try:
        yield first
        yield from frames
    finally:
        frames.close()
        if notes is not None:
            notes += decoder_notes
