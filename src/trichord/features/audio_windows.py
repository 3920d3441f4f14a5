"""Sound cut into what a network takes at a time, in memory that does not grow with it, whatever the blocks' sizes.

Both generators take mono blocks (n,) of any lengths (0 too) and give the same arrays for the same samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class Tail:
    """The last samples of a stream: those from `begin` on are kept, the earlier ones forgotten."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self._kept: list[np.ndarray] = []
        self.begin = self.end = 0

    def read_to(self, position: int) -> bool:
        """Read until sample `position` is passed or the stream ends; False if it ended before."""
        while self.end < position:
            block = next(self._blocks, None)
            if block is None:
                return False
            if block.ndim != 1:
                raise ValueError("blocks of mono sound are (n,)")
            if block.size:
                self._kept.append(np.asarray(block, np.float32))
                self.end += block.size
        return True

    def take(self, begin: int, end: int) -> np.ndarray:
        """Samples [begin, end); all before `begin` are forgotten."""
        assert self.begin <= begin <= end <= self.end
        joined = self._kept[0] if len(self._kept) == 1 else np.concatenate(self._kept or [np.zeros(0, np.float32)])
        kept = joined[begin - self.begin :]
        self._kept, self.begin = [kept], begin
        return kept[: end - begin].copy()


def centred_windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[np.ndarray]:
    """One window (window,) for each started hop of the sound: row k is the window centred on [k hop, (k + 1) hop).

    Near both ends the window is shifted inside, so that it is whole; sound shorter than a window is one window (n,)
    by itself, given for each of its hops. No sound gives none.
    """
    if not 0 < hop <= window:
        raise ValueError(f"the hop is {hop} and the window {window} samples; give a hop from 1 to the window")
    tail, row = Tail(blocks), 0
    while tail.read_to((begin := _centred(row, window, hop)) + window):
        yield tail.take(begin, begin + window)
        row += 1
    last = max(tail.end - window, 0)
    while row * hop < tail.end:
        begin = min(_centred(row, window, hop), last)
        yield tail.take(begin, min(begin + window, tail.end))
        row += 1


def _centred(row: int, window: int, hop: int) -> int:
    return max(row * hop + (hop - window) // 2, 0)


def pieces(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """The sound cut into consecutive pieces (length,); the last one is as long as what is left. No sound gives none."""
    if length <= 0:
        raise ValueError(f"the length is {length} samples; give 1 or more")
    tail, begin = Tail(blocks), 0
    while tail.read_to(begin + length):
        yield tail.take(begin, begin + length)
        begin += length
    if tail.end > begin:
        yield tail.take(begin, tail.end)
