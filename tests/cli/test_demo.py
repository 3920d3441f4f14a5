"""The demo continues only with a world that was extracted completely."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from trichord.cli import main
from trichord.cli.data import exit_code_of
from trichord.cli.stopping import Stopped
from trichord.extraction.summary import ExtractSummary


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExtractSummary:
    """Return the summary of an extraction; a study that starts fails the test."""
    extracted = ExtractSummary(tmp_path / "store", "world", "none", 2)
    monkeypatch.setattr("trichord.world.write_world", lambda *arguments, **options: "a world")
    monkeypatch.setattr("trichord.extraction.extract.extract", lambda *arguments, **options: extracted)
    monkeypatch.setattr("trichord.study.run.run_study", lambda *arguments, **options: pytest.fail("the study began"))
    return extracted


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Stopped(signal.SIGTERM), 143)])
def test_an_interrupted_extraction_ends_the_demo_and_the_command(
    error: KeyboardInterrupt, code: int, summary: ExtractSummary, tmp_path: Path
) -> None:
    summary.interruption = error
    assert main(["demo", "--out", str(tmp_path / "demo")]) == code
    assert exit_code_of(summary) == code


def test_an_incomplete_world_is_not_studied(
    summary: ExtractSummary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary.num_postponed = 1
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "a part of the world could not be extracted; run the command again" in capsys.readouterr().err


def test_a_summary_is_printed_line_by_line(
    summary: ExtractSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trichord.world.write_world", lambda *arguments, **options: "a world\n9 videos")
    summary.num_postponed = 1
    main(["demo", "--out", str(tmp_path / "demo")])
    assert capsys.readouterr().out.splitlines()[1:3] == ["a world", "9 videos"]
