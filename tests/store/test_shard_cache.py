"""The cache of remote stores: bounds, checksums, several threads and processes, faults."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichord.errors import TrichordError
from trichord.store.cache import ShardCache, cache_bytes


def content(number: int, size: int = 100) -> bytes:
    return np.random.default_rng(number).bytes(size)


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def writing(data: bytes, log: list[str] | None = None) -> Callable[[int], str]:
    def download(descriptor: int) -> str:
        if log is not None:
            log.append(checksum(data))
        os.pwrite(descriptor, data, 0)
        return checksum(data)

    return download


def get(cache: ShardCache, data: bytes, log: list[str] | None = None) -> Path:
    return cache.path(checksum(data), len(data), "s3://b/parts/0", writing(data, log))


class OldestFirst:
    """The expected content of a cache of `room` bytes, computed slowly."""

    def __init__(self, room: int) -> None:
        self.room, self.held = room, list[bytes]()

    def get(self, data: bytes) -> bool:
        """Return whether the file had to be downloaded."""
        there = data in self.held
        if there:
            self.held.remove(data)
        while sum(map(len, self.held)) + len(data) > self.room:
            self.held.pop(0)
        self.held.append(data)
        return not there


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=40), st.integers(100, 350))
def test_it_keeps_recent_files_within_its_bound(
    tmp_path_factory: pytest.TempPathFactory, asked: list[int], room: int
) -> None:
    cache, oracle = ShardCache(tmp_path_factory.mktemp("cache"), room), OldestFirst(room)
    for number in asked:
        data, log = content(number, 40 + 8 * number), list[str]()
        assert get(cache, data, log).read_bytes() == data
        assert bool(log) == oracle.get(data)
        assert cache.num_bytes() <= room
        names = {path.stem for path in cache.folder.glob("*.safetensors")}
        assert names == {checksum(held) for held in oracle.held}


def test_a_file_with_wrong_content_is_refused_and_removed(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000)
    with pytest.raises(TrichordError, match="^s3://b/parts/0: its content does not match its checksum.*copy the store"):
        cache.path(checksum(content(0)), 100, "s3://b/parts/0", writing(content(1)))
    assert cache.num_bytes() == 0 and not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))


def test_a_broken_download_is_removed_and_the_next_one_works(tmp_path: Path) -> None:
    cache, data = ShardCache(tmp_path, 1000), content(0)

    def broken(descriptor: int) -> str:
        os.pwrite(descriptor, data[:50], 0)
        raise TrichordError("s3://b/parts/0: cannot be read (reset)")

    with pytest.raises(TrichordError, match="reset"):
        cache.path(checksum(data), 100, "s3://b/parts/0", broken)
    assert cache.num_bytes() == 0
    assert get(cache, data).read_bytes() == data


def test_remains_of_killed_downloads_are_removed(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 150)
    left = tmp_path / f".{checksum(content(7))}.safetensors.tmp"
    left.write_bytes(bytes(100))
    os.utime(left, (1, 1))
    assert get(cache, content(0)).exists()
    assert not left.exists() and cache.num_bytes() == 100
    left.write_bytes(bytes(30))  # the remains of the same shard: its download starts again
    assert get(cache, content(7)).read_bytes() == content(7)


def test_downloads_need_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", without_locks)
    monkeypatch.setattr("fcntl.flock", without_locks)
    with pytest.raises(TrichordError, match="the cache folder is not writable .No locks available"):
        get(ShardCache(tmp_path, 1000), content(0))
    assert not list(tmp_path.glob("*.safetensors"))


def test_threads_that_want_one_shard_download_it_once(tmp_path: Path) -> None:
    cache, data, log, downloads = ShardCache(tmp_path, 1000), content(0, 900), list[str](), list[bytes]()
    start = threading.Barrier(8)

    def want() -> None:
        start.wait()
        downloads.append(get(cache, data, log).read_bytes())

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert downloads == [data] * 8 and len(log) == 1


def test_a_call_without_waiting_does_not_download(tmp_path: Path) -> None:
    cache, data, log = ShardCache(tmp_path, 1000), content(0), list[str]()

    def download(descriptor: int) -> str:
        during = cache.path(checksum(data), len(data), "s3://b/parts/0", writing(data, log), wait=False)
        assert not during.exists()
        return writing(data, log)(descriptor)

    path = cache.path(checksum(data), len(data), "s3://b/parts/0", download)
    assert path.read_bytes() == data and len(log) == 1


def test_downloads_at_once_stay_within_the_bound(tmp_path: Path) -> None:
    cache, most, failed = ShardCache(tmp_path, 250), list[int](), list[BaseException]()

    def want(first: int) -> None:
        try:
            for number in range(first, first + 40):
                data = content(number % 10)
                path = get(cache, data)
                most.append(cache.num_bytes())
                with suppress(FileNotFoundError):  # another thread may have evicted it, as documented
                    assert path.read_bytes() == data
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=want, args=(3 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and max(most) <= 250


WORKER = """
import sys, hashlib, os, time
from pathlib import Path
import numpy as np
from trichord.store.cache import ShardCache
cache = ShardCache(Path(sys.argv[1]), 10_000)
for number in range(20):
    data = np.random.default_rng(number).bytes(100)
    def download(descriptor):
        with open(sys.argv[2], "a") as log:
            log.write(f"{number}\\n")
        time.sleep(0.01)
        os.pwrite(descriptor, data, 0)
        return hashlib.sha256(data).hexdigest()
    assert cache.path(hashlib.sha256(data).hexdigest(), 100, "x", download).read_bytes() == data
"""


def test_processes_that_share_a_cache_download_each_shard_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(tmp_path / "cache"), str(log)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(20))


def test_users_of_a_mapped_shard_are_notified_of_its_removal(tmp_path: Path) -> None:
    class Watcher:
        gone: list[str] = []

        def drop(self, checksum: str) -> None:
            self.gone.append(checksum)

    cache, watcher = ShardCache(tmp_path, 150), Watcher()
    cache.watch(watcher)
    get(cache, content(0)), get(cache, content(1))
    assert watcher.gone == [checksum(content(0))]


def test_use_by_another_process_counts(tmp_path: Path) -> None:
    cache, other = ShardCache(tmp_path, 250), ShardCache(tmp_path, 250)
    for number in (0, 1):
        os.utime(get(cache, content(number)), (number + 1, number + 1))
    cache._used.clear()
    other.used(checksum(content(0)))  # touches the file, so that file 1 is the oldest
    get(cache, content(2))
    assert {p.stem for p in tmp_path.glob("*.safetensors")} == {checksum(content(0)), checksum(content(2))}


def test_a_bound_that_was_lowered_holds_from_the_start(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 1000)
    for number in range(5):
        os.utime(get(cache, content(number)), (number + 1, number + 1))
    assert ShardCache(tmp_path, 250).num_bytes() == 200
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {checksum(content(3)), checksum(content(4))}


@pytest.mark.parametrize("name", ["../" * 20 + "etc/passwd", "", "A" * 64, "0" * 63 + "/"])
def test_a_checksum_cannot_name_another_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrichordError, match="checksum is not valid"):
        ShardCache(tmp_path / "cache", 1000).path(name, 1, "s3://b/parts/0", writing(b"x"))


def test_a_shard_beyond_the_bound_is_refused_before_it_is_downloaded(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(
        TrichordError, match="has 1e-07 GB, but the cache is limited to 9.9e-08 GB; increase TRICHORD_CACHE_GB"
    ):
        get(ShardCache(tmp_path, 99), content(0), log)
    assert not log


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "full disk; free some space"), (errno.EACCES, "correct its permissions.*TRICHORD_CACHE")],
)
def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    cache = ShardCache(tmp_path, 1000)
    monkeypatch.setattr("trichord.store.cache._reserve", refuse)
    with pytest.raises(TrichordError, match=message) as caught:
        get(cache, content(0))
    assert str(caught.value).startswith(f"{tmp_path}: ") and "\n" not in str(caught.value)
    monkeypatch.undo()
    assert get(cache, content(0)).exists()


def test_a_cache_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrichordError, match="the cache folder is not writable"):
        ShardCache(tmp_path / "file" / "cache", 1000)


def test_the_bound_comes_from_the_argument_the_environment_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRICHORD_CACHE_GB", raising=False)
    assert cache_bytes() == 20_000_000_000
    monkeypatch.setenv("TRICHORD_CACHE_GB", "0.5")
    assert cache_bytes() == 500_000_000 and cache_bytes(3) == 3_000_000_000
    for wrong in ("many", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("TRICHORD_CACHE_GB", wrong)
        with pytest.raises(TrichordError, match="TRICHORD_CACHE_GB"):
            cache_bytes()


def test_files_of_others_in_the_cache_folder_are_neither_counted_nor_deleted(tmp_path: Path) -> None:
    names = ["my-model-00001-of-00002.safetensors", "notes.tmp", f"{'a' * 63}.safetensors", f"{'A' * 64}.safetensors"]
    for name in names:
        (tmp_path / name).write_bytes(bytes(5000))
    (tmp_path / f"{'b' * 64}.safetensors").mkdir()
    cache = ShardCache(tmp_path, 1000)
    for number in range(3):
        get(cache, content(number, 400))
    assert cache.num_bytes() == 800 and all((tmp_path / name).stat().st_size == 5000 for name in names)
    assert (tmp_path / f"{'b' * 64}.safetensors").is_dir()


def test_a_shard_that_the_disk_damaged_is_fetched_again_by_the_next_process(tmp_path: Path) -> None:
    log: list[str] = []
    path = get(ShardCache(tmp_path, 10_000), content(1), log)
    path.write_bytes(content(1)[:50] + bytes(10) + content(1)[60:])
    cache = ShardCache(tmp_path, 10_000)  # like another process, which has not verified anything yet
    for _ in range(3):
        assert get(cache, content(1), log).read_bytes() == content(1)
    assert len(log) == 2
