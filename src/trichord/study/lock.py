"""One run in one folder at a time.

The main process of a launch holds a lock on the file `.lock` of the folder, which says who it is. The system lets go of it
when the process ends, however it ends; the file stays. Reports, and evaluations of one model, take no lock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from trichord.errors import TrichordError, one_line
from trichord.parallel import on_main

FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made if need be.

    Raises TrichordError on all processes of the launch when another run holds it; it names that run's process and machine.
    """
    descriptors: list[int] = []
    on_main(partial(_acquire, out, descriptors))
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _acquire(out: Path, descriptors: list[int]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 4096)
        os.close(descriptor)
        if error.errno in _NO_LOCKS:  # some network file systems know none: as it was before there were locks
            return
        if not isinstance(error, BlockingIOError):
            raise
        raise TrichordError(
            f"{out}: another run is at work in this folder ({_told(holder)}); wait until it ends, or give another --out"
        ) from None
    descriptors.append(descriptor)
    mine = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(mine).encode() + b"\n", 0)


def _told(holder: bytes) -> str:
    try:
        found = json.loads(holder)
        return one_line(f"process {int(found['process'])} on {found['host']}, since {found['since']}")[:200]
    except (ValueError, KeyError, TypeError, RecursionError):  # it has the lock and has not yet written
        return "it has just begun"
