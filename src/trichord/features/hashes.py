"""SHA-256 of files, each file read once: a digest is kept with the file's path, size and time of change."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

FILE = "hashes.jsonl"


class FileHashes:
    """Digests of files, remembered in the store's folder. May be used by several threads and processes at once.

    A file whose size and modification time (nanoseconds) are those of an earlier call is taken for unchanged, as make
    and rsync do.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / FILE
        self._known: dict[str, tuple[int, int, str]] = {}
        self._lock = threading.Lock()
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                path, size, mtime_ns, digest = json.loads(line)
                self._known[path] = (size, mtime_ns, digest)
            except (ValueError, TypeError):  # a killed process's torn line
                continue

    def sha256(self, path: Path) -> str:
        """Digest of the file's content, hexadecimal. Raises OSError when it cannot be read."""
        status, name = path.stat(), str(path.absolute())
        known = self._known.get(name)
        if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entry = (status.st_size, status.st_mtime_ns, digest)
        with self._lock:
            self._known[name] = entry
            if self._path.parent.is_dir():
                with self._path.open("ab", buffering=0) as file:
                    file.write((json.dumps([name, *entry]) + "\n").encode())
        return digest
