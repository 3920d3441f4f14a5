"""Rotation and scaling of frames, exactly as by the filter chain of the ffmpeg tool.

The chain consists of filters of FFmpeg (libavfilter): [transpose or flips] -> scale, bicubic -> rgb24. The pictures are bit-equal
to those of `ffmpeg -vf scale=W:H -pix_fmt rgb24` of the same version. A direct call of swscale would assume another position of
the color samples and differ by a few levels at edges.
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

_MAX_PIXELS = 50_000_000  # maximum number of pixels of a scaled picture, which take 150 MB


class Scaler:
    """A converter of the frames of one file to the size of one specification. The last picture is cached.

    Args:
        path: Path of the file, for messages.
        spec: Size of the pictures.
    """

    def __init__(self, path: str | Path, spec: FrameSpec) -> None:
        self._path, self._spec = path, spec
        self._size = (0, 0)
        self._box = (0, 0, 0, 0)
        self._chain: _Chain | None = None
        self._frame: Any = None
        self._picture: np.ndarray | None = None

    def settle(self, width: int, height: int) -> None:
        """Set the size of an upright picture of the file, from which the size of all scaled pictures is derived."""
        self._size, self._box = fitted(self._path, self._spec, width, height)

    def __call__(self, frame: Any) -> np.ndarray:
        """Return a frame as a picture of shape (H, W, 3), uint8 RGB."""
        if self._frame is not frame or self._picture is None:
            key = _Chain.key_of(frame)
            if self._chain is None or self._chain.key != key:
                self._chain = _Chain(frame, key, self._size)
            left, top, right, bottom = self._box
            picture = self._chain.scaled(frame)
            self._frame, self._picture = frame, np.ascontiguousarray(picture[top:bottom, left:right])
        return self._picture


class _Chain:
    """A filter graph for frames of one size, format and orientation."""

    def __init__(self, frame: Any, key: tuple[Any, ...], size: tuple[int, int]) -> None:
        from av.filter import Graph

        self.key, self._graph = key, Graph()
        with suppress(AttributeError):  # PyAV before 17.0.1 leaves the number to FFmpeg; the pictures are the same
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
        """Return the properties of a frame that determine the graph."""
        colors = int(frame.colorspace), int(frame.color_range)
        return frame.width, frame.height, frame.format.name, *colors, frame.rotation

    def scaled(self, frame: Any) -> np.ndarray:
        """Return a frame scaled and upright, of shape (H, W, 3)."""
        self._graph.vpush(frame)
        return self._graph.vpull().to_ndarray()


def turning_of(frame: Any) -> tuple[tuple[str, ...], ...]:
    """Return the filters that rotate a frame upright, as the ffmpeg tool selects them from the display matrix of the file.

    The matrix consists of nine 32-bit integers, of which numbers 0, 1, 3 and 4 describe rotation and mirroring. Angles between
    quarter turns, which cameras do not write, are rounded to the nearest quarter turn. Do not call this function for every frame:
    a frame whose `side_data` was read refers to itself, and large frames accumulate until Python collects garbage.

    Args:
        frame: Frame of the file.

    Returns:
        Names and arguments of the filters.
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
    """Return the size of the upright pictures of a file.

    Args:
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        frame: Any frame of the file.

    Returns:
        The width and height.
    """
    return (height, width) if any(name == "transpose" for name, *_ in turning_of(frame)) else (width, height)


def fitted(
    path: str | Path, spec: FrameSpec, width: int, height: int
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Return the size to which an upright picture is scaled, and the box that is cropped from the scaled picture.

    Args:
        path: Path of the file, for messages.
        spec: Size of the pictures.
        width: Width of the upright picture in pixels.
        height: Height of the upright picture in pixels.

    Returns:
        The (width, height) of the scaled picture and the (left, top, right, bottom) of the crop. The crop is centered, or half a
        pixel above and left of the center.

    Raises:
        TrichordError: If the crop is larger than the scaled picture, or if the scaled picture would be too large for the memory.
    """
    size = scaled_width, scaled_height = spec.size_of(width, height)
    if scaled_width * scaled_height > _MAX_PIXELS:
        problem = (
            f"a picture of {width}x{height} becomes {scaled_width}x{scaled_height} at short side {spec.short_side}"
        )
        raise TrichordError(f"{path}: {problem}, which is too large; crop it or remove it")
    if spec.crop is None:
        return size, (0, 0, scaled_width, scaled_height)
    if spec.crop > min(size):
        problem = f"a crop of {spec.crop} does not fit into {scaled_width}x{scaled_height}"
        raise TrichordError(f"{path}: {problem}; increase short_side")
    left, top = (scaled_width - spec.crop) // 2, (scaled_height - spec.crop) // 2
    return size, (left, top, left + spec.crop, top + spec.crop)
