"""Commands whose output is no longer read: the work continues, and the exit code is that of the work."""

from __future__ import annotations

import errno
import io
import logging
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import track

import forked
from study_helpers import QUICK_WORDS
from trichord.cli import main
from trichord.cli.output import lasting_output

pytestmark = pytest.mark.usefixtures("without_chart")


def broken_pipe() -> io.TextIOWrapper:
    """A stream to a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def hung_up_terminal() -> io.TextIOWrapper:
    """A stream to a closed terminal, where writes fail with EIO."""
    near, far = pty.openpty()
    os.close(near)
    return os.fdopen(far, "w")


def use(monkeypatch: pytest.MonkeyPatch, stream: io.TextIOWrapper | None, *names: str) -> None:
    for name in names or ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)


@pytest.mark.parametrize("lost", [broken_pipe, hung_up_terminal])
@pytest.mark.parametrize("command", ["study", "train"])
def test_training_continues_when_its_output_is_closed(
    command: str, lost: Any, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = ["--orders", "[vt]"] if command == "study" else ["--order", "vt"]
    with lost() as stream:
        use(monkeypatch, stream)
        assert main([command, "--store", str(tiny_store), "--out", str(tmp_path / "out"), *what, *QUICK_WORDS]) == 0
    assert len(list((tmp_path / "out").glob("stages/*/model.json"))) == 1


@pytest.mark.parametrize("lost", [broken_pipe, hung_up_terminal, nullcontext])
def test_every_writer_is_covered(lost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with lost() as stream:
        use(monkeypatch, stream)
        with lasting_output(until_exit=False) as why:
            print("x" * 100_000, flush=True)
            print("x", file=sys.stderr)
            sys.stdout.buffer.write(b"x" * 100_000)
            logging.StreamHandler().stream.write("x\n")
            assert list(track([1], console=Console(force_terminal=True))) == [1]
            assert not sys.stdout.isatty() or lost is nullcontext
            assert why() == ""
        assert sys.stdout is stream


def test_a_mistake_is_an_error_even_if_output_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe() as stream:
        use(monkeypatch, stream)
        assert main(["nope"]) == 2


def test_a_full_disk_is_an_error_of_commands_that_only_print(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as stream:
        use(monkeypatch, stream, "stdout")
        assert main(["store", "info", str(tiny_store)]) == 2
        error_text = capsys.readouterr().err
        assert error_text == "trichord: error: standard output cannot be written (No space left on device)\n"
        out = str(tmp_path / "out")
        assert main(["train", "--store", str(tiny_store), "--out", out, "--order", "vt", *QUICK_WORDS]) == 0
        assert "trichord: warning: standard output cannot be written" in capsys.readouterr().err


def test_broken_pipes_of_the_work_itself_are_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(words: list[str]) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("trichord.cli.scoring.doctor", broken)
    assert main(["doctor"]) == 2
    assert "trichord: error: internal error: BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize("redirection", ["| head -c 1", ">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&- | head -c 1"])
def test_a_process_ends_without_a_word(redirection: str, tmp_path: Path) -> None:
    """This includes the end of the interpreter; no file reuses the number of a closed descriptor."""
    code = (
        "import sys, trichord.cli as cli\n"
        "def run(words):\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        print('line', flush=True); print('x' * 99_999); print('y', file=sys.stderr)\n"
        "        assert file.fileno() > 2\n"
        "        import contextlib, os\n"
        "        with contextlib.suppress(BrokenPipeError): os.write(1, b'zzz')  # as a C library would\n"
        "        file.write('done')\n"
        "    return 0\n"
        "cli._run = run\n"
        "code = cli.main()\n"
        "print('late', 'x' * 9999)\n"
        "raise SystemExit(code)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    line = f"({sys.executable} {script} {tmp_path / 'file'}; echo $? > {tmp_path / 'code'}) {redirection}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (tmp_path / "code").read_text() == "0\n"
    assert (tmp_path / "file").read_text() == "done"
    assert "Exception" not in done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_prints_a_line_and_the_run_can_continue(number: int, tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "trichord", "train", "--store", str(tiny_store), "--out", str(out), "--order", "vt"]
    words += ["--recipe", "debug", "--training.epochs", "100000", "--training.tensorboard", "false"]
    with forked.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(out.glob("stages/*/checkpoints/step-*")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        printed = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    again = shlex.join(["trichord", *words[3:], "--resume"])
    assert printed == f"trichord: stopped by {signal.Signals(number).name}; to continue, run: {again}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "--store", "s", "--out", "o"], "run the same command again to continue"),
        (["export-model", "r", "--out", "m"], "run the same command again"),
        (
            ["train", "--out", "my run", "--resume"],
            "to continue, run: trichord train --out 'my run' --resume",
        ),
    ],
)
def test_an_interrupted_command_prints_how_to_continue(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("trichord.cli._run", interrupted)
    assert main(words) == 130
    assert capsys.readouterr().err == f"trichord: interrupted; {message}\n"


def test_the_printed_command_continues_the_run(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "--store",
        str(tiny_store),
        "--out",
        str(tmp_path / "a run"),
        "--order",
        "vt>a",
        "--recipe",
        "debug",
    ]
    words += ["--training.max_steps", "1", "--training.tensorboard", "false"]

    def interrupted(*arguments: object, **options: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trichord.study.run._train", interrupted)
        assert main(words) == 130
    command = capsys.readouterr().err.partition("run: ")[2]
    assert main(shlex.split(command)[1:]) == 0
