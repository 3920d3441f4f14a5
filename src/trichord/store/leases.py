"""Leases: a record of which process works on what, so that several processes on one store do not repeat work.

A lease is a lock on one byte of a file; the name of the work determines the byte. The system releases it when the process ends
for any reason, so no cleanup is needed. Leases work between processes, not within one, and on network file systems that support
locks (such as NFS 4). On a file system without locks every process gets every lease. Work may then be done twice, with the same
result.
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
    """The leases of this process on one store. Only one such object per store and process may be open.

    Args:
        store: The folder of the store.

    Raises:
        TrichordError: The store is not writable.
    """

    def __init__(self, store: Path) -> None:
        with writing_to(store, "check the path"):
            self._descriptor = os.open(store / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        self._held: set[str] = set()
        self._has_locks = True

    def acquire(self, name: str) -> bool:
        """Try to acquire the lease of the work `name`; return whether this process now holds it."""
        if not self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        self._held.add(name)
        return True

    def wait(self, name: str) -> None:
        """Wait until the lease of the work `name` is free and acquire it. Does not wait on file systems without locks."""
        self._lock(name, fcntl.LOCK_EX)
        self._held.add(name)

    def release(self, name: str) -> None:
        """Release the lease of the work `name` if this process holds it."""
        if name in self._held:
            self._held.discard(name)
            self._lock(name, fcntl.LOCK_UN)

    def holds(self, name: str) -> bool:
        """Return whether this process holds the lease of the work `name`."""
        return name in self._held

    def alone_or_shared(self, name: str) -> bool:
        """Acquire `name` exclusively if no process uses it, otherwise shared; return whether it is exclusive.

        An exclusive holder keeps others out until it calls `share`.
        """
        while True:
            for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                if self._lock(name, kind | fcntl.LOCK_NB):
                    return kind == fcntl.LOCK_EX
            time.sleep(0.05)  # another process briefly holds it exclusively

    def share(self, name: str) -> None:
        """Change an exclusive lease to a shared one, so that other processes can use `name` too."""
        self._lock(name, fcntl.LOCK_SH)

    def close(self) -> None:
        """Release all leases."""
        os.close(self._descriptor)

    def _lock(self, name: str, kind: int) -> bool:
        """Return whether the lock was acquired. A file system without locks grants every lock."""
        if not self._has_locks:
            return True
        try:
            fcntl.lockf(self._descriptor, kind, 1, _position(name))
        except OSError as error:
            if error.errno in NO_LOCKS:
                self._has_locks = False
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
