"""Files that cannot be read: the advice depends on the cause. Missing permissions never delete or recompute anything."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from privileges import plain_user
from store_helpers import item, word_vectors
from trichord.cli import main
from trichord.errors import TrichordError, Unavailable, memory_error
from trichord.files.reading import NotRegularFileError, read_bytes, unreadable
from trichord.recipes import load_recipe
from trichord.report.reading import read_study
from trichord.store import Store, StoreWriter
from trichord.store.inspect import verify
from trichord.store.leases import Leases
from trichord.study.evaluate import evaluate
from trichord.study.run import run_study, train_order

MEND = "delete it and make it anew"
RIGHTS = "(Permission denied); ask its owner for permission to read it"


@contextmanager
def forbidden(*paths: Path) -> Iterator[None]:
    """Paths without read permission, for a user without special capabilities."""
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0)
    try:
        with plain_user():
            yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


# ---- the function that words the error


READERS: dict[str, Callable[[Path], Any]] = {
    "python": read_bytes,
    "safetensors": load_file,
    "parquet": pq.read_table,
    "mapped": lambda path: pa.memory_map(str(path)),
    "numpy": lambda path: np.load(path),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_forbidden_file_is_not_damaged_whoever_reads_it(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with forbidden(path):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            READERS[reader](path)
        failure = unreadable(path, caught.value, mend=MEND)
    assert isinstance(failure, Unavailable) and str(failure) == f"{path}: cannot be read {RIGHTS}"


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_gives_repair_advice(reader: str, tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        READERS[reader](tmp_path / "none")
    failure = unreadable(tmp_path / "none", caught.value, mend=MEND)
    assert not isinstance(failure, Unavailable) and str(failure).endswith(f"; {MEND}")


@pytest.mark.parametrize(
    ("error", "advice"),
    [(OSError(errno.EIO, "x"), "check the disk"), (OSError(errno.ESTALE, "x"), "check the disk or the network"),
     (OSError(errno.EMFILE, "x"), "ulimit -n"), (OSError(errno.ENOMEM, "x"), "memory"),
     (SafetensorError("Error: Input/output error (os error 5)"), "check the disk")],
)  # fmt: skip
def test_faults_of_the_system_are_not_blamed_on_the_file(error: Exception, advice: str, tmp_path: Path) -> None:
    failure = unreadable(tmp_path, error, mend=MEND)
    assert isinstance(failure, Unavailable) and advice in str(failure) and MEND not in str(failure)


@pytest.mark.parametrize(
    "error", [ValueError("its header is short"), SafetensorError("header too small"), NotRegularFileError(22, "is a FIFO", "x"),
              OSError("Corrupt snappy data"), MemoryError("Unable to allocate 8 EiB")],
)  # fmt: skip
def test_wrong_content_gives_repair_advice(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    failure = unreadable(path, error, mend=MEND)
    assert not isinstance(failure, Unavailable) and str(failure).endswith(f"; {MEND}")


def test_a_temporary_fault_is_not_a_missing_file(tmp_path: Path) -> None:
    """safetensors reports every file that it cannot open as missing, and the file may be readable a moment later."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"whole")
    failure = unreadable(path, FileNotFoundError(f"No such file or directory: {path}"), mend=MEND)
    assert isinstance(failure, Unavailable) and MEND not in str(failure) and "run the command again" in str(failure)


def test_too_little_memory_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("trichord.files.reading.mmap.mmap", refuse)
    failure = unreadable(path, MemoryError("Unable to allocate 5 MiB"), mend=MEND)
    assert isinstance(failure, Unavailable) and "not enough memory (Unable to allocate 5 MiB)" in str(failure)


@pytest.mark.parametrize(
    "allocate", [lambda: np.zeros(1 << 60, np.uint8), lambda: torch.zeros(1 << 60), lambda: pa.allocate_buffer(1 << 60),
                 lambda: bytearray(1 << 60)],
)  # fmt: skip
def test_out_of_memory_errors_of_every_library_are_recognised(
    allocate: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        allocate()
    assert memory_error(caught.value) and not memory_error(ValueError("x"))
    monkeypatch.setattr("trichord.cli.scoring.doctor", lambda words: allocate())
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("trichord: error: not enough memory (")


def test_words_that_memory_is_too_short_for_are_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.store.words import default_word_vectors

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(Unavailable, match="not enough memory") as caught:
        default_word_vectors({"word"})
    assert "pip" not in str(caught.value)


# ---- stores


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_store, tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_an_unreadable_part_is_not_to_be_deleted(suffix: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = next((store / "parts").glob(f"*{suffix}"))
    with forbidden(part):
        assert main(["store", "info", str(store)]) == 2
        assert capsys.readouterr().err == f"trichord: error: {part}: cannot be read {RIGHTS}\n"
        (problem,) = verify(store)
        assert problem == f"{part}: cannot be read {RIGHTS}"


def test_a_folder_of_parts_that_may_not_be_read_is_not_empty(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with forbidden(store / "parts"):
        for command in (["store", "info"], ["store", "verify"]):
            assert main([*command, str(store)]) == 2
            assert capsys.readouterr().err == f"trichord: error: {store / 'parts'}: cannot be read {RIGHTS}\n"


def test_a_damaged_part_is_still_to_be_imported_again(store: Path) -> None:
    part = next((store / "parts").glob("*.parquet"))
    part.write_bytes(b"PAR1" + part.read_bytes()[4:-40])
    with pytest.raises(TrichordError, match="delete .* import again"):
        Store(store)


def test_a_store_with_a_writer_at_work_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store"
    with StoreWriter(path, word_vectors()) as writer:
        writer.add(item("a"))
        writer.flush()
        half = path / "parts" / ".00001.safetensors.tmp"
        half.write_bytes(b"x")
        assert main(["store", "verify", str(path)]) == 0
        assert f"{path}: a writer is active; its unfinished files are not checked" in capsys.readouterr().out
    assert main(["store", "verify", str(path)]) == 2
    assert "was left by a writer that did not finish" in capsys.readouterr().out


def test_leases_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):

        def refuse(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("trichord.store.leases.fcntl.lockf", refuse)
        with Leases(tmp_path) as leases:
            assert leases.acquire("a") and leases.holds("a")
            leases.release("a")
            assert not leases.holds("a")
            leases.wait("a")
            assert leases.alone_or_shared("b")
            leases.share("b")


def test_other_faults_of_locks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "x")

    with Leases(tmp_path) as leases:
        monkeypatch.setattr("trichord.store.leases.fcntl.lockf", refuse)
        with pytest.raises(OSError, match="x"):
            leases.acquire("a")


# ---- studies


def quick(**training: Any) -> Any:
    return load_recipe("debug", training={"max_steps": 1, "device": "cpu", "tensorboard": False, **training})


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unreadable") / "study"
    run_study(tiny_store, out, ["vt"], [0], quick())
    return out


OF_A_STUDY = [
    "model.safetensors", "model.json", "centroids.safetensors", "../vt", "study.json", "run.yaml", "seed-0/results.json",
    "seed-0/queries.npz",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_A_STUDY)
def test_a_study_that_may_not_be_read_is_not_trained_again(name: str, study: Path, tiny_store: Path) -> None:
    (stage,) = study.glob("stages/*")
    path = {"../vt": stage, "study.json": study / name, "run.yaml": study / name}.get(name, stage / name)
    path = study / "orders" / "vt" / name if name.startswith("seed-0") else path
    before = {
        file: file.stat().st_mtime_ns
        for file in study.rglob("*")
        if file.name not in ("study.json", ".lock", "store.json")
    }
    with (
        forbidden(path),
        pytest.raises(
            Unavailable, match=r"cannot be read \(Permission denied\); ask its owner for permission"
        ) as caught,
    ):
        if name in ("model.safetensors", "centroids.safetensors"):
            evaluate(stage, tiny_store, ["tiny"])
        else:
            run_study(tiny_store, study, ["vt"], [0], quick())
    assert "delete" not in str(caught.value) and "train" not in str(caught.value)
    after = {file: file.stat().st_mtime_ns for file in before}
    assert before == after
    if name != "run.yaml":
        assert read_study(study).done


def test_an_unreadable_study_json_is_not_overwritten(study: Path, tiny_store: Path) -> None:
    content = json.loads((study / "study.json").read_text())
    with forbidden(study / "study.json"), pytest.raises(Unavailable):
        run_study(tiny_store, study, ["vt"], [0], quick())
    assert json.loads((study / "study.json").read_text())["results"] == content["results"] != []


def test_a_checkpoint_that_may_not_be_read_is_not_set_aside(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr("trichord.study.run.save_model", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    recipe = quick(checkpoint_every_steps=1)
    with pytest.raises(KeyboardInterrupt):
        train_order(tiny_store, out, "vt", 0, recipe)
    monkeypatch.undo()
    (checkpoint,) = out.glob("stages/*/checkpoints/step-*")
    for file in sorted(checkpoint.iterdir()):
        with forbidden(file), pytest.raises(Unavailable, match="ask its owner"):
            train_order(tiny_store, out, "vt", 0, recipe, resume=True)
        assert checkpoint.is_dir()
    assert train_order(tiny_store, out, "vt", 0, recipe, resume=True).num_steps == 0
