"""SHA-256 of files, each file read once: a digest is kept with the file's path, size and time of change."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trichord.captions import SIDECAR_SUFFIXES
from trichord.files.reading import check_regular, json_lines, open_regular
from trichord.files.writing import append_json_line

FILE = "hashes.jsonl"
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class FileState:
    """What changes when a file is written to or replaced. Changes of its rights and links count too, which does no harm."""

    size: int
    mtime_ns: int
    ctime_ns: int


def state_of(path: Path) -> FileState:
    """Return the state of a regular file. Raises OSError as `check_regular`."""
    status = check_regular(path)
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class FileHashes:
    """Digests of files, remembered in the store's folder. May be used by several threads and processes at once.

    A file whose size, modification time and time of change (nanoseconds) are those of an earlier call is taken for
    unchanged. The time of change tells a file that was replaced by one of the same size and modification time. Stores of
    earlier versions do not hold it; there size and modification time decide.

    Args:
        store: Where the digests are remembered.
        keep: False remembers nothing new.
    """

    def __init__(self, store: Path, *, keep: bool = True) -> None:
        self._path, self._keep = store / FILE, keep
        self._stopped = threading.Event()
        self._known: dict[str, tuple[str, int, int, int | None]] = {}
        self._lock = threading.Lock()
        self._captions: dict[str, set[str]] | None = None
        for name, digest, size, mtime_ns, ctime_ns in self._noted():
            self._known[name] = (digest, size, mtime_ns, ctime_ns)

    def sha256(self, path: Path) -> str:
        """Digest of the file's content, hexadecimal. Raises OSError when it cannot be read or is no regular file."""
        state, name = state_of(path), str(path.absolute())
        digest, *known = self._known.get(name, ("", None, None, None))
        if known == [state.size, state.mtime_ns, known[2] and state.ctime_ns]:
            return digest
        digest = self._read(path)
        entry = (digest, state.size, state.mtime_ns, state.ctime_ns)
        with self._lock:
            self._known[name] = entry
            if self._keep and self._path.parent.is_dir():
                with suppress(OSError):  # it only saves time
                    append_json_line(self._path, [name, state.size, state.mtime_ns, digest, state.ctime_ns])
        return digest

    def earlier_captions(self, path: Path) -> set[str]:
        """Digests of all files with the name of `path` and a suffix of captions that were ever read, whatever their folder."""
        with self._lock:
            if self._captions is None:
                self._captions = {}
                for path_text, digest, *_ in self._noted():
                    name = Path(path_text).name
                    if name.lower().endswith(SIDECAR_SUFFIXES):
                        parts = name.split(".")
                        for count in range(1, len(parts)):
                            self._captions.setdefault(".".join(parts[:count]), set()).add(digest)
        return self._captions.get(path.stem, set())

    def _noted(self) -> Iterator[tuple[str, str, int, int, int | None]]:
        """Path, digest, size and times of every file that was ever read, also of files that have changed since."""
        for values in json_lines(self._path):
            with suppress(ValueError, TypeError):
                path, size, mtime_ns, digest, *more = values
                yield str(path), str(digest), size, mtime_ns, more[0] if more else None

    def _read(self, path: Path) -> str:
        digest = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(_BLOCK_BYTES):
                if self._stopped.is_set():
                    raise InterruptedError(errno.EINTR, "the run was ended", str(path))
                digest.update(block)
        return digest.hexdigest()

    def stop(self) -> None:
        """Let other threads end the file that they read."""
        self._stopped.set()
