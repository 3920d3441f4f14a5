"""Frames that are in memory already, as the pictures that `media.pictures` gives of a file."""

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
    """Pictures (H, W, 3) uint8 RGB of a spec, in time order, of frames (T, h, w, 3) uint8 RGB of which one comes every
    1 / `rate_hz` seconds, the first at 0.

    Which frames, their size and their scaling are as for a file. A file's own frames, decoded to RGB before, differ from what
    the file gives by the rounding of colours to RGB ahead of the scaling.

    Raises TrichordError for an array of another form.
    """
    from av import VideoFrame

    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise TrichordError(
            f"frames are an array (T, H, W, 3) of uint8 RGB, not {frames.dtype} of shape {frames.shape}; convert them"
        )
    if not 0 < rate_hz < float("inf"):
        raise TrichordError(f"frames come at {rate_hz} a second; give a rate above 0, such as 25.0")
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
