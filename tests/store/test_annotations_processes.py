"""Two processes that write annotations of one store at the same time do not overwrite each other's results."""

from __future__ import annotations

from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from process_helpers import FORKSERVER
from store_helpers import build, item
from trichord.store import Store
from trichord.store.annotations import StepSpan, read_annotations, write_annotations
from trichord.store.leases import Leases
from trichord.store.names import ANNOTATIONS

WRITES = 15


def write_many(store: Path, collection: str, barrier: Any) -> None:
    barrier.wait(60)
    for number in range(WRITES):
        write_annotations(store, collection, [StepSpan(f"v{number}", "task", 0, "stir", 0.0, 1.0)])


def wait_for_lease(store: Path, queue: Any) -> None:
    with Leases(store) as leases:
        queue.put(leases.acquire(ANNOTATIONS))
        leases.wait(ANNOTATIONS)
        queue.put(leases.holds(ANNOTATIONS))


def test_two_imports_at_once_keep_each_other_s_spans(tmp_path: Path) -> None:
    build(tmp_path, [item("v0")])
    barrier = FORKSERVER.Barrier(2)
    processes = [FORKSERVER.Process(target=write_many, args=(tmp_path, name, barrier)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    for name in ("a", "b"):
        assert len(read_annotations(Store(tmp_path), name)) == WRITES, name
    assert not list(tmp_path.glob(".*.partial"))


def test_waiting_ends_when_the_other_lets_go(tmp_path: Path) -> None:
    queue = FORKSERVER.Queue()
    with Leases(tmp_path) as leases:
        leases.wait(ANNOTATIONS)
        process = FORKSERVER.Process(target=wait_for_lease, args=(tmp_path, queue))
        process.start()
        assert queue.get(timeout=60) is False, "it is ours"
        with pytest.raises(Empty):  # it waits
            queue.get(timeout=0.3)
        leases.release(ANNOTATIONS)
        assert queue.get(timeout=60) is True
        process.join(60)
    assert process.exitcode == 0


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("trichord.store.leases.fcntl.lockf", refuse)
    with Leases(tmp_path) as leases:
        leases.wait(ANNOTATIONS)
        assert leases.holds(ANNOTATIONS)
