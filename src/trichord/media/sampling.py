"""Which pictures of a video are wanted, and how large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FrameSpec:
    """Pictures at a fixed rate, brought to a size. The picture keeps its aspect unless `width` and `height` are given.

    Attributes:
        rate_hz: Pictures per second.
        short_side: Length in pixels that the shorter side is brought to; the longer one follows the aspect, rounded
            down (as the published extractor's call of ffmpeg has it).
        crop: After that, the square of this side is cut from the middle; None keeps all.
        width: With `height`, an exact size, whatever the aspect; then `short_side` does not count.
        height: See `width`.
        sampling: `shown`: picture n is what the screen shows at n / rate_hz. `published`: what ffmpeg's fps filter
            gives, as the published extractors use it: frame times rounded to the nearest picture, so that picture n
            is the last frame before (n + 1/2) / rate_hz.
    """

    rate_hz: float = 1.0
    short_side: int = 256
    crop: int | None = None
    width: int | None = None
    height: int | None = None
    sampling: Literal["shown", "published"] = "shown"

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that a picture of `width` x `height` is scaled to, before the crop."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        side = self.short_side
        if height >= width:
            return side, max(side, int(height * side / width))
        return max(side, int(width * side / height)), side
