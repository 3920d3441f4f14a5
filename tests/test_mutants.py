"""The script of the mutants tells one that cannot be tried from one that got past; the mutants themselves: `make mutants`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import mutants
from mutant_table import MUTANTS, Mutant

SAMPLE = Mutant("sample", "room/code.py", "a + b", "a - b", ("test_mutants.py",))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "trichord" / "room").mkdir(parents=True)
    (tmp_path / "trichord" / "room" / "code.py").write_text("def add(a, b):\n    return a + b\n")
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"file": "room/gone.py"}, ""),  # the text has moved to another file
        ({"old": "a * b"}, "its old text is there 0 times, not once (src/trichord/room/code.py)"),
        ({"old": "a"}, "its old text is there 3 times"),
        ({"tests": ("test_gone.py",)}, "tests/test_gone.py does not exist"),
        ({"tests": ("test_mutants.py::test_gone",)}, "tests/test_mutants.py has no test test_gone"),
    ],
)
def test_what_cannot_be_tried_is_told(changes: dict[str, object], told: str, source: Path) -> None:
    why = mutants.fault_of(replace(SAMPLE, **changes), source)  # type: ignore[arg-type]
    assert why.startswith(told) and bool(why) == bool(told)


@pytest.mark.parametrize(
    ("code", "caught", "word"), [(1, True, "caught"), (0, False, "GOT PAST"), (4, False, "NOT TRIED")]
)
def test_only_a_failed_test_counts_as_caught(
    code: int, caught: bool, word: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "trichord" / "room" / "code.py"
    seen: list[str] = []

    def run_tests(nodes: tuple[str, ...], where: Path) -> tuple[int, str]:
        seen.append((where / "trichord" / "room" / "code.py").read_text())
        return code, ""

    monkeypatch.setattr(mutants, "run_tests", run_tests)
    before = path.read_text()
    found, line = mutants.tried(SAMPLE, source, 1)
    assert (found, seen, path.read_text()) == (caught, [before.replace("a + b", "a - b")], before)
    assert line.startswith(word)


def test_the_table_has_forty_mutants_and_more_each_of_another_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
    assert all(mutant.old != mutant.new and mutant.tests for mutant in MUTANTS)
