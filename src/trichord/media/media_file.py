"""A file object through which FFmpeg reads media files, so that failed reads of the system are recognized.

If FFmpeg is given a path, it treats `http:x.mp4` as an address, waits for a FIFO, and treats a read error in the middle of some
containers as the end of the file. If it is given this file object, it only sees bytes.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from trichord.files.faults import raise_fault
from trichord.files.reading import open_regular


class MediaFile:
    """A regular file with the methods that PyAV requires. After a failed read, all further reads fail as well.

    Args:
        path: Path of the file.

    Attributes:
        name: Absolute path, of which FFmpeg reads the suffix.

    Raises:
        OSError: As in `open_regular`.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = os.path.abspath(path)
        self._path = path
        self._file = open_regular(path)
        self._position = 0
        self._fault: OSError | MemoryError | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, count: int) -> bytes:
        """Read up to `count` bytes."""
        if self._fault is not None:
            raise self._fault
        try:
            block = os.pread(self._file.fileno(), count, self._position)
        except (OSError, MemoryError) as error:
            self._fault = error
            raise
        self._position += len(block)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it. For an invalid position, return a negative number as FFmpeg expects."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._file.fileno()).st_size}
        if whence not in base or base[whence] + offset < 0:
            return -errno.EINVAL
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the current position."""
        return self._position

    def raise_if_failed(self) -> None:
        """Raise SystemFaultError if a read has failed, no matter how FFmpeg handled the failure."""
        if self._fault is not None:
            raise_fault(self._path, self._fault)
