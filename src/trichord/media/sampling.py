"""The specification of the rate and size of the pictures of a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FrameSpec:
    """The rate and size of pictures. Pictures keep their aspect ratio unless `width` and `height` are given.

    Attributes:
        rate_hz: Pictures per second.
        short_side: Length in pixels to which the shorter side is scaled. The longer side keeps the aspect ratio and is rounded
            down, as in the ffmpeg command of the published extractor.
        crop: Side in pixels of the square that is cut from the center of the scaled picture. None keeps all of it.
        width: Exact width in pixels. If `width` and `height` are given, `short_side` is not used.
        height: Exact height in pixels.
        sampling: "shown" selects, for picture n, the frame that the screen shows at n / rate_hz. "published" selects frames like
            the `fps` filter of ffmpeg in the published extractors: the times of frames are rounded to the nearest picture, so
            that picture n is the last frame before (n + 1/2) / rate_hz.
    """

    rate_hz: float = 1.0
    short_side: int = 256
    crop: int | None = None
    width: int | None = None
    height: int | None = None
    sampling: Literal["shown", "published"] = "shown"

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to which a picture is scaled before it is cropped.

        Args:
            width: Width of the picture in pixels.
            height: Height of the picture in pixels.

        Returns:
            The scaled width and height.

        Example:
            >>> from trichord.media import FrameSpec
            >>> FrameSpec(short_side=256).size_of(1280, 720)
            (455, 256)
        """
        if self.width is not None and self.height is not None:
            return self.width, self.height
        side = self.short_side
        if height >= width:
            return side, max(side, int(height * side / width))
        return max(side, int(width * side / height)), side
