"""The report in a real browser: all parts are visible, nothing is requested, nothing overflows."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from browser import find_chromium, open_page
from report_helpers import write_study_folder
from report_sample import hostile_document, sample_document
from trichord.report.document import Cell, Column, Document, Figure, Section, Table
from trichord.report.html import to_html
from trichord.report.write import write_comparison, write_report

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="675pt" height="90pt"><rect width="675" height="90" fill="#fff"/></svg>'
REQUIRED = os.environ.get("TRICHORD_REQUIRE_BROWSER") == "1"
HEIGHT = 900  # pixels of a frame
MEASURE = (
    "<script>addEventListener('load', () => {{ const page = document.documentElement;"
    " parent.postMessage([{number}, page.scrollWidth, page.clientWidth{more}].join(' '), '*'); }})</script>"
)
CARD = (  # left, top, width and height of the first figure's frame, and the width of its content
    ", ...(() => { const card = document.querySelector('.card'), box = card.getBoundingClientRect();"
    " return [box.left, box.top, box.width, box.height, card.scrollWidth].map(Math.round) })()"
)
CELLS = ", ...[...document.querySelectorAll('tbody tr > *')].map(e => e.offsetWidth)"
FRAME = '<iframe src="{number}.html" width="{width}" height="{height}" style="border: 0; display: block"></iframe>'
PAGE = (  # windows narrower than 500 px do not exist, even without a screen; frames do
    "<!DOCTYPE html><title></title><body style='margin: 0'>"
    "<script>addEventListener('message', (event) => {{ document.title += event.data + ';'; }})</script>{frames}"
)

pytestmark = pytest.mark.skipif(
    find_chromium() is None and not REQUIRED, reason="no Chromium (TRICHORD_CHROMIUM names one)"
)


def colours(image: Image.Image) -> int:
    """Return the number of colours of a picture."""
    counts = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert counts is not None
    return len(counts)


def background(image: Image.Image) -> int:
    """Return the brightness of the corner of a picture, from 0 to 255."""
    pixel = image.convert("L").getpixel((2, 2))
    assert isinstance(pixel, int)
    return pixel


def word_document() -> Document:
    """Return a document with a long word in a caption and in a cell."""
    word = "w" * 300
    columns = (Column("a", numeric=False), Column("b", numeric=False))
    table = Table("t", "", columns, ((Cell("AV→T"), Cell(word)),), word)
    return Document("", "", (Section("s", (table, Figure("f", "", SVG, word, ""))),))


def figure_document() -> Document:
    return Document("", "", (Section("s", (Figure("f", "", SVG, "", ""),)),))


FRAMES: dict[str, tuple[Callable[[], Document], int, str]] = {  # name -> document, width, what else is measured
    "sample, wide": (sample_document, 1280, ""),
    "sample, narrow": (sample_document, 400, ""),
    "figure, wide": (figure_document, 1280, CARD),
    "figure, narrow": (figure_document, 400, CARD),
    "words": (word_document, 400, CELLS),
    "hostile": (hostile_document, 400, ""),
}


@dataclass(frozen=True)
class Measured:
    """The widths of the content and of the view of each frame, with further measures, and a picture of each frame."""

    numbers: dict[str, list[int]]
    pictures: dict[str, Image.Image]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Open all documents in frames of one page, with a script in a copy of each that allows it."""
    folder = tmp_path_factory.mktemp("frames")
    frames = ""
    for number, (document_of, width, more) in enumerate(FRAMES.values()):
        page = re.sub("<meta http-equiv=[^>]*>", "", to_html(document_of()), count=1)
        script = MEASURE.format(number=number, more=more)
        (folder / f"{number}.html").write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
        frames += FRAME.format(number=number, width=width, height=HEIGHT)
    (folder / "frames.html").write_text(PAGE.format(frames=frames), encoding="utf-8")
    dom = open_page(folder / "frames.html", 1400, HEIGHT * len(FRAMES), folder / "frames.png")
    title = re.search(r"<title>([\d ;]+)</title>", dom)
    assert title, "the scripts of the copies did not run"
    lines = sorted([int(part) for part in line.split()] for line in title[1].strip(";").split(";"))
    assert [line[0] for line in lines] == list(range(len(FRAMES)))
    with Image.open(folder / "frames.png") as image:
        crops = [
            image.crop((0, HEIGHT * number, width, HEIGHT * (number + 1)))
            for number, (_, width, _) in enumerate(FRAMES.values())
        ]
    numbers = {name: line[1:] for name, line in zip(FRAMES, lines, strict=True)}
    return Measured(numbers, dict(zip(FRAMES, crops, strict=True)))


@pytest.fixture(scope="module")
def sample_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("sample") / "report.html"
    page.write_text(to_html(sample_document()), encoding="utf-8")
    return page


def test_all_parts_are_shown(sample_page: Path, measured: Measured, tmp_path: Path) -> None:
    dom = open_page(sample_page, 1280, 3000, tmp_path / "page.png", "--blink-settings=preferredColorScheme=1")
    for section in sample_document().sections:
        assert f">{section.title}</h2>" in dom
    assert dom.count("<table") == 2 and dom.count("<img") == 2 and dom.count("<pre") == 1
    assert dom.count('role="note"') == 2
    with Image.open(tmp_path / "page.png") as image:
        assert colours(image) > 500 and background(image) > 240
    assert colours(measured.pictures["sample, narrow"]) > 500


def test_it_is_dark_in_dark_mode(sample_page: Path, tmp_path: Path) -> None:
    open_page(sample_page, 1280, 600, tmp_path / "dark.png", "--blink-settings=preferredColorScheme=0")
    with Image.open(tmp_path / "dark.png") as image:
        assert background(image) < 40


@pytest.mark.parametrize(("name", "width"), [("sample, wide", 1280), ("sample, narrow", 400)])
def test_nothing_overflows(name: str, width: int, measured: Measured) -> None:
    content, view = measured.numbers[name]
    assert view == width and content <= view


@pytest.mark.parametrize(("name", "more_behind"), [("figure, wide", False), ("figure, narrow", True)])
def test_figures_have_a_shadow_where_there_is_more(name: str, more_behind: bool, measured: Measured) -> None:
    content, view, left, top, wide, high, inside = measured.numbers[name]
    assert content <= view and (inside > wide) == more_behind
    image = measured.pictures[name].convert("L")
    row = [image.getpixel((x, top + high // 2)) for x in range(left + wide - 20, left + wide - 2)]
    if more_behind:
        assert row[-1] < 225 and row == sorted(row, reverse=True), "darker towards the edge"
    else:
        assert set(row) == {255}


def test_long_words_break_in_captions_and_cells(measured: Measured) -> None:
    content, view, short_cell, long_cell = measured.numbers["words"]
    assert content <= view, "captions"
    assert 30 < short_cell < 100 and long_cell <= 26 * 16, "cells: a short one stays, a long one breaks"


def test_hostile_texts_do_not_run(measured: Measured, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(hostile_document()), encoding="utf-8")
    dom = open_page(page, 400, 900, tmp_path / "page.png")
    assert "<script" not in dom and dom.count("<img") == 1 and dom.count("<h2") == 4
    content, view = measured.numbers["hostile"]
    assert content <= view


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    orders, seeds = ("av>t", "avt"), (0, 1)
    return write_study_folder(
        tmp_path_factory.mktemp("study") / "study", orders=orders, seeds=seeds, benchmarks={"tiny": 60}
    )


@pytest.fixture(scope="module")
def study_page(study: Path) -> Path:
    return write_report(study).page


@pytest.mark.parametrize("width", [1280, pytest.param(500, marks=pytest.mark.slow)])
def test_the_report_of_a_study_opens(width: int, study_page: Path, tmp_path: Path) -> None:
    dom = open_page(study_page, width, 4000, tmp_path / "page.png")
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
    with Image.open(tmp_path / "page.png") as image:
        assert colours(image) > 100


def test_the_comparison_of_two_studies_opens(study: Path, tmp_path: Path) -> None:
    other = shutil.copytree(study, tmp_path / "other")
    dom = open_page(write_comparison(study, other).page, 1280, 2000, tmp_path / "page.png")
    assert "What changed" in dom and "B - A" in dom
    with Image.open(tmp_path / "page.png") as image:
        assert colours(image) > 20
