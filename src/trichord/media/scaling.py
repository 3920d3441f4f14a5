"""Frames set upright and brought to the size of a spec, exactly as the ffmpeg tool's filter chain does it.

The chain is FFmpeg's own (libavfilter): [transpose or flips] -> scale, bicubic -> rgb24. swscale called directly takes
another position of the colour samples and so differs by some grey levels at edges; through the filter the pictures are
bit for bit those of `ffmpeg -vf scale=W:H -pix_fmt rgb24` of the same version.
"""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.media.sampling import FrameSpec

_MAX_PIXELS = 50_000_000  # of a scaled picture: 150 MB


class Scaler:
    """Brings the frames of one file to the size of one spec. The last picture is kept: it may be wanted again."""

    def __init__(self, path: str | Path, spec: FrameSpec) -> None:
        self._path, self._spec = path, spec
        self._size = (0, 0)
        self._box = (0, 0, 0, 0)
        self._chain: _Chain | None = None
        self._of: Any = None
        self._picture: np.ndarray | None = None

    def settle(self, width: int, height: int) -> None:
        """All pictures get the size that belongs to an upright picture of this one."""
        self._size, self._box = fitted(self._path, self._spec, width, height)

    def __call__(self, frame: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        if self._of is not frame or self._picture is None:
            key = _Chain.key_of(frame)
            if self._chain is None or self._chain.key != key:
                self._chain = _Chain(frame, key, self._size)
            left, top, right, bottom = self._box
            picture = self._chain.scaled(frame)
            self._of, self._picture = frame, np.ascontiguousarray(picture[top:bottom, left:right])
        return self._picture


class _Chain:
    """A filter graph for frames of one size, format and orientation."""

    def __init__(self, frame: Any, key: tuple[Any, ...], size: tuple[int, int]) -> None:
        from av.filter import Graph

        self.key, self._graph = key, Graph()
        with suppress(AttributeError):  # PyAV before 17.0.1 leaves the number to FFmpeg; it changes no picture
            self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        nodes = [source, *(self._graph.add(*step) for step in turning_of(frame))]
        nodes.append(self._graph.add("scale", f"{size[0]}:{size[1]}:flags=bicubic"))
        nodes += [self._graph.add("format", "rgb24"), self._graph.add("buffersink")]
        self._graph.link_nodes(*nodes).configure()

    @staticmethod
    def key_of(frame: Any) -> tuple[Any, ...]:
        colours = int(frame.colorspace), int(frame.color_range)
        return frame.width, frame.height, frame.format.name, *colours, frame.rotation

    def scaled(self, frame: Any) -> np.ndarray:
        self._graph.vpush(frame)
        return self._graph.vpull().to_ndarray()


def turning_of(frame: Any) -> tuple[tuple[str, ...], ...]:
    """Filters that set a frame upright, as the ffmpeg tool chooses them from the file's display matrix.

    The matrix has nine 32-bit integers; what turns and mirrors is in numbers 0, 1, 3 and 4. Angles between quarter
    turns, which no camera writes, count as the nearest quarter. Not for every frame: one whose `side_data` was looked
    at refers to itself, and large frames pile up until Python's collector comes by.
    """
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return ()
    a, b, _, c, d = struct.unpack("=9i", bytes(data))[:5]
    quarters = round(math.atan2(b, a) / (math.pi / 2)) % 4  # clockwise
    if quarters == 1:
        return (("transpose", "cclock_flip" if c > 0 else "clock"),)
    if quarters == 3:
        return (("transpose", "clock_flip" if c < 0 else "cclock"),)
    flips = [("hflip",)] if quarters == 2 and a < 0 else []
    return tuple(flips + [("vflip",)] if d < 0 else flips)


def upright_size(width: int, height: int, frame: Any) -> tuple[int, int]:
    """(width, height) of a picture of a file once it is upright; `frame` is any of the file's."""
    return (height, width) if any(name == "transpose" for name, *_ in turning_of(frame)) else (width, height)


def fitted(
    path: str | Path, spec: FrameSpec, width: int, height: int
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """(width, height) that an upright picture is scaled to, and the (left, top, right, bottom) of that which is kept:
    the middle, or half a pixel up and left of it. Raises TrichordError if the crop does not fit, and for strips so long
    that they would fill the memory."""
    size = scaled_width, scaled_height = spec.size_of(width, height)
    if scaled_width * scaled_height > _MAX_PIXELS:
        what = f"a picture of {width}x{height} becomes {scaled_width}x{scaled_height} at short side {spec.short_side}"
        raise TrichordError(f"{path}: {what}; crop it or remove it")
    if spec.crop is None:
        return size, (0, 0, scaled_width, scaled_height)
    if spec.crop > min(size):
        what = f"a crop of {spec.crop} does not fit {scaled_width}x{scaled_height}"
        raise TrichordError(f"{path}: {what}; make short_side larger")
    left, top = (scaled_width - spec.crop) // 2, (scaled_height - spec.crop) // 2
    return size, (left, top, left + spec.crop, top + spec.crop)
