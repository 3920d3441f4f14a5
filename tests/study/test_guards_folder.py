"""A run folder has one run at a time, and a run has one store: refusals, and the cost of the checks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forked
from tiny import tiny_item, word_vectors, write_tiny_store
from trichord.cli import main
from trichord.errors import TrichordError
from trichord.files import locks
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store, StoreWriter, unchanged
from trichord.study import folder, run
from trichord.study.lock import alone_in

pytestmark = pytest.mark.usefixtures("without_chart")


def quick(**training: Any) -> Recipe:
    options = {"tensorboard": False, "device": "cpu", "max_steps": 1, **training}
    return load_recipe("debug", training=options, evaluation={"directions": ["t2v"]})


HOLD = """
import sys, time
from pathlib import Path
from trichord.study.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in `tmp_path
    "out"`.
    """
    process = forked.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_a_second_run_is_refused_until_the_first_ends(
    other: subprocess.Popen[str], tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This includes a killed run: its lock ends with the process, and no cleanup is needed."""
    out = tmp_path / "out"
    words = ["--store", str(tiny_store), "--out", str(out)]
    for command in (["train", *words], ["study", *words]):
        assert main(command) == 2
        error_text = capsys.readouterr().err.strip()
        assert error_text.startswith(
            f"trichord: error: {out}: another run is using this folder (process {other.pid} on "
        )
        assert "wait until it ends, or give another --out" in error_text and "\n" not in error_text
    assert sorted(path.name for path in out.iterdir()) == [".lock"], "nothing was written"
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    run.train_order(tiny_store, out, "vt", 0, quick())


@pytest.mark.slow
def test_a_report_may_look_on(tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run.run_study(tiny_store, out, ["vt"], [0], quick())
    with alone_in(out):
        assert main(["report", str(out)]) == 0
        assert main(["evaluate", str(next(out.glob("stages/*"))), "--store", str(tiny_store)]) == 0
        with pytest.raises(TrichordError, match=f"process {os.getpid()} on"):
            run.run_study(tiny_store, out, ["vt"], [0], quick())
    run.run_study(tiny_store, out, ["vt"], [0], quick())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"process": "x"}', b"\xff" * 9000])
def test_a_lock_file_without_content(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").touch()  # it is the folder of a run, so the lock file is that of a run
    with alone_in(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with (
            pytest.raises(TrichordError, match="another run is using this folder .it has just started.; wait"),
            alone_in(tmp_path),
        ):
            raise AssertionError
    with alone_in(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()


def test_a_file_system_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(locks.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", none)
    with alone_in(tmp_path), alone_in(tmp_path):
        pass


def test_a_failed_run_lets_go(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError), alone_in(tmp_path):
        raise KeyError
    with alone_in(tmp_path):
        pass


# ---- the store


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Path]:
    """A store of two parts, and a run on it."""
    store, out = tmp_path / "store", tmp_path / "run"
    write_tiny_store(store, num_train=8, num_test=2)
    with StoreWriter(store, word_vectors()) as writer:
        writer.add(tiny_item(90, "train"))
    run.train_order(store, out, "vt", 0, quick())
    return store, out


def again(store: Path, out: Path) -> None:
    run.train_order(store, out, "vt", 0, quick(), resume=True)


def flip(path: Path, at: int = -9) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_shard_changed_in_place_is_found(trained: tuple[Path, Path]) -> None:
    """Its size is the same, and so is the fingerprint, which depends on the recorded checksums of the parts."""
    store, out = trained
    shard = Store(store).shard_path(8)
    before = Store(store).fingerprint
    flip(shard)
    assert Store(store).fingerprint == before
    with pytest.raises(TrichordError, match=f"{shard}: has changed since the run began.*trichord store verify {store}"):
        again(store, out)
    flip(shard)
    again(store, out)


def test_only_modified_files_are_read(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = trained
    read: list[str] = []
    check = unchanged._check_content
    monkeypatch.setattr(unchanged, "_check_content", lambda path: (read.append(path.name), check(path)))
    again(store, out)
    assert read == []
    touched = Store(store).shard_path(8)
    os.utime(touched, ns=(1, 1))
    again(store, out)
    assert read == [touched.with_suffix(".parquet").name]
    again(store, out)
    assert len(read) == 1, "the new time is noted"
    shutil.copytree(store, store.with_name("copy"), copy_function=shutil.copyfile)
    shutil.rmtree(store)
    store.with_name("copy").rename(store)
    again(store, out)
    assert len(read) == 1 + len(list((store / "parts").glob("*.parquet")))


def test_rows_that_were_changed_are_found(trained: tuple[Path, Path]) -> None:
    """The Parquet file is rewritten with another split for a video and the old description."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store, out = trained
    path = Store(store).shard_path(8).with_suffix(".parquet")
    table = pq.read_table(path)
    split = pa.array(["test"] * table.num_rows, pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), split), path)
    with pytest.raises(TrichordError, match=f"{path}: has changed since the run began"):
        again(store, out)


def test_an_appended_store_is_another_one(trained: tuple[Path, Path]) -> None:
    store, out = trained
    with StoreWriter(store, word_vectors()) as writer:
        writer.add(tiny_item(91, "train"))
    with pytest.raises(TrichordError, match="contains a run on another store, or its store has changed"):
        again(store, out)


def test_a_missing_part_is_noticed(trained: tuple[Path, Path]) -> None:
    store, _ = trained
    opened = Store(store)
    noted = unchanged.stamps_of(opened)
    opened.shard_path(8).with_suffix(".parquet").unlink()
    with pytest.raises(TrichordError, match="is missing, but existed when the run began"):
        unchanged.check_unchanged(opened, noted)


def test_a_store_that_changes_during_a_stage_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = write_tiny_store(tmp_path / "store", num_train=8), tmp_path / "run"
    train_stage = run.train_stage

    def disturbed(*arguments: Any, **options: Any) -> int:
        done = train_stage(*arguments, **options)
        flip(Store(store).shard_path(0))
        return done

    monkeypatch.setattr(run, "train_stage", disturbed)
    with pytest.raises(TrichordError, match="has changed since the run began"):
        run.train_order(store, out, "vt", 0, quick())
    assert not list(out.glob("stages/*/model.json"))


def test_a_run_of_an_earlier_version_notes_its_store_now(trained: tuple[Path, Path]) -> None:
    store, out = trained
    noted = (out / "store.json").read_text()
    (out / "store.json").unlink()
    again(store, out)
    assert (out / "store.json").read_text() == noted
    (out / "store.json").write_text("{")
    with pytest.raises(TrichordError, match=r"store.json: cannot be read .*delete this file and run the command again"):
        again(store, out)
    assert folder.is_there(out / "run.yaml")


def test_foreign_lock_files_are_kept(tmp_path: Path) -> None:
    for content in ("my notes", "[1]", '{"name": 1}'):
        (tmp_path / ".lock").write_text(content)
        with (
            pytest.raises(TrichordError, match=r"\.lock: is not the lock file of a run; move it away"),
            alone_in(tmp_path),
        ):
            pass
        assert (tmp_path / ".lock").read_text() == content
    (tmp_path / ".lock").write_text("")
    for _ in range(2):  # what a run left is taken over
        with alone_in(tmp_path):
            pass
