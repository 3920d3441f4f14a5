"""A read-only store: a study reports it before its first step, and computes frozen encoders in every step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from privileges import plain_user
from trichord.data.frozen import why_not_writable
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.recipes import load_recipe
from trichord.study.freeze import freeze
from trichord.study.run import run_study, train_order


def quick(**training: Any) -> Any:
    options = {"max_steps": 4, "device": "cpu", "tensorboard": False, **training}
    return load_recipe("debug", training=options, data={"audio_frames": 50}, evaluation={"directions": ["t2v"]})


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_store, tmp_path / "store", ignore=shutil.ignore_patterns("frozen"))
    return tmp_path / "store"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.chmod(0o555)
    try:
        with plain_user():
            yield
    finally:
        folder.chmod(0o755)


def losses(out: Path) -> list[float]:
    (path,) = out.glob("stages/av-t.*/metrics.jsonl")
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("without_chart")
def test_a_study_reports_it_first_and_computes_without_a_cache(store: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    with read_only(store), passing_messages(lines.append):
        run_study(store, tmp_path / "study", ["av>t"], [0], quick())
    notes = [
        number for number, line in enumerate(lines) if f"{store}/frozen: cannot be written (Permission denied)" in line
    ]
    steps = [number for number, line in enumerate(lines) if " step " in line]
    assert len(notes) == 1 and notes[0] < steps[0]
    assert "later stages compute them at every step" in lines[notes[0]]
    assert any("is encoded at every step" in line for line in lines)
    assert not (store / "frozen").exists()
    train_order(store, tmp_path / "off", "av>t", 0, quick(frozen_cache="off"))
    assert losses(tmp_path / "study") == losses(tmp_path / "off")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_file_in_place_of_the_cache_is_reported_and_kept(store: Path, tmp_path: Path, kind: str) -> None:
    frozen, elsewhere = store / "frozen", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "link":
        frozen.symlink_to(elsewhere)
    else:
        frozen.write_text("mine")
    lines: list[str] = []
    with passing_messages(lines.append):
        train_order(store, tmp_path / "run", "av>t", 0, quick())
    first_step = next(number for number, line in enumerate(lines) if " step " in line)
    assert any(
        "frozen: cannot be written (it is a link or a file, not a folder)" in line for line in lines[:first_step]
    )
    assert not list(elsewhere.iterdir()) and (frozen.is_symlink() if kind == "link" else frozen.read_text() == "mine")


def test_an_existing_cache_is_used(store: Path, tmp_path: Path) -> None:
    train_order(store, tmp_path / "first", "av>t", 0, quick())
    kept = sorted(path.name for path in (store / "frozen").iterdir())
    lines: list[str] = []
    with read_only(store / "frozen"), read_only(store), passing_messages(lines.append):
        train_order(store, tmp_path / "second", "av>t", 0, quick())
    assert not any("is encoded at every step" in line for line in lines)
    assert sorted(path.name for path in (store / "frozen").iterdir()) == kept
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


def test_a_pass_that_another_user_has_begun_is_computed_at_every_step(store: Path, tmp_path: Path) -> None:
    """The store and its folder are writable, but existing files in it are not."""
    (store / "frozen").mkdir()
    (store / "frozen" / "leases").touch(mode=0o400)
    with plain_user():
        assert why_not_writable(store / "frozen") == f"permission to write {store / 'frozen' / 'leases'} is missing"
        lines: list[str] = []
        with passing_messages(lines.append):
            train_order(store, tmp_path / "run", "av>t", 0, quick())
    assert any("is encoded at every step" in line for line in lines)


def test_making_ahead_needs_the_right_to_write(store: Path, tmp_path: Path) -> None:
    train_order(store, tmp_path / "run", "av>t", 0, quick(frozen_cache="auto"))
    shutil.rmtree(store / "frozen")
    with (
        read_only(store),
        pytest.raises(TrichordError, match=r"frozen embeddings cannot be written \(Permission denied\)"),
    ):
        freeze(tmp_path / "run", store)


def test_the_check_leaves_no_files(store: Path) -> None:
    assert why_not_writable(store / "frozen") == ""
    assert not (store / "frozen").exists()
