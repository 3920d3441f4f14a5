"""Sampling and scaling of video frames that are already in memory."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from trichord.errors import TrichordError
from trichord.media.clock import Clock, due_pictures
from trichord.media.sampling import FrameSpec
from trichord.media.scaling import Scaler

_TICKS = 90000  # per second


def pictures_of(frames: np.ndarray, rate_hz: float, spec: FrameSpec) -> Iterator[np.ndarray]:
    """Iterate over the pictures that a specification selects from an array of frames.

    Frames are selected and scaled as by `trichord.media.pictures` for a file. If the frames of a file are decoded to RGB first, the
    results differ from those for the file, because colors are rounded to RGB before the scaling.

    Args:
        frames: Frames of shape (T, h, w, 3), uint8 RGB.
        rate_hz: Frames per second. The first frame is at 0.
        spec: Rate and size of the pictures.

    Yields:
        Pictures of shape (H, W, 3), uint8 RGB, in the order of time.

    Raises:
        TrichordError: If the array has another shape or data type, or the rate is not positive.
    """
    from av import VideoFrame

    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise TrichordError(
            f"frames must be a uint8 RGB array of shape (T, H, W, 3), but the array is {frames.dtype} of shape {frames.shape}; "
            "convert it"
        )
    if not 0 < rate_hz < float("inf"):
        raise TrichordError(f"rate_hz is {rate_hz}; give a positive number of frames per second, such as 25.0")
    scaler, clock = Scaler("frames", spec), Clock(spec)
    scaler.settle(frames.shape[2], frames.shape[1])
    clock.begin(0.0)
    num_frames = len(frames)
    for index in range(num_frames):
        ends_s = (index + 1) / rate_hz
        count = clock.at_end(ends_s) if index + 1 == num_frames else clock.before(ends_s)
        if count <= clock.count:
            continue
        shown = VideoFrame.from_ndarray(np.ascontiguousarray(frames[index]), format="rgb24")
        shown.time_base, shown.pts = Fraction(1, _TICKS), round(index * _TICKS / rate_hz)
        for _ in due_pictures([clock], [count]):
            yield scaler(shown)
