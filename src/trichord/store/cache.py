"""A bounded folder of shards that came from elsewhere, each under its own checksum; several processes share it.

A file in it is whole. Each process compares it with its checksum before it uses it for the first time; a file that the disk
has damaged since is fetched again. Only files whose name is a checksum are counted and deleted. The folder never holds more
bytes of them than its bound, files under way included: those used longest ago are deleted. A process that has one mapped
keeps reading it (POSIX keeps a deleted file until nobody has it open), so its blocks are free once the process drops the
mapping, which it is told to do.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from trichord.errors import TrichordError
from trichord.files.locks import FileLock, LockedByAnotherProcess
from trichord.files.reading import open_regular
from trichord.files.writing import sync, writing_to

DEFAULT_GB = 20.0
TOUCH_EVERY_S = 30.0
_WAIT_S = 0.05
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_OWN = re.compile(r"[0-9a-f]{64}\.safetensors|\.[0-9a-f]{64}\.safetensors\.tmp")
Download = Callable[[int], str]  # writes into a descriptor, gives the SHA-256 of what it wrote


class Mapped(Protocol):
    """Somebody who has shards mapped."""

    def drop(self, checksum: str) -> None: ...


def cache_bytes(cache_gb: float | None = None) -> int:
    """The bound: what is given, or TRICHORD_CACHE_GB, or 20 GB. Raises TrichordError unless it is a number above 0."""
    said = os.environ.get("TRICHORD_CACHE_GB", DEFAULT_GB) if cache_gb is None else cache_gb
    try:
        num_bytes = int(float(said) * 1e9)
    except (ValueError, OverflowError):
        num_bytes = 0
    if num_bytes <= 0:
        raise TrichordError(f"the cache of remote stores cannot hold {said} GB; set TRICHORD_CACHE_GB above 0")
    return num_bytes


@contextmanager
def writing_to_cache(folder: Path) -> Iterator[None]:
    """Raise TrichordError, which says what to do, where the block cannot write to a folder of the cache."""
    advice = "mend its rights, or name another folder in TRICHORD_CACHE"
    with writing_to(folder, advice, "the cache cannot be written"):
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            what = (
                "is on a full disk; free some space, lower TRICHORD_CACHE_GB, or name another folder in TRICHORD_CACHE"
            )
            raise TrichordError(f"{folder}: {what}") from error


class ShardCache:
    """The shards in `folder`, at most `max_bytes` of them. Threads and processes may use it at the same time.

    Raises TrichordError when the folder cannot be written to.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._used: dict[str, float] = {}  # when this process last used a shard, and last said so
        self._told: dict[str, float] = {}
        self._verified: dict[str, tuple[int, int]] = {}  # device and inode of the files that this process has checked
        self._mapped: WeakSet[Mapped] = WeakSet()
        with writing_to_cache(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._trim(0)  # the bound may be lower than it was

    def watch(self, mapped: Mapped) -> None:
        """Tell `mapped` when a shard is deleted."""
        self._mapped.add(mapped)

    def path(
        self, checksum: str, num_bytes: int, where: str, download: Download, *, again: bool = False, wait: bool = True
    ) -> Path:
        """The shard with this SHA-256, downloaded if it is not there (or `again`). It may be deleted at any time after.

        Without `wait`, the call returns at once if another thread or process is downloading the shard. A call that waits may
        find that the shard was used and deleted meanwhile, and download it a second time.

        Raises TrichordError when what is downloaded has another checksum (`where` names it), the shard alone is larger
        than the bound, or the disk is full.
        """
        if not _CHECKSUM.fullmatch(checksum):
            raise TrichordError(f"{where}: its checksum is not valid; copy the store anew")
        if num_bytes > self.max_bytes:
            raise TrichordError(
                f"{where}: has {num_bytes / 1e9:.3g} GB, the cache holds {self.max_bytes / 1e9:.3g} GB; "
                "set TRICHORD_CACHE_GB to more"
            )
        final = self.folder / f"{checksum}.safetensors"
        with writing_to_cache(self.folder):
            if again:
                final.unlink(missing_ok=True)
            if _size(final) == num_bytes and self._is_sound(final, checksum):
                self.used(checksum)
                return final
            with self._claimed(final, num_bytes, wait) as descriptor:
                if descriptor is not None:
                    self._fill(descriptor, final, checksum, num_bytes, where, download)
            self.used(checksum)
            return final

    def _is_sound(self, final: Path, checksum: str) -> bool:
        """Return whether a file has the content that its name promises; one that has not is deleted."""
        try:
            with open_regular(final) as file:
                status = os.fstat(file.fileno())
                if self._verified.get(checksum) == (status.st_dev, status.st_ino):
                    return True
                if hashlib.file_digest(file, "sha256").hexdigest() == checksum:
                    self._verified[checksum] = (status.st_dev, status.st_ino)
                    return True
        except FileNotFoundError:  # deleted in between to make room
            return False
        final.unlink(missing_ok=True)
        return False

    def used(self, checksum: str) -> None:
        """Note that the shard is in use, for this process at once, for others every half minute."""
        now = time.time()
        self._used[checksum] = now
        if now - self._told.get(checksum, 0.0) > TOUCH_EVERY_S:
            self._told[checksum] = now
            with suppress(OSError):
                os.utime(self.folder / f"{checksum}.safetensors")

    def num_bytes(self) -> int:
        """Bytes of the files in the folder, at one moment."""
        with self._alone():
            return sum(size for _, size, _ in self._files())

    @contextmanager
    def _claimed(self, final: Path, num_bytes: int, wait: bool) -> Iterator[int | None]:
        """Yield a locked file to download into; None if another thread has fetched the shard or, without `wait`, is fetching it."""
        temporary = final.with_name(f".{final.name}.tmp")
        try:
            lock = FileLock(temporary, wait_s=None if wait else 0.0)
        except LockedByAnotherProcess:
            yield None
            return
        with lock:
            if not lock.is_exclusive:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(temporary))
            if _size(final) == num_bytes:
                temporary.unlink(missing_ok=True)
                yield None
            else:
                yield lock.descriptor

    def _fill(
        self, descriptor: int, final: Path, checksum: str, num_bytes: int, where: str, download: Download
    ) -> None:
        temporary = final.with_name(f".{final.name}.tmp")
        try:
            self._make_room(descriptor, num_bytes)
            found = download(descriptor)
            if found != checksum:
                raise TrichordError(
                    f"{where}: its content does not match its checksum: torn, or changed since the store was written; "
                    "copy the store anew, then run again"
                )
            os.fsync(descriptor)
            with self._alone():  # who counts the files meanwhile would miss one that changes its name
                os.replace(temporary, final)
                status = os.fstat(descriptor)
                self._verified[checksum] = (status.st_dev, status.st_ino)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(self.folder)

    def _make_room(self, descriptor: int, num_bytes: int) -> None:
        """Give the file under `descriptor` its size, after deleting what keeps it from fitting."""
        while True:
            with self._alone():
                os.ftruncate(descriptor, 0)
                if self._trim(num_bytes):
                    _reserve(descriptor, num_bytes)
                    return
            time.sleep(_WAIT_S)  # the rest is being downloaded: it may go when that has ended

    def _trim(self, num_bytes: int) -> bool:
        """Delete what was used longest ago until so many bytes more fit. False when they do not, for what is under way."""
        files = sorted(self._files(), key=lambda file: self._last_use(*file))
        excess = sum(size for _, size, _ in files) + num_bytes - self.max_bytes
        for path, size, _ in files:
            if excess > 0 and self._delete(path):
                excess -= size
        return excess <= 0

    def _delete(self, path: Path) -> bool:
        """Delete a shard, or a file that a killed download left. False for one that is being downloaded."""
        if path.suffix == ".tmp":
            try:
                with FileLock(path):  # whoever downloads into it holds the lock
                    path.unlink(missing_ok=True)
            except LockedByAnotherProcess:
                return False
            return True
        path.unlink(missing_ok=True)
        checksum = path.name.removesuffix(".safetensors")
        for mapped in list(self._mapped):
            mapped.drop(checksum)
        return True

    def _files(self) -> list[tuple[Path, int, float]]:
        found = []
        for entry in os.scandir(self.folder):
            if _OWN.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # another process deleted it
                    status = entry.stat(follow_symlinks=False)
                    found.append((Path(entry.path), status.st_size, status.st_mtime))
        return found

    def _last_use(self, path: Path, size: int, mtime: float) -> float:
        return max(mtime, self._used.get(path.name.removesuffix(".safetensors"), 0.0))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else makes room meanwhile."""
        with FileLock(self.folder / "lock", wait_s=None):
            yield


_CACHES: dict[tuple[int, Path, int], ShardCache] = {}
_OPENING = threading.Lock()


def shard_cache(folder: Path, max_bytes: int) -> ShardCache:
    """The cache of this process in that folder: what one store uses, another one knows of."""
    with _OPENING:
        key = (os.getpid(), folder, max_bytes)
        if key not in _CACHES:
            _CACHES[key] = ShardCache(folder, max_bytes)
        return _CACHES[key]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _reserve(descriptor: int, num_bytes: int) -> None:
    """Give the file its size; where the system can, a disk that is too full says so here."""
    if num_bytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, num_bytes)
    else:
        os.ftruncate(descriptor, num_bytes)
