"""Rows of a whole audio file, kept for the clips that are cut from it."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trichord.features.encoders import AudioEncoder, Sound


class FileRows:
    """The rows of the most recent audio file, in a temporary file. The clips of one file are extracted consecutively."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._file: BinaryIO | None = None
        self._rows = np.empty((0, 0), np.float16)

    def get(self, path: Path, encoder: AudioEncoder, sound_of: Sound) -> np.ndarray:
        """Return the rows of an audio file, which are computed unless it is the most recent one."""
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns, str(encoder.fingerprint))
        if key != self._key:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - kept open for as long as its rows are needed
            for rows in encoder.encode(sound_of):
                file.write(np.ascontiguousarray(rows, np.float16).tobytes())
            file.flush()
            shape = (file.tell() // (2 * encoder.dim), encoder.dim)
            rows_of_file = np.memmap(file, np.float16, "r", shape=shape) if shape[0] else np.empty(shape, np.float16)
            self.close()
            self._key, self._file, self._rows = key, file, rows_of_file
        return self._rows

    def close(self) -> None:
        """Delete the temporary file."""
        if self._file is not None:
            self._file.close()
            self._key, self._file = (), None


FILE_ROWS = FileRows()
atexit.register(FILE_ROWS.close)
