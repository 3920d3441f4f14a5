"""Untrusted names in plots are drawn letter by letter, never as a formula or a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from table_helpers import table_of_rows
from trichord.report import plots_look
from trichord.study.drawing import drawing
from trichord.study.table import MAX_TITLE, StudyTable, draw_orders

NAMES = [
    "x $\\foo$",
    "cost $5 and $10",
    "$",
    "$$",
    "a_b^c",
    "\\frac{",
    "{%#&~",
    "_hidden",
    "日本",
    "line\nbreak",
    "n" * 300,
    "$\\$",
]


def table_of(name: str) -> StudyTable:
    row = {"benchmark": name, "order": "av>t", "seed": 0, "direction": "t2v", "num_queries": 10, "medr": 1.0}
    row |= {"num_gallery": 10, **{f"{part}{k}": 10.0 for part in ("r", "chance_r") for k in (1, 5, 10)}}
    return table_of_rows([row], [name], [name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("usetex", [False, True])
def test_the_orders_of_a_collection_of_any_name_are_drawn(
    name: str, usetex: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    original: Any = Text._preprocess_math

    def noted(self: Text, text: str) -> tuple[str, object]:
        shown, kind = original(self, text)
        if kind:
            parsed.append(text)
        return shown, kind

    monkeypatch.setattr(Text, "_preprocess_math", noted)
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", usetex)
    draw_orders(table_of(name), tmp_path / "orders.png")
    assert (tmp_path / "orders.png").read_bytes().startswith(b"\x89PNG") and not parsed
    assert matplotlib.rcParams["text.usetex"] is usetex


def test_long_titles_are_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    titles: list[str] = []
    monkeypatch.setattr(matplotlib.axes.Axes, "set_title", lambda self, title, **_: titles.append(title))
    draw_orders(table_of("n" * 300), tmp_path / "orders.png")
    assert titles == ["n" * (MAX_TITLE - 1) + "…"]


@pytest.mark.parametrize("name", NAMES)
def test_the_report_draws_names_literally_too(name: str) -> None:
    with plots_look.look():
        figure = Figure()
        figure.text(0.1, 0.1, plots_look.plain(name))
        text = plots_look.svg_text(figure)
    assert "<text" in text


def test_settings_of_the_user_do_not_change_figures() -> None:
    with matplotlib.rc_context({"text.parse_math": True, "text.usetex": True, "font.size": 99}):
        with drawing({"font.size": 7}):
            assert not matplotlib.rcParams["text.parse_math"] and not matplotlib.rcParams["text.usetex"]
            assert matplotlib.rcParams["font.size"] == 7
        assert matplotlib.rcParams["font.size"] == 99
