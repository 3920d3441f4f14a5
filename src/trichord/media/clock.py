"""Which pictures fall due as a video's frames go by: the arithmetic of `FrameSpec.sampling`, free of any decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from trichord.media.sampling import FrameSpec

EPSILON_S = 6e-4  # containers such as Matroska round times to milliseconds
LEAP_S = 3600.0  # a frame this far past the one before it has a damaged time stamp
_FREE_S = 3600.0  # what a file of any size may show
_SLOWEST_BYTES_PER_S = 10.0  # of a longer file; a still picture without sound takes several times that


def longest_s(num_bytes: int) -> float:
    """The longest time that a file of that size is taken to last. What it says of later times is damaged.

    Pictures and samples are made for every second that a file lasts, also for those without a frame. Without a bound, two
    frames in a kilobyte would make as many of them as their time stamps say.
    """
    return _FREE_S + num_bytes / _SLOWEST_BYTES_PER_S


class Clock:
    """Counts the pictures of one spec in a clip [start_s, end_s) as frames of it come in time order."""

    def __init__(self, spec: FrameSpec, start_s: float = 0.0, end_s: float | None = None) -> None:
        self.spec, self.start_s, self.count = spec, start_s, 0
        self._rate = Fraction(spec.rate_hz).limit_denominator(1001)
        if self._rate <= 0:
            raise ValueError(f"{spec.rate_hz} pictures per second; give a rate above 0")
        self._limit = math.inf if end_s is None else self.num_pictures(end_s)
        self._first = 0

    @property
    def is_done(self) -> bool:
        return self.count >= self._limit

    def time_s(self, n: int) -> float:
        """When picture n is seen."""
        return self.start_s + float(n / self._rate)

    def instant_s(self, n: int) -> float:
        """The time at or before which the frame of picture n begins (for decoders that are asked for a time)."""
        if self.spec.sampling == "published":
            return self.start_s + float((max(n, self._first) + Fraction(1, 2)) / self._rate) - 1e-6
        return self.time_s(n) + EPSILON_S

    def num_pictures(self, end_s: float) -> int:
        """Pictures of a clip that ends at `end_s`: one for each started interval, or as many as ffmpeg's fps filter
        gives, which rounds the length; at least one of either kind."""
        length_s = end_s - self.start_s
        if self.spec.sampling == "published":
            return max(_nearest(length_s * self._rate), 1)
        return max(math.ceil((length_s - EPSILON_S) * self._rate), 1)

    def begin(self, time_s: float) -> None:
        """The file's first frame, or the first after a seek, begins at `time_s`."""
        if self.spec.sampling == "published":
            self._first = _nearest((time_s - self.start_s) * self._rate)

    def before(self, time_s: float) -> int:
        """Number of pictures that are settled when the next frame begins at `time_s`."""
        if self.spec.sampling == "published":
            due = _nearest((time_s - self.start_s) * self._rate)
            if due <= self._first:  # what comes before the filter's first picture is filled with that picture
                return self.count
        else:
            due = math.ceil((time_s - EPSILON_S - self.start_s) * self._rate)
        return int(min(max(due, self.count), self._limit))

    def at_end(self, end_s: float) -> int:
        """Number of pictures when the video ends at `end_s`."""
        return int(min(max(self.num_pictures(end_s), self.count), self._limit))


def _nearest(value: float) -> int:
    """Halves go up, as in FFmpeg's AV_ROUND_NEAR_INF; a float's last bits do not decide what is a half."""
    return math.floor(value + 0.5 + 1e-7)


def due_pictures(clocks: Sequence[Clock], counts: Sequence[int]) -> Iterator[int]:
    """Indices of the clocks that have not come to their count yet, by the time of their pictures; counts them on."""
    while True:
        behind = [i for i, clock in enumerate(clocks) if clock.count < counts[i]]
        if not behind:
            return
        index = min(behind, key=lambda i: clocks[i].time_s(clocks[i].count))
        clocks[index].count += 1
        yield index
