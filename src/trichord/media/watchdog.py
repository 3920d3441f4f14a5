"""A limit on how long a decoder may give nothing, in a process that decodes files for another one.

A decoder that hangs in a library cannot be interrupted. `faulthandler` ends the whole process from a thread of its own, which
needs no Python thread; the process that waits for it sees the exit code.
"""

from __future__ import annotations

import faulthandler
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

HUNG_EXIT = 1  # exit code of a process that faulthandler ended
BYTES_PER_S = 50e6  # some headers are found only by reading the whole file
Item = TypeVar("Item")
_stall_s = 0.0


def set_stall(seconds: float) -> None:
    """Set the limit of this process, which `watching` applies by default; 0 for no limit."""
    global _stall_s
    _stall_s = seconds


@contextmanager
def watching(path: Path | None, stall_s: float | None = None) -> Iterator[None]:
    """End this process if the block takes longer than `stall_s` and the time to read the file.

    Args:
        path: The file; None adds no time.
        stall_s: Seconds; 0 for no limit, None for that of the process.
    """
    limit_s = _stall_s if stall_s is None else stall_s
    if not limit_s:
        yield
        return
    size = path.stat().st_size if path is not None and path.is_file() else 0
    faulthandler.dump_traceback_later(limit_s + size / BYTES_PER_S, exit=True, file=_devnull())
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def watched(items: Iterable[Item], watch: Callable[[], AbstractContextManager[None]]) -> Iterator[Item]:
    """Yield the items of a decoder, each of which is taken within a block of `watch`. What is done with an item is outside."""
    iterator = iter(items)
    while True:
        with watch():
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@functools.cache
def _devnull() -> int:
    """Return where faulthandler writes its report; it needs a file that stays open."""
    return os.open(os.devnull, os.O_WRONLY)
