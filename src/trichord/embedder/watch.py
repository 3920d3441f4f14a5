"""A limit on how long a decoder may give nothing, in a process that embeds files for another one.

A decoder that hangs in a library cannot be interrupted. `faulthandler` ends the whole process from a thread of its own; the
process that waits for it (`embedder.worker`) sees the exit code. Outside of such a process there is no limit.
"""

from __future__ import annotations

import faulthandler
import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

HUNG_EXIT = 1  # exit code of a process that faulthandler ended
BYTES_PER_S = 50e6  # some headers are found only by reading the whole file
Item = TypeVar("Item")
_stall_s = 0.0


def set_stall(seconds: float) -> None:
    """End this process when a decoder gives nothing for so long; 0 for no limit."""
    global _stall_s
    _stall_s = seconds


@contextmanager
def watching(path: Path) -> Iterator[None]:
    """End this process if the block takes longer than a file of that size may."""
    if not _stall_s:
        yield
        return
    size = path.stat().st_size if path.is_file() else 0
    faulthandler.dump_traceback_later(_stall_s + size / BYTES_PER_S, exit=True, file=_devnull())
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def watched(items: Iterable[Item], path: Path) -> Iterator[Item]:
    """Yield the items of a decoder; each must come in time. What is done with an item does not count."""
    iterator = iter(items)
    while True:
        with watching(path):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@functools.cache
def _devnull() -> int:
    """Where faulthandler writes its report; it wants a file that stays open."""
    return os.open(os.devnull, os.O_WRONLY)
