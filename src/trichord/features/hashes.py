"""SHA-256 of files. Each file is read once: its digest is stored with its path, size and modification times."""

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
    """File attributes that change when a file is modified or replaced. Changes of permissions and links count too."""

    size: int
    mtime_ns: int
    ctime_ns: int


def state_of(path: Path) -> FileState:
    """Return the state of a regular file.

    Raises:
        OSError: The file cannot be examined or is not regular.
    """
    status = check_regular(path)
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class FileHashes:
    """The digests of files, stored in the folder of a store. Safe to use from several threads and processes.

    A file whose size, modification time and status change time (in nanoseconds) are the same as in an earlier call is considered
    unchanged. The status change time reveals a replacement by a file of the same size and modification time. Stores of earlier
    versions lack it, so size and modification time decide there.

    Args:
        store: The folder in which the digests are stored.
        keep: Whether to store new digests.
    """

    def __init__(self, store: Path, *, keep: bool = True) -> None:
        self._path, self._keep = store / FILE, keep
        self._stopped = threading.Event()
        self._known: dict[str, tuple[str, int, int, int | None]] = {}
        self._lock = threading.Lock()
        self._captions: dict[str, set[str]] | None = None
        for name, digest, size, mtime_ns, ctime_ns in self._records():
            self._known[name] = (digest, size, mtime_ns, ctime_ns)

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file in hexadecimal.

        Raises:
            OSError: The file cannot be read or is not regular.
        """
        state, name = state_of(path), str(path.absolute())
        digest, *known = self._known.get(name, ("", None, None, None))
        if known == [state.size, state.mtime_ns, known[2] and state.ctime_ns]:
            return digest
        digest = self._read(path)
        entry = (digest, state.size, state.mtime_ns, state.ctime_ns)
        with self._lock:
            self._known[name] = entry
            if self._keep and self._path.parent.is_dir():
                with suppress(OSError):  # the record only saves time
                    append_json_line(self._path, [name, state.size, state.mtime_ns, digest, state.ctime_ns])
        return digest

    def earlier_captions(self, path: Path) -> set[str]:
        """Return the digests of all caption files ever read that have the name of `path`, in any folder."""
        with self._lock:
            if self._captions is None:
                self._captions = {}
                for path_text, digest, *_ in self._records():
                    name = Path(path_text).name
                    if name.lower().endswith(SIDECAR_SUFFIXES):
                        parts = name.split(".")
                        for count in range(1, len(parts)):
                            self._captions.setdefault(".".join(parts[:count]), set()).add(digest)
        return self._captions.get(path.stem, set())

    def _records(self) -> Iterator[tuple[str, str, int, int, int | None]]:
        """Yield the path, digest, size and times of every file ever read, including files that have changed since."""
        for values in json_lines(self._path):
            with suppress(ValueError, TypeError):
                path, size, mtime_ns, digest, *more = values
                yield str(path), str(digest), size, mtime_ns, more[0] if more else None

    def _read(self, path: Path) -> str:
        digest = hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(_BLOCK_BYTES):
                if self._stopped.is_set():
                    raise InterruptedError(errno.EINTR, "the run was stopped", str(path))
                digest.update(block)
        return digest.hexdigest()

    def stop(self) -> None:
        """Make other threads stop reading their files."""
        self._stopped.set()
