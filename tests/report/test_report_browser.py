"""The report in a real browser: all parts are visible, nothing is requested, nothing overflows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from browser import find_chromium, open_page
from report_helpers import write_study_folder
from report_sample import hostile_document, sample_document
from trichord.report.document import Cell, Column, Document, Figure, Section, Table
from trichord.report.html import to_html
from trichord.report.write import write_comparison, write_report

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="675pt" height="90pt"><rect width="675" height="90" fill="#fff"/></svg>'
REQUIRED = os.environ.get("TRICHORD_REQUIRE_BROWSER") == "1"
MEASURE = (
    "<script>addEventListener('load', () => {{ const page = document.documentElement;"
    " parent.postMessage([page.scrollWidth, page.clientWidth{more}].join(' '), '*'); }})</script>"
)
CARD = (  # left, top, width and height of the first figure's frame, and how wide what it holds is
    ", ...(() => { const card = document.querySelector('.card'), box = card.getBoundingClientRect();"
    " return [box.left, box.top, box.width, box.height, card.scrollWidth].map(Math.round) })()"
)
FRAME = (  # windows narrower than 500 px do not exist, even without a screen; frames do
    "<!DOCTYPE html><title></title><body style='margin: 0'>"
    "<script>addEventListener('message', (event) => {{ document.title = event.data; }})</script>"
    '<iframe src="measure.html" width="{width}" height="900" style="border: 0"></iframe>'
)

pytestmark = pytest.mark.skipif(
    find_chromium() is None and not REQUIRED, reason="no Chromium (TRICHORD_CHROMIUM names one)"
)


def colours(picture: Path) -> int:
    from PIL import Image

    with Image.open(picture) as image:
        found = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert found is not None
    return len(found)


def background(picture: Path) -> int:
    from PIL import Image

    with Image.open(picture) as image:
        pixel = image.convert("L").getpixel((2, 2))
    assert isinstance(pixel, int)
    return pixel


def measured(document: Document, width: int, folder: Path, more: str = "") -> tuple[int, ...]:
    """Return the widths of the content and of the view, and `more`, with a script in a copy of the page that allows it."""
    page = re.sub("<meta http-equiv=[^>]*>", "", to_html(document), count=1)
    copy = folder / "measure.html"
    copy.write_text(page.replace("</body>", MEASURE.format(more=more) + "</body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    dom = open_page(frame, 1400, 900, folder / "frame.png")
    found = re.search(r"<title>([\d ]+)</title>", dom)
    assert found, "the copy's script did not run"
    return tuple(map(int, found[1].split()))


@pytest.mark.parametrize("width", [1280, 400])
def test_all_parts_are_shown(width: int, tmp_path: Path) -> None:
    document = sample_document()
    page = tmp_path / "report.html"
    page.write_text(to_html(document), encoding="utf-8")
    dom = open_page(page, width, 3000, tmp_path / "page.png")
    for section in document.sections:
        assert f">{section.title}</h2>" in dom
    assert dom.count("<table") == 2 and dom.count("<img") == 2 and dom.count("<pre") == 1
    assert dom.count('role="note"') == 2
    assert colours(tmp_path / "page.png") > 500


def test_it_is_dark_in_dark_mode(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(sample_document()), encoding="utf-8")
    open_page(page, 1280, 600, tmp_path / "light.png", "--blink-settings=preferredColorScheme=1")
    open_page(page, 1280, 600, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    assert background(tmp_path / "light.png") > 240 and background(tmp_path / "dark.png") < 40


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_overflows(width: int, tmp_path: Path) -> None:
    content, view = measured(sample_document(), width, tmp_path)
    assert view == width and content <= view


@pytest.mark.parametrize(("width", "more_behind"), [(1280, False), (400, True)])
def test_figures_have_a_shadow_where_there_is_more(width: int, more_behind: bool, tmp_path: Path) -> None:
    from PIL import Image

    figure = Figure("f", "", SVG, "", "")
    document = Document("", "", (Section("s", (figure,)),))
    content, view, left, top, wide, high, inside = measured(document, width, tmp_path, CARD)
    assert content <= view and (inside > wide) == more_behind
    with Image.open(tmp_path / "frame.png") as image:
        row = [image.convert("L").getpixel((x, top + high // 2)) for x in range(left + wide - 20, left + wide - 2)]
    if more_behind:
        assert row[-1] < 225 and row == sorted(row, reverse=True), "darker towards the edge"
    else:
        assert set(row) == {255}


def test_long_words_break_in_captions_and_cells(tmp_path: Path) -> None:
    word = "w" * 300
    columns = (Column("a", numeric=False), Column("b", numeric=False))
    table = Table("t", "", columns, ((Cell("AV→T"), Cell(word)),), word)
    document = Document("", "", (Section("s", (table, Figure("f", "", SVG, word, ""))),))
    found = measured(
        document, 400, tmp_path, ", ...[...document.querySelectorAll('tbody tr > *')].map(e => e.offsetWidth)"
    )
    assert found[0] <= found[1], "captions"
    assert 30 < found[2] < 100 and found[3] <= 26 * 16, "cells: a short one stays, a long one breaks"


def test_hostile_texts_do_not_run(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(hostile_document()), encoding="utf-8")
    dom = open_page(page, 400, 900, tmp_path / "page.png")
    assert "<script" not in dom and dom.count("<img") == 1 and dom.count("<h2") == 4
    content, view = measured(hostile_document(), 400, tmp_path)
    assert content <= view


@pytest.mark.parametrize("width", [1280, 500])
def test_the_report_of_a_study_opens(width: int, tmp_path: Path) -> None:
    study = write_study_folder(tmp_path / "study", benchmarks={"tiny": 60})
    dom = open_page(write_report(study).page, width, 4000, tmp_path / "page.png")
    for text in (
        "In short",
        "The order table",
        "Which order is best",
        "The joint space",
        "Learning curves",
        "To repeat",
    ):
        assert text in dom, text
    assert dom.count("<img") == 10 and dom.count("<table") >= 9
    assert colours(tmp_path / "page.png") > 100


def test_the_comparison_of_two_studies_opens(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_study_folder(tmp_path / name, benchmarks={"tiny": 60})
    dom = open_page(write_comparison(tmp_path / "one", tmp_path / "two").page, 1280, 2000, tmp_path / "page.png")
    assert "What changed" in dom and "B - A" in dom and colours(tmp_path / "page.png") > 20
