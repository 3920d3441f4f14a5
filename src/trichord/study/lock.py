"""One run in one folder at a time.

The main process of a launch holds a lock on the file `.lock` of the folder, which says who it is. The system lets go of it
when the process ends, however it ends; the file stays. Reports, and evaluations of one model, take no lock.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from trichord.errors import TrichordError, one_line
from trichord.files.folders import check_no_links
from trichord.files.locks import FileLock, LockedByAnotherProcess
from trichord.parallel import on_main

FILE = ".lock"
_BEGIN = b'{"process": '  # of what a run writes


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is created if it is missing.

    Raises TrichordError on all processes of the launch when another run holds it (the message names that run's process and
    machine), or when a link to a folder lies in it: nothing is written through links.
    """
    locks: list[FileLock] = []
    on_main(partial(_acquire, out, locks))
    try:
        yield
    finally:
        for lock in locks:
            lock.release()


def _acquire(out: Path, locks: list[FileLock]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    check_no_links(out)
    try:
        lock = FileLock(out / FILE)
    except LockedByAnotherProcess as error:
        raise TrichordError(
            f"{out}: another run is at work in this folder ({_told(error.holder)}); wait until it ends, or give another --out"
        ) from None
    locks.append(lock)
    if not _is_of_a_run(lock.read()) and not (out / "run.yaml").exists():
        lock.release()
        raise TrichordError(f"{out / FILE}: is not the lock file of a run; move it away, then run the command again")
    mine = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    lock.write(json.dumps(mine).encode() + b"\n")


def _is_of_a_run(content: bytes) -> bool:
    """Whether a run wrote the content of the lock file; it may be cut short."""
    return _holder(content) is not None or _BEGIN.startswith(content[: len(_BEGIN)])


def _told(content: bytes) -> str:
    return _holder(content) or "it has just begun"  # it has the lock and has not yet written


def _holder(content: bytes) -> str | None:
    """Who holds the lock, or held it last, by the content of its file; None where no run wrote that."""
    try:
        holder = json.loads(content)
        return one_line(f"process {int(holder['process'])} on {holder['host']}, since {holder['since']}")[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
