"""The lock of a run folder, which ensures that only one run at a time writes to it.

The main process of a launch locks the file `.lock` in the folder and writes its process ID and machine to it. The system
releases the lock when the process ends for any reason. The file remains. Reports and evaluations of a single model take no lock.
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
_BEGIN = b'{"process": '  # start of the content that a run writes


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the lock of a run folder in the block. The folder is created if it is missing.

    Raises:
        TrichordError: Another run holds the lock (the message names its process and machine), or the folder contains a link to a
            folder, through which nothing is written. All processes of the launch raise it.
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
            f"{out}: another run is using this folder ({_holder_text(error.holder)}); "
            "wait until it ends, or give another --out"
        ) from None
    locks.append(lock)
    if not _is_of_a_run(lock.read()) and not (out / "run.yaml").exists():
        lock.release()
        raise TrichordError(f"{out / FILE}: is not the lock file of a run; move it away, then run the command again")
    mine = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    lock.write(json.dumps(mine).encode() + b"\n")


def _is_of_a_run(content: bytes) -> bool:
    """Return whether a run wrote the content of the lock file, which may be truncated."""
    return _holder(content) is not None or _BEGIN.startswith(content[: len(_BEGIN)])


def _holder_text(content: bytes) -> str:
    return _holder(content) or "it has just started"  # it holds the lock and has not written its name yet


def _holder(content: bytes) -> str | None:
    """Return the current or last holder of the lock from the content of its file, or None if no run wrote it."""
    try:
        holder = json.loads(content)
        return one_line(f"process {int(holder['process'])} on {holder['host']}, since {holder['since']}")[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
