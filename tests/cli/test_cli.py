"""The command line: options, help, errors and exit codes."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import forked
from study_helpers import QUICK_WORDS
from trichord.cli import COMMANDS, main
from trichord.errors import TrichordError
from trichord.files.reading import NotRegularFileError
from trichord.recipes import Recipe

pytestmark = pytest.mark.usefixtures("without_chart")

HELP = """
import sys
from trichord.cli import main
try:
    main({words})
except SystemExit:
    pass
sys.exit("torch" in sys.modules)
"""


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the single line of an error."""
    assert main(list(words)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("trichord: error: ")
    return lines[0]


def test_help_names_every_command_and_imports_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", HELP.format(words=["--help"])], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", ["study", "train"])
def test_help_names_every_setting_and_imports_no_torch(command: str) -> None:
    code = HELP.format(words=[command, "--help"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    settings = [f"--{section}.{name} " for section, values in Recipe().to_dict().items() for name in values]
    assert [setting for setting in settings if f"\n  {setting}" not in done.stdout] == []


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "trichord", "nope"], capture_output=True, text=True)
    assert done.returncode == 2 and "unknown command 'nope'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "study --store S --out O --first-stage-seed -1", "train --store S --out O --training.max-steps -1",
        "evaluate R --store S --window-s -1", "embed M f.mp4 --out e.npz --window-s=-1", "world O --num-train -1",
    ],
)  # fmt: skip
def test_options_may_be_written_with_dashes(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r" is -1(\.0)?; it must be ", fails(capsys, *words.split()))


@pytest.mark.parametrize("command", ["world", "extract", "train", "study", "evaluate", "demo"])
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"Example: trichord {command}" in out


def test_train_resume_and_evaluate(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    words = ["train", "--store", str(tiny_store), "--out", out, "--order", "vt>a", *QUICK_WORDS]
    assert main(words) == 0
    assert "4 steps; the model is in" in capsys.readouterr().out
    assert "add --resume" in fails(capsys, *words)
    assert main([*words, "--resume"]) == 0
    assert "0 steps" in capsys.readouterr().out
    result = tmp_path / "result.json"
    assert main(["evaluate", out, "--store", str(tiny_store), "--directions", "[t2v,t2va]", "--out", str(result)]) == 0
    assert "t2va" in capsys.readouterr().out
    assert [row["direction"] for row in json.loads(result.read_text())] == ["t2v", "t2va"]


def test_study_prints_the_table(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "study",
        "--store",
        str(tiny_store),
        "--out",
        str(tmp_path / "study"),
        "--orders",
        '["av>t","avt"]',
        *QUICK_WORDS,
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(label in out for label in ("AV→T", "AVT", "chance", "R@10", "table.md", "32 queries"))


def test_print_config_shows_and_takes_every_setting(
    tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "paper", "--store", "s", "--out", "o", "--print_config"])
    printed = capsys.readouterr().out
    assert "learning_rate: 0.0001" in printed and "clips_per_video: 32" in printed
    config = tmp_path / "mine.yaml"
    config.write_text("model: {embed_dim: 16}\n")
    out = tmp_path / "run"
    assert main(["train", "--config", str(config), "--store", str(tiny_store), "--out", str(out), *QUICK_WORDS]) == 0
    assert "embed_dim: 16" in (out / "run.yaml").read_text()


def test_mistakes_are_errors_of_one_line(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, out = str(tiny_store), str(tmp_path / "out")
    train = ["train", "--store", store, "--out", out]
    assert "a valid order is av>t" in fails(capsys, *train, "--order", "a>vt")
    assert "training.epoch" in fails(capsys, *train, "--training.epoch", "3")
    assert "training.epochs" in fails(capsys, *train, "--training.epochs", "many")
    assert "unknown recipe 'nope'" in fails(capsys, *train, "--recipe", "nope")
    assert "--out" in fails(capsys, "train", "--store", store)
    assert "does not exist" in fails(capsys, "study", "--store", str(tmp_path / "none"), "--out", out)
    assert "unknown importer 'nope'" in fails(capsys, "import", "nope")
    assert "--root" in fails(capsys, "import", "youcook2", "--store", out)
    assert "contains no trained model" in fails(capsys, "evaluate", str(tmp_path), "--store", store)
    assert "contains no clips of benchmark 'nope'" in fails(
        capsys, "study", "--store", store, "--out", out, "--benchmarks", '["nope"]'
    )
    assert fails(capsys, "extract", str(tmp_path / "none"), "--store", out)
    assert fails(capsys, "store", "info", str(tmp_path / "none"))
    (tmp_path / "fake.pth").write_bytes(b"not a checkpoint")
    assert "fake.pth" in fails(capsys, "evaluate", str(tmp_path / "fake.pth"), "--store", store)


@pytest.mark.parametrize(
    "error, line",
    [
        (NotRegularFileError(errno.EINVAL, "is a FIFO, not a regular file", "x/y"), "x/y: cannot be read (is a FIFO"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x/y"), "x/y: does not exist"),
        (OSError(errno.ESTALE, "Stale file handle", "x/y"), "x/y: cannot be read (Stale file handle)"),
        (
            OSError(errno.ETIMEDOUT, "Connection timed out"),
            "the operating system reported an error (Connection timed out)",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "the operating system reported an error (Too many open files)"),
        (OSError("no number and no file"), "internal error: OSError"),
        (ValueError("a defect"), "internal error: ValueError: a defect"),
    ],
)
def test_errors_of_the_system_are_not_internal_errors(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(words: list[str]) -> int:
        raise error

    monkeypatch.setattr("trichord.cli.scoring.doctor", failing)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith(f"trichord: error: {line}")


def test_a_study_whose_lock_is_a_fifo(tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / ".lock")
    assert main(["study", "--store", str(tiny_store), "--out", str(tmp_path), "--orders", "[vt]", *QUICK_WORDS]) == 2
    assert ".lock: cannot be read (is a FIFO, not a regular file)" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        main(["study", "--store", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--debug"])


def test_doctor_reports_working_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("torch", "device: CPU", "decoder: pyav", "efficientnet-lite0", "resnet152"))


def test_store_info_and_verify(tiny_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "info", str(tiny_store)]) == 0
    assert "16" in capsys.readouterr().out
    assert main(["store", "verify", str(tiny_store)]) == 0
    assert "no problems found" in capsys.readouterr().out


@pytest.mark.slow
def test_world_to_table(tmp_path: Path) -> None:
    """Runs a small demo through every package, in a separate process."""
    command = [sys.executable, "-m", "trichord", "demo", "--out", str(tmp_path / "demo"), "--recipe", "debug"]
    words = ["--num_train", "2", "--num_test", "2"]
    done = forked.run(command + words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "AV→T" in done.stdout and (tmp_path / "demo" / "study" / "table.md").is_file()


def test_the_encoders_are_listed_by_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "--list-encoders"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "--visual_2d, visual_3d",
        "--audio",
        "--text",
        "--speech",
    ]
    for name in ("resnet152", "resnext101-3d", "tv:r3d_18", "log-mel", "st:all-minilm-l6-v2", "whisper:tiny.en"):
        assert any(line.startswith(f"  {name}") for line in lines), name


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK"])
@pytest.mark.parametrize("number", ["abc", "", "-1", "9" * 30, "1.5"])
def test_invalid_numbers_of_a_launch(
    name: str, number: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, number)
    assert f"the environment variable {name} is '{number}'" in fails(capsys, "doctor")


def test_a_current_folder_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "the current folder no longer exists; change to another folder" in fails(capsys, "doctor")


@pytest.mark.parametrize(
    ("words", "orders", "seeds"),
    [
        ((), ["av>t", "at>v", "vt>a", "avt"], [0]),
        (("--orders", "vt>a", "--seeds", "3"), ["vt>a"], [3]),
        (("--orders", "vt>a, avt", "--seeds", "0,2"), ["vt>a", "avt"], [0, 2]),
        (("--orders", "[vt>a,avt]", "--seeds", "[0,2]"), ["vt>a", "avt"], [0, 2]),
        (("--orders", '["vt>a", "avt"]', "--seeds=0, 2"), ["vt>a", "avt"], [0, 2]),
    ],
)
def test_orders_and_seeds_of_a_study_are_lists_or_text_with_commas(
    words: tuple[str, ...], orders: list[str], seeds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trichord.study import run

    calls = []

    def record(store: str, out: Path, orders: list[str], seeds: list[int], *_: object, **__: object) -> None:
        calls.append((orders, seeds))
        raise TrichordError("enough")

    monkeypatch.setattr(run, "run_study", record)
    assert main(["study", "--store", "s", "--out", "o", *words]) == 2
    assert calls == [(orders, seeds)]
