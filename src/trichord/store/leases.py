"""Leases: which process works on what, so that several on one store do nothing twice.

A lease is a lock on one byte of one file; the byte follows from the name of the work. The system lets go of it when
the process ends, however it ends, so nothing has to be cleaned up. It holds between processes, not within one, and on
network file systems that know locks (NFS 4 does). On a file system without locks every process gets every lease: work may be
done twice, and comes out the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path

from trichord.files.locks import NO_LOCKS
from trichord.files.writing import writing_to

FILE = "leases"


class Leases:
    """The leases of this process on one store. Only one object per store and process may be open."""

    def __init__(self, store: Path) -> None:
        with writing_to(store, "check the path"):
            self._descriptor = os.open(store / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        self._held: set[str] = set()
        self._knows_locks = True

    def acquire(self, name: str) -> bool:
        """Whether the work `name` is now this process's (again, if it was)."""
        if not self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        self._held.add(name)
        return True

    def wait(self, name: str) -> None:
        """Acquire the work `name`, as soon as whoever has it lets go. On file systems that know no locks nobody waits."""
        self._lock(name, fcntl.LOCK_EX)
        self._held.add(name)

    def release(self, name: str) -> None:
        if name in self._held:
            self._held.discard(name)
            self._lock(name, fcntl.LOCK_UN)

    def holds(self, name: str) -> bool:
        return name in self._held

    def alone_or_shared(self, name: str) -> bool:
        """True: nobody else uses `name`, and nobody can until `share`. False: it is shared with others now."""
        while True:
            for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                if self._lock(name, kind | fcntl.LOCK_NB):
                    return kind == fcntl.LOCK_EX
            time.sleep(0.05)  # somebody is alone with it for a moment

    def share(self, name: str) -> None:
        """Let others use `name` too, but none alone."""
        self._lock(name, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go of all."""
        os.close(self._descriptor)

    def _lock(self, name: str, kind: int) -> bool:
        """Return whether the lock was had. A file system without locks gives every lock."""
        if not self._knows_locks:
            return True
        try:
            fcntl.lockf(self._descriptor, kind, 1, _position(name))
        except OSError as error:
            if error.errno in NO_LOCKS:
                self._knows_locks = False
                return True
            if not isinstance(error, BlockingIOError | PermissionError):
                raise
            return False
        return True

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _position(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 2  # below the largest file offset
