"""Rows of a whole sound file, kept for the clips that are cut out of it."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from trichord.features.encoders import AudioEncoder, Sound


class FileRows:
    """Rows of the whole file that was asked for last, in a temporary file: the clips of one file come in a row."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._file: BinaryIO | None = None
        self._rows = np.empty((0, 0), np.float16)

    def get(self, path: Path, encoder: AudioEncoder, sound_of: Sound) -> np.ndarray:
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns, str(encoder.fingerprint))
        if key != self._key:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its rows are wanted
            for rows in encoder.encode(sound_of):
                file.write(np.ascontiguousarray(rows, np.float16).tobytes())
            file.flush()
            shape = (file.tell() // (2 * encoder.dim), encoder.dim)
            rows_of_file = np.memmap(file, np.float16, "r", shape=shape) if shape[0] else np.empty(shape, np.float16)
            self.close()
            self._key, self._file, self._rows = key, file, rows_of_file
        return self._rows

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._key, self._file = (), None


FILE_ROWS = FileRows()
atexit.register(FILE_ROWS.close)
