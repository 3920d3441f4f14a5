"""Writing of small video files with H.264 pictures and AAC sound."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.files.writing import give_mode, new_file


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    rate_hz: float,
    waveform: np.ndarray | None = None,
    sample_rate_hz: int = 16000,
    *,
    crf: int = 23,
) -> None:
    """Write pictures and sound to a file.

    The output is deterministic for a given version of PyAV, because one encoder thread is used and the header contains no
    timestamps.

    Args:
        path: Path of the file. Its suffix (.mp4, .mkv, .mov) selects the container. The file is written under a temporary name
            and renamed once it is complete.
        frames: Pictures of shape (height, width, 3), uint8 RGB, all of the same even width and height. They are consumed one at
            a time.
        rate_hz: Pictures per second.
        waveform: Mono sound of shape (N,) in [-1, 1]. If None or empty, the file has no audio stream.
        sample_rate_hz: Samples per second of the waveform.
        crf: Quality of H.264. Lower is better, and 23 is the default of x264.

    Raises:
        TrichordError: If there are no pictures, or if their width or height is odd.
    """
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.absolute().with_name(f".{os.getpid()}-{secrets.token_hex(4)}.partial{path.suffix}")
    rate = Fraction(rate_hz).limit_denominator(1001)
    sound = waveform if waveform is not None and waveform.size > 0 else None
    options = {"fflags": "+bitexact"}
    if path.suffix.lower() in (".mp4", ".mov", ".m4v"):
        options["movflags"] = "+faststart"
    try:
        mode = new_file(partial)
        with av.open(str(partial), "w", options=options) as container:
            video: Any = None
            audio: Any = _audio_stream(container, sample_rate_hz) if sound is not None else None
            position = 0
            for index, picture in enumerate(frames):
                if video is None:
                    video = _video_stream(container, path, rate, picture, crf)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = index, 1 / rate
                container.mux(video.encode(frame))
                if sound is not None:
                    until = int((index + 1) / rate * sample_rate_hz)
                    position = _mux_audio(container, audio, sound, position, until)
            if video is None:
                raise TrichordError(
                    f"{path}: a video needs at least one picture, but `frames` is empty; pass some frames"
                )
            container.mux(video.encode(None))
            if sound is not None:
                _mux_audio(container, audio, sound, position, sound.size)
                container.mux(audio.encode(None))
        give_mode(partial, mode)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _video_stream(container: Any, path: Path, rate: Fraction, picture: np.ndarray, crf: int) -> Any:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        raise TrichordError(
            f"{path}: pictures are {width}x{height}, but H.264 needs an even width and height; resize them"
        )
    stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": str(crf)})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1
    return stream


def _audio_stream(container: Any, sample_rate_hz: int) -> Any:
    stream = container.add_stream("aac", rate=sample_rate_hz, layout="mono", options={"aac_coder": "fast"})
    stream.codec_context.thread_count = 1
    return stream


def _mux_audio(container: Any, stream: Any, waveform: np.ndarray, begin: int, end: int, block: int = 1024) -> int:
    """Encode full blocks of waveform[begin:end], and return the position at which the next call begins.

    Only the last block of the waveform may be short.
    """
    import av

    end = min(end, waveform.size)
    while begin < end and (begin + block <= end or end == waveform.size):
        piece = np.ascontiguousarray(waveform[begin : begin + block], np.float32)[None]
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate = stream.codec_context.sample_rate
        frame.pts, frame.time_base = begin, Fraction(1, frame.sample_rate)
        container.mux(stream.encode(frame))
        begin += block
    return begin
