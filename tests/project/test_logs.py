"""Messages of the library: nobody who uses it sees them unasked, the command line prints them, callbacks are deprecated."""

from __future__ import annotations

import ast
import io
import logging
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from trichord import logs
from trichord.cli import main
from trichord.logs import get_logger, passing_messages, printing_messages
from trichord.releases import import_npy
from trichord.training.log import StageLog
from trichord.world import write_world

SOURCE = Path(logs.__file__).parent


@cache
def syntax_nodes() -> dict[Path, list[ast.AST]]:
    """Return all nodes of the syntax tree of each file."""
    return {path: list(ast.walk(ast.parse(path.read_text()))) for path in sorted(SOURCE.rglob("*.py"))}


def test_a_program_that_configures_no_logging_sees_nothing() -> None:
    code = "import logging, trichord.logs; logging.getLogger('trichord.study.run').warning('left out')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_a_program_that_configures_logging_sees_messages_with_their_levels() -> None:
    code = (
        "import logging, trichord; logging.basicConfig(level=logging.INFO);"
        "logging.getLogger('trichord.study.run').info('2 orders')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == "INFO:trichord.study.run:2 orders\n"


def test_a_command_prints_messages_as_lines_and_leaves_no_handler(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logs.ROOT.handlers), logs.ROOT.level
    with printing_messages():
        get_logger("trichord.study.run").info("2 orders\n100 % of \x1b[31mthem")
        get_logger("trichord.study.run").debug("details")
        get_logger("trichord.embedder.files").warning("left out: a.mp4")
        get_logger("trichord.store.remote").warning("s3://b: %s", "trying again")
    get_logger("trichord.study.run").info("later")
    assert capsys.readouterr() == ("2 orders 100 % of \\x1b[31mthem\nleft out: a.mp4\n", "s3://b: trying again\n")
    assert (list(logs.ROOT.handlers), logs.ROOT.level) == before


def test_a_command_prints_the_progress_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--num_train", "1", "--num_test", "1", "--steps_per_video", "1", "--step_s", "1", "--width", "64"]
    assert main(["world", str(tmp_path / "w"), *words, "--height", "64", "--frame_rate_hz", "2"]) == 0
    assert "world: 2/2 videos" in capsys.readouterr().out


def test_a_command_prints_a_message_once_whatever_a_library_configures(capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(library)
    try:
        with printing_messages():
            logs.ROOT.warning("left out")
        logs.ROOT.warning("later")
    finally:
        logging.getLogger().removeHandler(library)
    assert capsys.readouterr().out == "left out\nlater\n"


def test_an_error_of_the_stream_is_raised_as_print_raises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    with printing_messages(), monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        with pytest.raises(ValueError, match="closed file"):
            logs.ROOT.info("lost")


def test_a_callback_is_deprecated_and_is_still_called(tmp_path: Path) -> None:
    lines: list[str] = []
    sizes: dict[str, Any] = {"num_train": 1, "num_test": 1, "steps_per_video": 1, "step_s": 1.0}
    with pytest.warns(DeprecationWarning, match="write_world: the argument 'progress' is deprecated") as warned:
        write_world(tmp_path / "w", **sizes, width=64, height=64, frame_rate_hz=2.0, progress=lines.append)
    assert warned[0].filename == __file__
    assert lines[-1].startswith("world: 2/2 videos")
    assert logs.ROOT.level == logging.NOTSET


def test_an_error_of_a_callback_ends_the_call() -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="one"), passing_messages(stop):
        logs.ROOT.info("one")
    logs.ROOT.info("two")


def test_every_public_function_that_took_a_callback_still_takes_it() -> None:
    decorated = {}
    for nodes in syntax_nodes().values():
        for node in nodes:
            if isinstance(node, ast.FunctionDef):
                for mark in map(ast.unparse, node.decorator_list):
                    if mark.startswith("deprecated_callback"):
                        decorated[node.name] = mark
    imports = ["actions", "crosstask", "howto100m", "lsmdc", "mining_youtube", "msrvtt", "npy", "webdataset"]
    imports += ["world_steps", "youcook2"]
    expected = dict.fromkeys([f"import_{name}" for name in imports], "deprecated_callback('progress')")
    expected |= dict.fromkeys(["write_world", "export_store"], "deprecated_callback('progress')")
    assert decorated == expected | {"run_study": "deprecated_callback('say')"}


def test_no_callback_is_no_callback(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning), pytest.raises(ValueError, match="does not exist"):
        import_npy(tmp_path / "missing", tmp_path / "s", progress=None)


def test_no_function_takes_a_function_that_prints() -> None:
    taken = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path, nodes in syntax_nodes().items()
        for node in nodes
        if isinstance(node, ast.arg) and node.annotation and "Callable[[str], None]" in ast.unparse(node.annotation)
    ]
    assert taken == [], "log with trichord.logs.get_logger(__name__)"


def test_one_process_of_a_launch_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logs.main_process_logger("trichord.tests.launch")
    lines: list[str] = []
    with passing_messages(lines.append):
        logger.info("main")
        monkeypatch.setattr(logs, "is_main_process", lambda: False)
        logger.warning("another")
    assert lines == ["main"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_the_terminal_of_a_command_alone(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    with StageLog(tmp_path, title="t", num_steps=1, tensorboard=False) as log:
        assert log.bar is None
    with printing_messages(), StageLog(tmp_path, title="t", num_steps=1, tensorboard=False) as log:
        assert (log.bar is not None) == terminal
        log.step(0, 0, {"loss": 1.0}, 8)
    assert ("step 1/1" in stream.getvalue()) != terminal


def test_messages_can_be_written_by_any_handler(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("trichord.media.video").warning("%s: has no sound", "a\x1b[2Jb\udcff.mp4")
    assert caplog.messages == [r"a\x1b[2Jb\udcff.mp4: has no sound"]


def test_modules_take_their_logger_from_here() -> None:
    paths = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]
    elsewhere = [path.name for path in paths if "getLogger(__name__)" in path.read_text()]
    assert elsewhere == []
