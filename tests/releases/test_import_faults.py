"""Imports during temporary faults: a file that cannot be read is not reported as broken, and the next run reads it."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trichord.files.arrays as arrays
import trichord.releases.webdataset as webdataset
from extract_helpers import ids_of
from tiny import write_tiny_store
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.files.reading import open_regular
from trichord.releases import IMPORTERS
from trichord.releases.export import export_store
from trichord.store.ledger import read_ledger


class FailingFile(io.FileIO):
    """A file that cannot be read."""

    def readinto(self, buffer: Any, /) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def failing_at(wanted: str) -> Callable[[str | Path], io.BufferedReader]:
    """Return an `open_regular` whose files with `wanted` in their path cannot be read."""
    return lambda path: io.BufferedReader(FailingFile(str(path))) if wanted in str(path) else open_regular(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_store(tmp_path_factory.mktemp("tiny") / "store", num_train=3, num_test=2)


@pytest.mark.parametrize(
    "layout, room, wanted, num_postponed",
    [
        ("howto100m", arrays, "video000_2d.npz", 1),
        ("npy", arrays, "video000.npy", 1),
        ("webdataset", webdataset, "test-000000.tar", 1),  # the whole shard
    ],
)
def test_unread_files_are_read_by_the_next_import(
    layout: str,
    room: object,
    wanted: str,
    num_postponed: int,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export_store(store, out=tmp_path / "release", layout=layout)
    with monkeypatch.context() as fault:
        fault.setattr(room, "open_regular", failing_at(wanted))
        words = ["import", layout, "--root", str(tmp_path / "release"), "--store", str(tmp_path / "s")]
        assert main(words) == 75
    assert ids_of(tmp_path / "s") != ids_of(store)
    entries = read_ledger(tmp_path / "s")
    assert [entry["class"] for entry in entries] == num_postponed * ["system"]
    assert "Input/output error" in entries[0]["reason"] and "broken" not in entries[0]["reason"]
    summary = IMPORTERS[layout](tmp_path / "release", tmp_path / "s")
    assert (summary.num_skipped, summary.num_postponed) == (0, 0)
    assert sorted(ids_of(tmp_path / "s")) == sorted(ids_of(store))
    assert read_ledger(tmp_path / "s") == [], "what is stored now is no longer listed"


def test_a_damaged_file_is_not_the_fault_of_the_system(store: Path, tmp_path: Path) -> None:
    export_store(store, out=tmp_path / "release", layout="howto100m")
    next((tmp_path / "release").rglob("video000_2d.npz")).write_bytes(b"no zip file")
    summary = IMPORTERS["howto100m"](tmp_path / "release", tmp_path / "s")
    assert (summary.num_skipped, summary.num_postponed) == (1, 0)
    assert "class" not in read_ledger(tmp_path / "s")[0]


@pytest.mark.parametrize("layout", ["howto100m", "youcook2", "webdataset", "npy"])
def test_word_vectors_in_a_folder_are_not_a_pipe(layout: str, store: Path, tmp_path: Path) -> None:
    export_store(store, out=tmp_path / "release", layout=layout)
    (tmp_path / "release" / "word2vec.bin").unlink()
    os.mkfifo(tmp_path / "release" / "word2vec.bin")
    with pytest.raises(TrichordError, match=r"word2vec\.bin: cannot be read \(is a FIFO, not a regular file\)"):
        IMPORTERS[layout](tmp_path / "release", tmp_path / "s")
