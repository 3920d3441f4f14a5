"""Full disks and folders that are not writable give errors of one line, and a second call continues when there is space."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import forked
from trichord.cli import main
from trichord.errors import TrichordError, disk_error
from trichord.files.writing import writing_to

pytestmark = pytest.mark.usefixtures("without_chart")

FAST = ["--training.device", "cpu", "--training.max_steps", "1", "--training.tensorboard", "false"]


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Let writes beyond a file size fail with EFBIG, like ENOSPC on a full disk: partly written, at any position."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def words(store: Path, out: Path) -> list[str]:
    return ["train", "--store", str(store), "--out", str(out), "--order", "vt", *FAST]


@pytest.fixture(scope="module")
def undisturbed(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a training with enough space."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(words(tiny_store, out)) == 0
    return next(out.glob("stages/*/model.safetensors"))


@pytest.mark.parametrize("num_bytes", [10, 1000, 4000, 60_000])
def test_training_where_files_cannot_grow(
    num_bytes: int, undisturbed: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails at the lock, the settings, the notes or the weights; partial files cause no problems afterwards."""
    out = tmp_path / "out"
    with files_of_at_most(num_bytes):
        assert main(words(tiny_store, out)) == 2
    error_text = capsys.readouterr().err.strip()
    assert error_text.startswith(f"trichord: error: {out}") and "\n" not in error_text and "Traceback" not in error_text
    assert "File too large" in error_text and "then run the command again (train: with --resume)" in error_text
    assert not list(out.glob("stages/*/model.json"))
    assert main([*words(tiny_store, out), "--resume"]) == 0
    (weights,) = out.glob("stages/*/model.safetensors")
    assert weights.read_bytes() == undisturbed.read_bytes()


def test_results_that_cannot_be_written(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(words(tiny_store, out)) == 0
    capsys.readouterr()
    (stage,) = out.glob("stages/*")
    with files_of_at_most(100):
        assert main(["evaluate", str(stage), "--store", str(tiny_store), "--out", str(tmp_path / "r.json")]) == 2
    assert f"{tmp_path / 'r.json'}: cannot be written (File too large)" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def real_errors(folder: Path) -> Iterator[Exception]:
    """Errors that three libraries raise on a full disk."""
    writes = {
        "python": lambda path: path.write_bytes(bytes(10_000)),
        "numpy": lambda path: np.save(path, np.zeros(10_000)),
        "safetensors": lambda path: save_file({"x": torch.zeros(10_000)}, path),
    }
    for name, write in writes.items():
        with files_of_at_most(100), pytest.raises(Exception) as caught:  # noqa: PT011
            write(folder / name)
        yield caught.value  # type: ignore[misc]


def test_errors_of_every_library_are_known(tmp_path: Path) -> None:
    for error in real_errors(tmp_path):
        message = disk_error(error, tmp_path)
        assert message is not None and str(tmp_path) in str(message) and "cannot be written" in str(message), repr(
            error
        )


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device): free some space"),
        (errno.EDQUOT, "free some of your quota"),
        (errno.EROFS, "Read-only file system): choose a folder that is writable"),
        (errno.EACCES, "Permission denied): check the permissions"),
        (errno.EIO, "Input/output error): check the disk"),
        (errno.EEXIST, "File exists): a file exists where a folder is expected"),
        (errno.ENOTDIR, "Not a directory): a file exists where a folder is expected"),
    ],
)
def test_each_error_gives_advice(number: int, advice: str, tmp_path: Path) -> None:
    with pytest.raises(TrichordError) as caught, writing_to(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{tmp_path}: cannot be ") and advice in str(caught.value)
    with pytest.raises(TrichordError, match="^/x/y: "), writing_to(tmp_path):
        raise OSError(number, os.strerror(number), "/x/y")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "No such file or directory"), OSError("x"), ValueError("12"), TrichordError("no")]
)
def test_other_errors_are_unchanged(error: Exception, tmp_path: Path) -> None:
    assert disk_error(error) is None
    with pytest.raises(type(error)) as caught, writing_to(tmp_path):
        raise error
    assert caught.value is error


# ---- a real small disk

SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from trichord.cli import main

store, disk = sys.argv[1:]

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", disk], check=True)

study = ["study", "--store", store, "--out", f"{disk}/out", "--orders", "[vt,'av>t']", "--training.device", "cpu",
         "--training.max_steps", "2"]
mount("size=4k")
mount("remount", "ro")
print("read-only", main(study), flush=True)
for size in (4, 16, 48, 100, 150, 200, 250, 300, 400, 500, 700, 1000, 40000):
    mount("remount", "rw", f"size={size}k")
    print(size, main(study), flush=True)
print("report", main(["report", f"{disk}/out"]), flush=True)
print((Path(disk) / "out/table.csv").read_text())
"""


def can_mount() -> bool:
    tried = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(tried, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_study_on_a_disk_that_grows(tiny_store: Path, tmp_path: Path) -> None:
    """Each call on a full disk ends with one line; the last one gives the table of an undisturbed study."""
    if not can_mount():
        pytest.skip("this system lets nobody mount")
    (tmp_path / "disk").mkdir()
    command = [sys.executable, "-c", SMALL_DISK, str(tiny_store), str(tmp_path / "disk")]
    done = forked.run(command, capture_output=True, text=True, timeout=300, own_mounts=True)
    assert done.returncode == 0, done.stderr
    codes = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2 and line[-2] == " ")
    assert codes["read-only"] == codes["4"] == codes["48"] == codes["200"] == "2"
    assert codes["40000"] == codes["report"] == "0"
    errors = done.stderr.strip().splitlines()
    assert len(errors) == list(codes.values()).count("2") >= 6
    assert "Read-only file system" in errors[0]
    assert all(line.startswith(f"trichord: error: {tmp_path}/disk/") for line in errors)
    assert all("No space left on device): free some space" in line for line in errors[1:])
    study = ["study", "--store", str(tiny_store), "--out", str(tmp_path / "whole"), "--orders", "[vt,'av>t']"]
    assert main([*study, "--training.device", "cpu", "--training.max_steps", "2"]) == 0
    assert (tmp_path / "whole" / "table.csv").read_text().strip() in done.stdout


OTHER_COMMANDS = """
import subprocess, sys
from pathlib import Path
from trichord.cli import main

store, study, disk, options = sys.argv[1:]
stage = str(next(Path(study).glob("stages/*")))
commands = {
    "report": ["report", study, "--out", f"{disk}/report"],
    "evaluate": ["evaluate", stage, "--store", store, "--out", f"{disk}/results.json"],
    "export": ["store", "export", store, "--out", f"{disk}/release", "--layout", "npy"],
    "world": ["world", f"{disk}/world", "--num_train", "1", "--num_test", "1"],
}
for name, words in commands.items():
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk], check=True)
    (Path(disk) / "filler").write_bytes(bytes(8192))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"remount,{options}", "tmpfs", disk], check=True)
    print(f"code of {name}: {main(words)}", flush=True)
    subprocess.run(["umount", disk], check=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("options", "reason"), [("ro", "Read-only file system"), ("rw", "No space left on device")])
def test_all_other_writers(options: str, reason: str, tiny_store: Path, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("this system lets nobody mount")
    (tmp_path / "disk").mkdir()
    study = ["study", "--store", str(tiny_store), "--out", str(tmp_path / "study"), "--orders", "[vt]", *FAST]
    assert main(study) == 0
    places = [str(tiny_store), str(tmp_path / "study"), str(tmp_path / "disk"), options]
    command = [sys.executable, "-c", OTHER_COMMANDS, *places]
    done = forked.run(command, capture_output=True, text=True, timeout=300, own_mounts=True)
    codes = [line for line in done.stdout.splitlines() if line.startswith("code of ")]
    assert codes == [f"code of {name}: 2" for name in ("report", "evaluate", "export", "world")], done.stderr
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 4, done.stderr
    for line in errors:
        assert line.startswith(f"trichord: error: {tmp_path}/disk/") and reason in line, line


FULL_STORE = """
import collections, shutil, subprocess, sys
from pathlib import Path
from trichord.cli import main

store, disk, out = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=True)
shutil.copytree(store, f"{disk}/store", ignore=shutil.ignore_patterns("frozen"))  # other tests may have made some
free = shutil.disk_usage(disk).free
with open(f"{disk}/filler", "wb") as file:
    file.write(bytes(free - 32768))
usage = collections.namedtuple("usage", "total used free")
shutil.disk_usage = lambda path: usage(10**9, 0, 10**9)  # as it was when the pass was planned
words = ["train", "--store", f"{disk}/store", "--out", out, "--order", "av>t", "--training.device", "cpu"]
code = main(words)
(Path(disk) / "filler").unlink()
sys.exit(10 * code + main([*words, "--resume"]))
"""


@pytest.mark.slow
def test_a_store_that_is_full_when_frozen_embeddings_are_kept(tiny_store: Path, tmp_path: Path) -> None:
    """Embeddings are not written through mapped pages, where a full disk would end the process by a signal."""
    if not can_mount():
        pytest.skip("this system lets nobody mount")
    (tmp_path / "disk").mkdir()
    places = [str(tiny_store), str(tmp_path / "disk"), str(tmp_path / "out")]
    command = [sys.executable, "-c", FULL_STORE, *places]
    done = forked.run(command, capture_output=True, text=True, timeout=300, own_mounts=True)
    assert done.returncode == 20, done.stderr
    (message,) = done.stderr.strip().splitlines()
    assert message.startswith(f"trichord: error: {tmp_path}/disk/store/frozen") and "No space left on device" in message
