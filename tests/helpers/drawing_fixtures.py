"""Fixtures that leave out drawings, which take most of the time of tests whose subject are figures and texts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trichord.report import contents, plots
from trichord.study import table

EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"></svg>'
PLOTS = (
    "costs", "differences", "gaps", "intervals", "joint_space", "learning_curves", "parameters", "purity",
    "similarity_matrices", "wins_and_losses",
)  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plots of reports empty; `test_report.py` and `test_report_plots.py` test them."""
    for name in PLOTS:
        monkeypatch.setattr(plots, name, lambda *arguments, **options: EMPTY)
    monkeypatch.setattr(contents, "recall_curves", lambda *arguments: EMPTY)


@pytest.fixture(scope="module")
def without_chart() -> Iterator[None]:
    """Leave `orders.png` of studies empty; `test_study.py` tests it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "draw_orders", lambda study_table, path: path.write_bytes(b""))
        yield
