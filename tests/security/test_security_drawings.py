"""SVG files that would take more time, memory or stack than a picture of their size."""

from __future__ import annotations

import base64
import gzip
import io
import struct
import zlib
from pathlib import Path

import pytest
import resvg_py
from PIL import Image

from security_helpers import refusal
from trichord.media.images import image
from trichord.media.sampling import FrameSpec
from trichord.media.svg import svg_text, without_content


def png(width: int, height: int) -> str:
    """Return a `data:` URL of a black picture; of a large one, only the first bytes."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes((width + 7) // 8)) * min(height, 100))
    parts = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    packed = b"".join(
        struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + packed).decode()


def svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100">{body}</svg>'


def used(levels: int, inner: str) -> str:
    """Return nested elements, each of which uses the previous one ten times."""
    text = f'<defs><g id="l0">{inner}</g>'
    for i in range(levels):
        text += f'<g id="l{i + 1}">' + f'<use href="#l{i}"/>' * 10 + "</g>"
    return svg(f'{text}</defs><use href="#l{levels}"/>')


CLASSES = '<style>.a{{fill:url(#p)}}</style><pattern id="p">{}</pattern>' + '<rect class="a"/>' * 300
LARGE_SVG = {
    "one": (svg(f'<image href="{png(30000, 30000)}"/>'), "million pixels"),
    "two": (svg(f'<image href="{png(10000, 10000)}"/><image href="{png(10000, 10000)}"/>'), "million pixels"),
    "used often": (used(3, f'<image href="{png(1000, 1000)}"/>'), "million pixels"),
    "in a pattern": (svg(f'<pattern id="p"><image href="{png(9999, 9999)}"/></pattern>'
                         '<rect fill="url(#p)"/><rect style="fill: url(\'#p\')"/>'), "million pixels"),
    "by a style sheet": (svg(CLASSES.format(f'<image href="{png(1000, 1000)}"/>')), "million pixels"),
    "in a filter": (svg(f'<filter id="f"><feImage href="{png(30000, 30000)}"/></filter>'), "million pixels"),
    "percent-encoded": (svg(f'<image href="{png(30000, 30000).replace("A", "%41")}"/>'), "million pixels"),
    "a drawing in a picture": (svg('<image href="data:image/png;x=image/svg+xml;base64,'
                                   + base64.b64encode(svg("").encode()).decode() + '"/>'), "is not in PNG, JPEG, GIF or"),
    "nested": (svg("<g>" * 200_000 + "</g>" * 200_000), "nested more than 200 levels deep"),
    "nested by entities": ('<!DOCTYPE svg [<!ENTITY a "' + "<g>" * 300 + "</g>" * 300 + '">]>' + svg("&a;"), "nested more than"),
    "nested by references": (svg('<g id="l0"/>' + "".join(f'<use id="l{i + 1}" href="#l{i}"/>' for i in range(300))), "nested"),
    "a wide filter": (svg('<filter id="f" width="200000%"/>'), "(filter) whose width"),
    "octaves": (svg('<filter id="f"><feTurbulence numOctaves="50"/></filter>'), "(feTurbulence) whose numOctaves"),
    "a wide blur": (svg('<filter id="f"><feGaussianBlur stdDeviation="1 2e3"/></filter>'), "whose stdDeviation"),
    "a large kernel": (svg('<filter id="f"><feConvolveMatrix order="99"/></filter>'), "whose order"),
    "a wide brush": (svg('<filter id="f"><feMorphology radius="500"/></filter>'), "whose radius"),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE_SVG)
def test_drawings_take_no_more_work_than_pictures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resvg_py.svg_to_bytes", lambda **options: pytest.fail("it was drawn"))
    text, reason = LARGE_SVG[name]
    (tmp_path / "x.svg").write_text(text)
    (tmp_path / "x.svgz").write_bytes(gzip.compress(text.encode()))
    for path in (tmp_path / "x.svg", tmp_path / "x.svgz"):
        assert reason in refusal(lambda path=path: image(path, FrameSpec()))  # type: ignore[misc]


@pytest.mark.parametrize(
    "element",
    [
        '<filter id="f"><feGaussianBlur stdDeviation="{}"/></filter>'.format(" " * 500_000),
        '<rect fill="url({}"/>'.format(" " * 500_000),
        '<g width="{}x"/>'.format("1" * 500_000),
    ],
)
def test_hostile_attributes_take_linear_time(element: str, tmp_path: Path) -> None:
    (tmp_path / "x.svg").write_text(svg(element))
    assert svg_text(tmp_path / "x.svg")  # the timeout of the tests would end a quadratic pattern
    without_content(element)


def test_usual_drawings_are_drawn(tmp_path: Path) -> None:
    blur = '<filter id="f"><feGaussianBlur stdDeviation="2"/></filter>'
    for text in (
        used(2, f'<image href="{png(10, 10)}" width="10" height="10"/>'),
        svg("<g>" * 150 + '<rect width="9" height="9"/>' + "</g>" * 150),
        svg(f'{blur}<rect width="50" height="50" filter="url(#f)"/>'),
        svg('<g id="a"><use href="#a"/></g>'),
    ):
        (tmp_path / "x.svg").write_text(text)
        assert image(tmp_path / "x.svg", FrameSpec(short_side=32)).shape == (32, 32, 3)


@pytest.mark.parametrize(
    "root", ['width="30" height="20"', 'viewBox="0 0 3 2"', 'width="3" height="2" viewBox="0 0 9 9"']
)
def test_the_aspect_of_a_drawing_is_measured_without_its_content(root: str) -> None:
    text = f'<svg xmlns="http://www.w3.org/2000/svg" {root}><rect width="99" height="9"/></svg>'
    empty = without_content(text)
    assert "rect" not in empty
    sizes = [
        Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=t, width=90, height=90)))).size
        for t in (text, empty)
    ]
    assert sizes[0] == sizes[1]
    for other in ("", 'width="100%" height="50%"', f'{root} style="width:9px"'):
        text = f'<svg xmlns="http://www.w3.org/2000/svg" {other}><rect width="99" height="9"/></svg>'
        assert without_content(text) == text
