"""Fixtures of the tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawing_fixtures import undrawn, without_chart
from report_helpers import HOSTILE_CAPTION, ORDERS, write_study_folder

__all__ = ["undrawn", "without_chart"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of five orders with three seeds and two benchmarks, which tests must not change."""
    return write_study_folder(
        tmp_path_factory.mktemp("report") / "my study",
        orders=[*ORDERS, "vt"],
        benchmarks={"tiny": 60, "youcook2": 90},
        caption=HOSTILE_CAPTION,
    )
