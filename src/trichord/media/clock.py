"""The arithmetic of `FrameSpec.sampling`: which pictures are due as the frames of a video are decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from trichord.media.sampling import FrameSpec

EPSILON_S = 6e-4  # containers such as Matroska round times to milliseconds
LEAP_S = 3600.0  # the timestamp of a frame this far after the previous one is damaged
_FREE_S = 3600.0  # duration that a file of any size may have
_SLOWEST_BYTES_PER_S = (
    10.0  # minimum bit rate of a longer file; a still picture without sound takes several times as much
)


def longest_s(num_bytes: int) -> float:
    """Return the maximum plausible duration of a file. Later times are treated as damaged.

    Pictures and samples are produced for every second of a file, including seconds without a frame. Without this bound, two
    frames in one kilobyte could request any number of them.

    Args:
        num_bytes: Size of the file in bytes.

    Returns:
        The duration in seconds.

    Example:
        >>> from trichord.media.clock import longest_s
        >>> longest_s(1000)
        3700.0
    """
    return _FREE_S + num_bytes / _SLOWEST_BYTES_PER_S


class Clock:
    """A counter of the pictures of one specification in a clip [start_s, end_s), as its frames arrive in the order of time.

    Args:
        spec: Rate and sampling of the pictures.
        start_s: Start of the clip in seconds.
        end_s: End of the clip in seconds, or None for the end of the video.

    Raises:
        ValueError: If the rate is not positive.
    """

    def __init__(self, spec: FrameSpec, start_s: float = 0.0, end_s: float | None = None) -> None:
        self.spec, self.start_s, self.count = spec, start_s, 0
        self._rate = Fraction(spec.rate_hz).limit_denominator(1001)
        if self._rate <= 0:
            raise ValueError(f"rate_hz is {spec.rate_hz}; give a positive number of pictures per second")
        self._limit = math.inf if end_s is None else self.num_pictures(end_s)
        self._first = 0

    @property
    def is_done(self) -> bool:
        """Whether all pictures of the clip have been counted."""
        return self.count >= self._limit

    def time_s(self, n: int) -> float:
        """Return the time of picture n in seconds."""
        return self.start_s + float(n / self._rate)

    def instant_s(self, n: int) -> float:
        """Return a time at which the frame of picture n is shown, for decoders that select frames by time."""
        if self.spec.sampling == "published":
            return self.start_s + float((max(n, self._first) + Fraction(1, 2)) / self._rate) - 1e-6
        return self.time_s(n) + EPSILON_S

    def num_pictures(self, end_s: float) -> int:
        """Return the number of pictures of a clip that ends at `end_s`.

        There is one picture per started interval. With the sampling "published", the number is that of the `fps` filter of
        ffmpeg, which rounds the duration. There is at least one picture.

        Args:
            end_s: End of the clip in seconds.

        Returns:
            The number of pictures.
        """
        length_s = end_s - self.start_s
        if self.spec.sampling == "published":
            return max(_nearest(length_s * self._rate), 1)
        return max(math.ceil((length_s - EPSILON_S) * self._rate), 1)

    def begin(self, time_s: float) -> None:
        """Set the time of the first frame of the file, or of the first frame after a seek."""
        if self.spec.sampling == "published":
            self._first = _nearest((time_s - self.start_s) * self._rate)

    def before(self, time_s: float) -> int:
        """Return the number of pictures that are determined once the next frame begins at `time_s`."""
        if self.spec.sampling == "published":
            due = _nearest((time_s - self.start_s) * self._rate)
            if due <= self._first:  # pictures before the first picture of the filter are copies of it
                return self.count
        else:
            due = math.ceil((time_s - EPSILON_S - self.start_s) * self._rate)
        return int(min(max(due, self.count), self._limit))

    def at_end(self, end_s: float) -> int:
        """Return the total number of pictures if the video ends at `end_s`."""
        return int(min(max(self.num_pictures(end_s), self.count), self._limit))


def _nearest(value: float) -> int:
    """Round to the nearest integer, with halves rounded up as by AV_ROUND_NEAR_INF of FFmpeg, up to rounding errors."""
    return math.floor(value + 0.5 + 1e-7)


def due_pictures(clocks: Sequence[Clock], counts: Sequence[int]) -> Iterator[int]:
    """Iterate over the clocks that are behind their counts, in the order of time of their pictures, and advance them.

    Args:
        clocks: Counters of pictures.
        counts: Number of pictures that each clock should have counted.

    Yields:
        The index of the clock of each picture.
    """
    while True:
        behind = [i for i, clock in enumerate(clocks) if clock.count < counts[i]]
        if not behind:
            return
        index = min(behind, key=lambda i: clocks[i].time_s(clocks[i].count))
        clocks[index].count += 1
        yield index
