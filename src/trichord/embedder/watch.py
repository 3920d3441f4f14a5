"""Limit the time that a decoder may produce nothing, in a process that embeds files for another process.

A decoder that hangs in a library cannot be interrupted. `faulthandler` therefore ends the whole process from a thread of its own,
and the process that waits for it (`embedder.worker`) checks the exit code. Other processes have no limit.
"""

from __future__ import annotations

import faulthandler
import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

HUNG_EXIT = 1  # exit code of a process that was ended by faulthandler
BYTES_PER_S = 50e6  # reading rate assumed for files whose header is found only by reading the whole file
Item = TypeVar("Item")
_stall_s = 0.0


def set_stall(seconds: float) -> None:
    """Set the number of seconds without output of a decoder after which this process is ended; 0 for no limit."""
    global _stall_s
    _stall_s = seconds


@contextmanager
def watching(path: Path) -> Iterator[None]:
    """End this process if the block takes longer than is allowed for the size of the file."""
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
    """Yield the items of a decoder, each of which must arrive in time. Time that the caller spends on an item does not count."""
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
    """Return the file to which faulthandler writes its report; the file must stay open."""
    return os.open(os.devnull, os.O_WRONLY)
