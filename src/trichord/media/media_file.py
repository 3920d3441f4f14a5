"""A media file as FFmpeg reads it: through Python, so that a read that the system fails is known for what it is.

Given a path, FFmpeg takes `http:x.mp4` for an address, waits for a FIFO, and takes a read error in the middle of some
containers for the end of the file. Given this file, it sees bytes alone.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from trichord.files.faults import raise_fault
from trichord.files.reading import open_regular


class MediaFile:
    """A regular file with the methods that PyAV asks for. After a failed read every further one fails too.

    Attributes:
        name: The absolute path; FFmpeg looks at its suffix.

    Raises OSError as `open_regular`.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = os.path.abspath(path)
        self._path = path
        self._file = open_regular(path)
        self._position = 0
        self._fault: OSError | MemoryError | None = None

    def close(self) -> None:
        self._file.close()

    def read(self, count: int) -> bytes:
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
        """Return the new position, or a negative number, as FFmpeg has it, for one before the file's beginning."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._file.fileno()).st_size}
        if whence not in base or base[whence] + offset < 0:
            return -errno.EINVAL
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def raise_if_failed(self) -> None:
        """Raise SystemFaultError if a read has failed, whatever FFmpeg made of that."""
        if self._fault is not None:
            raise_fault(self._path, self._fault)
