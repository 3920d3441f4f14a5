"""Fixtures of the tests of reports."""

from __future__ import annotations

import pytest

from study_helpers import without_chart
from trichord.report import contents, plots

__all__ = ["undrawn", "without_chart"]

EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"></svg>'
DRAWINGS = (
    "costs", "differences", "gaps", "intervals", "joint_space", "learning_curves", "parameters", "purity",
    "similarity_matrices", "wins_and_losses",
)  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plots of reports empty. Drawing takes most of the time of a report; `test_report_plots.py` tests it."""
    for name in DRAWINGS:
        monkeypatch.setattr(plots, name, lambda *arguments, **options: EMPTY)
    monkeypatch.setattr(contents, "recall_curves", lambda *arguments: EMPTY)
