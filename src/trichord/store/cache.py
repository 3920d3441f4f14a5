"""A folder of limited size that holds downloaded shards, each named after its checksum. Several processes may share it.

The files in it are complete. Each process compares a file with its checksum before using it for the first time, and fetches it
again if the disk has damaged it. Only files whose name is a checksum are counted and deleted. Including downloads in progress,
their total size never exceeds the limit: the least recently used shards are deleted first. A process that has a deleted shard
mapped can keep reading it, because POSIX keeps the file until it is closed everywhere. The cache notifies the readers in its
own process, so that they drop the mapping and free the space.
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
Download = Callable[[int], str]  # writes to a descriptor and returns the SHA-256 of the data


class Mapped(Protocol):
    """An object that keeps shards memory-mapped."""

    def drop(self, checksum: str) -> None:
        """Drop the mapping of the shard with this checksum."""
        ...


def cache_bytes(cache_gb: float | None = None) -> int:
    """Return the size limit of the cache in bytes: `cache_gb`, else TRICHORD_CACHE_GB, else 20 GB.

    Raises:
        TrichordError: The limit is not a number above 0.
    """
    limit_gb = os.environ.get("TRICHORD_CACHE_GB", DEFAULT_GB) if cache_gb is None else cache_gb
    try:
        num_bytes = int(float(limit_gb) * 1e9)
    except (ValueError, OverflowError):
        num_bytes = 0
    if num_bytes <= 0:
        raise TrichordError(
            f"the cache of remote stores cannot hold {limit_gb} GB; set TRICHORD_CACHE_GB to a number above 0"
        )
    return num_bytes


@contextmanager
def writing_to_cache(folder: Path) -> Iterator[None]:
    """Turn an OSError of a block that writes to a folder of the cache into a TrichordError that says what to do."""
    advice = "correct its permissions, or set TRICHORD_CACHE to another folder"
    with writing_to(folder, advice, "the cache folder is not writable"):
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            problem = (
                "is on a full disk; free some space, lower TRICHORD_CACHE_GB, or set TRICHORD_CACHE to another folder"
            )
            raise TrichordError(f"{folder}: {problem}") from error


class ShardCache:
    """A folder of shards with a total size limit. Threads and processes may use it at the same time.

    Args:
        folder: The folder, which is created if it is missing.
        max_bytes: The limit for the total size of the shards.

    Raises:
        TrichordError: The folder is not writable.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._used: dict[str, float] = {}  # when this process last used each shard
        self._touched: dict[str, float] = {}  # when this process last updated the time of each shard's file
        self._verified: dict[str, tuple[int, int]] = {}  # device and inode of each file that this process has verified
        self._mapped: WeakSet[Mapped] = WeakSet()
        with writing_to_cache(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._trim(0)  # the limit may be lower than before

    def watch(self, mapped: Mapped) -> None:
        """Notify `mapped` whenever a shard is deleted."""
        self._mapped.add(mapped)

    def path(
        self, checksum: str, num_bytes: int, where: str, download: Download, *, again: bool = False, wait: bool = True
    ) -> Path:
        """Return the path of the shard with a checksum, after downloading it if necessary.

        The cache may delete the file at any time afterwards. A call that waits for another download may find that the shard was
        used and deleted in the meantime, and download it a second time.

        Args:
            checksum: The SHA-256 of the shard.
            num_bytes: The size of the shard.
            where: The source of the shard, for error messages.
            download: Writes the shard to a descriptor and returns the SHA-256 of what it wrote.
            again: Whether to download the shard even if the cache has it.
            wait: Whether to wait if another thread or process is downloading the shard. Otherwise the call returns at once.

        Raises:
            TrichordError: The downloaded data have another checksum, the shard alone exceeds the size limit, or the disk is full.
        """
        if not _CHECKSUM.fullmatch(checksum):
            raise TrichordError(f"{where}: its checksum is not valid; copy the store again")
        if num_bytes > self.max_bytes:
            raise TrichordError(
                f"{where}: has {num_bytes / 1e9:.3g} GB, but the cache is limited to {self.max_bytes / 1e9:.3g} GB; "
                "increase TRICHORD_CACHE_GB"
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
        """Return whether a file has the content that its name promises; otherwise delete it."""
        try:
            with open_regular(final) as file:
                status = os.fstat(file.fileno())
                if self._verified.get(checksum) == (status.st_dev, status.st_ino):
                    return True
                if hashlib.file_digest(file, "sha256").hexdigest() == checksum:
                    self._verified[checksum] = (status.st_dev, status.st_ino)
                    return True
        except FileNotFoundError:  # deleted in the meantime to make room
            return False
        final.unlink(missing_ok=True)
        return False

    def used(self, checksum: str) -> None:
        """Record that the shard is in use: for this process immediately, for other processes at most every half minute."""
        now = time.time()
        self._used[checksum] = now
        if now - self._touched.get(checksum, 0.0) > TOUCH_EVERY_S:
            self._touched[checksum] = now
            with suppress(OSError):
                os.utime(self.folder / f"{checksum}.safetensors")

    def num_bytes(self) -> int:
        """Return the total size in bytes of the files in the folder."""
        with self._alone():
            return sum(size for _, size, _ in self._files())

    @contextmanager
    def _claimed(self, final: Path, num_bytes: int, wait: bool) -> Iterator[int | None]:
        """Yield a locked file to download into, or None if another thread has the shard or, without `wait`, is downloading it."""
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
            received = download(descriptor)
            if received != checksum:
                raise TrichordError(
                    f"{where}: its content does not match its checksum, so it was damaged or changed after the store was written; "
                    "copy the store again, then run again"
                )
            os.fsync(descriptor)
            with self._alone():  # a process that counts the files would miss one that is being renamed
                os.replace(temporary, final)
                status = os.fstat(descriptor)
                self._verified[checksum] = (status.st_dev, status.st_ino)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(self.folder)

    def _make_room(self, descriptor: int, num_bytes: int) -> None:
        """Reserve space for a download in the open file, after deleting shards until it fits."""
        while True:
            with self._alone():
                os.ftruncate(descriptor, 0)
                if self._trim(num_bytes):
                    _reserve(descriptor, num_bytes)
                    return
            time.sleep(_WAIT_S)  # the other files are being downloaded and can be deleted later

    def _trim(self, num_bytes: int) -> bool:
        """Delete the least recently used files until `num_bytes` more fit. Return False if running downloads prevent this."""
        files = sorted(self._files(), key=lambda file: self._last_use(*file))
        excess = sum(size for _, size, _ in files) + num_bytes - self.max_bytes
        for path, size, _ in files:
            if excess > 0 and self._delete(path):
                excess -= size
        return excess <= 0

    def _delete(self, path: Path) -> bool:
        """Delete a shard or the remains of a killed download. Return False if the file is being downloaded."""
        if path.suffix == ".tmp":
            try:
                with FileLock(path):  # the downloading process holds the lock
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
        files = []
        for entry in os.scandir(self.folder):
            if _OWN.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # another process deleted it
                    status = entry.stat(follow_symlinks=False)
                    files.append((Path(entry.path), status.st_size, status.st_mtime))
        return files

    def _last_use(self, path: Path, size: int, mtime: float) -> float:
        return max(mtime, self._used.get(path.name.removesuffix(".safetensors"), 0.0))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from changing the folder during the block."""
        with FileLock(self.folder / "lock", wait_s=None):
            yield


_CACHES: dict[tuple[int, Path, int], ShardCache] = {}
_OPENING = threading.Lock()


def shard_cache(folder: Path, max_bytes: int) -> ShardCache:
    """Return the cache of this process in a folder. All stores of the process share it."""
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
    """Give the file its size. If the system supports it, a full disk is reported here."""
    if num_bytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, num_bytes)
    else:
        os.ftruncate(descriptor, num_bytes)
