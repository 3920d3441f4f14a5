"""Exclusive locks on files, held until they are released or the process ends for any reason.

The lock file stays when the lock is released. If a user deletes it as "a stale lock", the next process locks a new file of
the same name, and two processes would hold the lock. A lock therefore counts only while its file still has its name:
`_acquire` tries again on the new file, and `check` tells a holder that it lost the lock. Some network file systems do not
support locks. Processes do not wait for each other there, as documented where a lock is used.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from trichord.errors import TrichordError
from trichord.files.reading import NotRegularFileError, open_descriptor, unreadable

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # errors of file systems without locks
_WRONG_KIND = (errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV)  # folders, links, sockets, devices
_NOT_A_LOCK_FILE = "it is not a lock file; move it away, then run the command again"
_POLL_S = 0.05
_MAX_CONTENT = 4096


class LockedByAnotherProcess(Exception):
    """Raised when another process holds the lock.

    Attributes:
        holder: The content that the other process wrote to the lock file.
    """

    def __init__(self, holder: bytes) -> None:
        super().__init__("another process holds the lock")
        self.holder = holder


class FileLock:
    """An exclusive lock on a file, which is created if it is missing.

    Args:
        path: The lock file.
        wait_s: How long to wait for another process, in seconds; None waits without a limit.

    Attributes:
        descriptor: The open lock file.
        is_exclusive: False on a file system without locks.

    Raises:
        LockedByAnotherProcess: Another process still holds the lock after `wait_s`.
        TrichordError: The lock file is a link, a folder, a FIFO or a device.
        OSError: The file cannot be created or opened.
    """

    def __init__(self, path: Path, *, wait_s: float | None = 0.0) -> None:
        self.path, self.is_exclusive = path, True
        until = None if wait_s is None else time.monotonic() + wait_s
        while True:
            self.descriptor = _open_lock_file(path)
            try:
                if self._acquire(until) and self._has_its_name():
                    return
            except BaseException:
                os.close(self.descriptor)
                raise
            os.close(self.descriptor)

    def check(self) -> None:
        """Check that this process still holds the lock.

        Raises:
            TrichordError: The lock file was removed or replaced, so that another process may hold the lock.
        """
        if not self._has_its_name():
            raise TrichordError(
                f"{self.path}: the lock file was removed while this process held it, so another process may be writing here; "
                "stop the other processes, then run the command again"
            )

    def read(self) -> bytes:
        """Return the content of the lock file, at most 4 KiB."""
        return os.pread(self.descriptor, _MAX_CONTENT, 0)

    def write(self, content: bytes) -> None:
        """Replace the content of the lock file, which describes the holder of the lock."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, content, 0)

    def release(self) -> None:
        """Release the lock, so that other processes can acquire it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _acquire(self, until: float | None) -> bool:
        """Wait for the lock on the open file. Return False if the file lost its name in the meantime."""
        from filelock import lock_descriptor

        try:
            while not lock_descriptor(self.descriptor, blocking=False):
                if not self._has_its_name():
                    return False
                if until is not None and time.monotonic() >= until:
                    raise LockedByAnotherProcess(self.read())
                time.sleep(_POLL_S)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self.is_exclusive = False
        return True

    def _has_its_name(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a lock file; False if this cannot be determined, as without lock support."""
    from filelock import lock_descriptor

    for mode in (os.O_RDWR, os.O_RDONLY):  # NFS requires write access to lock a file, which other users lack
        try:
            descriptor = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            return not lock_descriptor(descriptor, blocking=False)  # closing the descriptor releases the lock at once
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return False


def _open_lock_file(path: Path) -> int:
    try:
        return open_descriptor(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    except OSError as error:
        if isinstance(error, NotRegularFileError) or error.errno in _WRONG_KIND:
            raise unreadable(path, error, mend=_NOT_A_LOCK_FILE) from None
        raise
