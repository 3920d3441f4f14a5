"""The progress of an extraction: videos per second, hours of video per hour, and the time left."""

from __future__ import annotations

import logging
import time

from trichord.logs import get_logger

logger = get_logger(__name__)


class Meter:
    """Counts finished items and logs the progress.

    Args:
        num_sources: The number of sources.
        num_bytes: The total size of their files, from which the time left is estimated.
        every_s: The shortest time between the lines of successful items. Failures and the last item are always reported.
    """

    def __init__(self, num_sources: int, num_bytes: int, every_s: float) -> None:
        self._num_sources, self._num_bytes, self._every_s = num_sources, num_bytes, every_s
        self._began = self._said = time.monotonic()
        self.num_seen = self.num_done = 0
        self.bytes_seen = self.bytes_done = 0
        self.video_s = 0.0

    def passed(self, num_bytes: int) -> None:
        """Count an item that needs no work."""
        self.num_seen += 1
        self.bytes_seen += num_bytes

    def done(self, name: str, line: str, num_bytes: int, video_s: float, *, failed: bool) -> None:
        """Count and report an item that was worked on."""
        self.passed(num_bytes)
        self.num_done += 1
        self.bytes_done += num_bytes
        self.video_s += video_s
        now = time.monotonic()
        if failed or now - self._said >= self._every_s or self.num_seen >= self._num_sources:
            self._said = now
            text = f"{self.num_seen}/{self._num_sources} {name}: {line} | {self.rates(now)}"
            logger.log(logging.WARNING if failed else logging.INFO, text)

    def rates(self, now: float | None = None) -> str:
        """Return the rates and the time left: `1.2 videos/s, 44 h of video per h, 0:01:12 left`."""
        elapsed_s = max((time.monotonic() if now is None else now) - self._began, 1e-3)
        left = max(self._num_bytes - self.bytes_seen, 0)
        parts = [f"{self.num_done / elapsed_s:.2g} videos/s", f"{self.video_s / elapsed_s:.0f} h of video per h"]
        if left and self.bytes_done:
            parts.append(f"{clock(elapsed_s * left / self.bytes_done)} left")
        return ", ".join(parts)


def clock(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: 3725 gives `1:02:05`."""
    total = round(seconds)
    return f"{total // 3600}:{total // 60 % 60:02d}:{total % 60:02d}"
