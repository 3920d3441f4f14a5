"""Audio split into the windows or pieces that a network processes, with memory that does not grow with the audio's length.

Both generators take mono blocks (n,) of any lengths, including 0. Their results depend on the samples only, not on the blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class Tail:
    """The end of a stream of samples: samples from `begin` on are kept, earlier ones are discarded.

    Args:
        blocks: Mono blocks (n,) of the stream.

    Attributes:
        begin: The index of the first sample that is kept.
        end: The number of samples read so far.
    """

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self._kept: list[np.ndarray] = []
        self.begin = self.end = 0

    def read_to(self, position: int) -> bool:
        """Read until `position` samples are available or the stream ends; return whether they are available."""
        while self.end < position:
            block = next(self._blocks, None)
            if block is None:
                return False
            if block.ndim != 1:
                raise ValueError("blocks of mono audio must have shape (n,)")
            if block.size:
                self._kept.append(np.asarray(block, np.float32))
                self.end += block.size
        return True

    def take(self, begin: int, end: int) -> np.ndarray:
        """Return the samples [begin, end) and discard all samples before `begin`."""
        assert self.begin <= begin <= end <= self.end
        joined = self._kept[0] if len(self._kept) == 1 else np.concatenate(self._kept or [np.zeros(0, np.float32)])
        kept = joined[begin - self.begin :]
        self._kept, self.begin = [kept], begin
        return kept[: end - begin].copy()


def centred_windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[np.ndarray]:
    """Yield one window (window,) for each hop that begins in the audio. Window k is centered on [k * hop, (k + 1) * hop).

    Near both ends the window is shifted inside the audio, so that it is complete. Audio shorter than a window is a single window
    (n,), which is repeated for each hop. Empty audio yields no window.
    """
    if not 0 < hop <= window:
        raise ValueError(
            f"the hop is {hop} and the window {window} samples; the hop must be from 1 to the window length"
        )
    tail, row = Tail(blocks), 0
    while tail.read_to((begin := _begin_of(row, window, hop)) + window):
        yield tail.take(begin, begin + window)
        row += 1
    last = max(tail.end - window, 0)
    while row * hop < tail.end:
        begin = min(_begin_of(row, window, hop), last)
        yield tail.take(begin, min(begin + window, tail.end))
        row += 1


def _begin_of(row: int, window: int, hop: int) -> int:
    return max(row * hop + (hop - window) // 2, 0)


def pieces(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Yield consecutive pieces (length,) of the audio; the last one may be shorter. Empty audio yields no piece."""
    if length <= 0:
        raise ValueError(f"the length is {length} samples; it must be at least 1")
    tail, begin = Tail(blocks), 0
    while tail.read_to(begin + length):
        yield tail.take(begin, begin + length)
        begin += length
    if tail.end > begin:
        yield tail.take(begin, tail.end)
