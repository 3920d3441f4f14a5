"""Files that are truncated while they are memory-mapped: an error of one line names the file, instead of a bus error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frozen_helpers import encoder, work_on
from trichord.cli.bus_error import bus_errors_named, mapped_file
from trichord.data.frozen import frozen_rows
from trichord.data.frozen_parts import clips_at
from trichord.errors import TrichordError, Unavailable
from trichord.logs import passing_messages
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.study.run import train_order


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_store, tmp_path / "store")
    return tmp_path / "store"


def shard_of(store: Path) -> Path:
    return min((store / "parts").glob("*.safetensors"))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_a_shard_that_is_cut_short_is_named_before_it_is_read(store: Path) -> None:
    opened = Store(store)
    items = np.arange(len(opened))
    for item in items.tolist():
        opened.rows("visual_2d", item)
    opened.bring(items)
    path = shard_of(store)
    size = path.stat().st_size
    cut(path)
    with pytest.raises(
        TrichordError, match=rf"{path}: changed while it was in use: it had {size:,} bytes and now has {size // 2:,}"
    ):
        opened.bring(items)
    path.unlink()
    with pytest.raises(TrichordError, match=rf"{path}: cannot be read \(No such file"):
        opened.bring(items)


@pytest.mark.parametrize("fast", [True, False])
def test_training_stops_with_one_line_and_resumes_with_the_restored_shard(
    fast: bool, store: Path, tmp_path: Path
) -> None:
    training: dict[str, Any] = {"max_steps": 8, "device": "cpu", "tensorboard": False, "log_every_steps": 1}
    recipe = load_recipe("debug", training={**training, "checkpoint_every_steps": 1, "fast": fast})
    path, whole = shard_of(store), tmp_path / "whole"
    shutil.copy2(path, whole)

    def cut_after_two_steps(line: str) -> None:
        if " step 2/8 " in line:
            cut(path)

    with (
        pytest.raises(TrichordError, match=rf"{path}: changed while it was in use"),
        passing_messages(cut_after_two_steps),
    ):
        train_order(store, tmp_path / "run", "vt", 0, recipe)
    with path.open("r+b") as file:  # restored in place
        file.write(whole.read_bytes())
    assert 0 < train_order(store, tmp_path / "run", "vt", 0, recipe, resume=True).num_steps < 8


def test_frozen_values_that_are_cut_short_are_named(store: Path) -> None:
    work = work_on(store)
    rows = frozen_rows(work, encoder())
    clips = clips_at(work.source, work.listing, 0, 4)
    clips.caption = np.zeros(len(clips), np.int64)
    rows.read(clips)
    cut(work.folder / "values.npy")
    with pytest.raises(
        TrichordError, match=rf"{work.folder}/values.npy: was truncated while it was in use; delete the folder"
    ):
        rows.read(clips)
    shutil.rmtree(work.folder)
    with pytest.raises(TrichordError, match="it is computed again") as caught:
        rows.read(clips)
    assert not isinstance(caught.value, Unavailable)


CRASH = """
import sys, threading
import numpy as np
from trichord.cli.bus_error import bus_errors_named
path = sys.argv[1]
with open(path, "wb") as file:
    file.write(bytes(1 << 20))
values = np.memmap(path, np.uint8, "r")
def read():
    open(path, "wb").close()
    np.maximum.reduce(values.reshape(16, -1), axis=0)
with bus_errors_named():
    if sys.argv[2] == "thread":
        thread = threading.Thread(target=read)
        thread.start()
        while True:
            sum(range(1000))  # holds the interpreter as training does
    read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the handler is of Linux")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_file_truncated_after_the_check_is_named(where: str, tmp_path: Path) -> None:
    path = tmp_path / "a shard"
    done = subprocess.run([sys.executable, "-c", CRASH, str(path), where], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"trichord: error: {path}: the file was truncated while in use, or its disk failed; restore the file, then run the same "
        "command again\n"
    )


def test_the_handler_is_there_only_within_a_command() -> None:
    def handled() -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigCgt"))
        return int(line.split()[1], 16) >> (signal.SIGBUS - 1) & 1

    before = handled()
    with bus_errors_named():
        assert handled() == 1
    assert handled() == before


def test_addresses_outside_mapped_files_have_no_path(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(5000))
    values = np.memmap(path, np.uint8, "r")
    assert mapped_file(values.ctypes.data + 4096) == str(path)
    assert mapped_file(0) == mapped_file(np.zeros(1 << 20).ctypes.data) == ""
