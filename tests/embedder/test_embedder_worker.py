"""`trichord embed` decodes in a separate process: a file that crashes or blocks it is named, and the others are embedded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doc_examples import run_examples
from embed_helpers import NamedFiles, named_files, no_model
from trichord.embedder.files import embed_files
from trichord.embedder.worker import Worker
from trichord.errors import TrichordError
from trichord.logs import passing_messages

REASONS = {
    "crash.png": "the decoder crashed (SIGSEGV)",
    "killed.png": "probably because it ran out of memory",
    "hang.png": "did not return a picture or sound for 0.2 s",
    "broken.png": "is broken; replace it",
    "odd.png": "cannot be embedded ('what no decoder should raise')",
}


@pytest.mark.parametrize(
    ("exit_code", "reason"), [(-9, REASONS["killed.png"]), (-11, "(SIGSEGV)"), (3, "(exit code 3)")]
)
def test_the_cause_of_an_end_of_the_process(exit_code: int, reason: str) -> None:
    with Worker(named_files) as worker:
        assert reason in worker._cause(exit_code)


@pytest.mark.parametrize("bad", [["hang.png", "broken.png"], pytest.param(list(REASONS), marks=pytest.mark.slow)])
def test_files_that_end_the_decoder_are_named_and_the_others_embedded(bad: list[str], tmp_path: Path) -> None:
    names = ["a.png", *bad, "b.png"]
    for name in names:
        (tmp_path / name).touch()
    lines: list[str] = []
    with Worker(named_files, stall_s=0.2) as worker:
        model: NamedFiles = named_files()
        with passing_messages(lines.append):
            embedded = embed_files(model, [tmp_path / name for name in names], worker=worker)  # type: ignore[arg-type]
    assert embedded.ids.tolist() == [(tmp_path / name).as_posix() for name in ("a.png", "b.png")]
    assert os.getpid() not in embedded.embeddings["video"][:, 0], "embedded in this process"
    for line, name in zip(lines, bad, strict=False):
        assert line.startswith(f"left out: {tmp_path / name}: ") and REASONS[name] in line
    assert lines[-1] == f"{len(bad)} of {len(names)} files were left out; the lines above say why"


def test_a_single_bad_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "crash.png").touch()
    with Worker(named_files) as worker, pytest.raises(TrichordError, match="crash.png: the decoder crashed"):
        embed_files(named_files(), [tmp_path / "crash.png"], worker=worker)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with Worker(no_model) as worker, pytest.raises(TrichordError, match="the model cannot be loaded: no model is here"):  # type: ignore[arg-type]
        embed_files(named_files(), [tmp_path / "a.png"], worker=worker)  # type: ignore[arg-type]


def test_examples_run(example_files: Path) -> None:
    run_examples("trichord.embedder.worker", example_files)
