"""The report as one HTML file, without scripts and external content. Equal documents give equal files."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from trichord.report.document import Commands, Document, Figure, Section, Table, Text, clean, folded, slug, unused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import Template

TEMPLATE = "page.html.j2"
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
WIDE_TABLE = 7  # number of columns from which the first column stays visible while the others scroll
LONG_TEXT = 36  # number of characters above which the text of a cell may break, in a column of sufficient width

_POINTS_PER_UNIT = {"": 0.75, "px": 0.75, "pt": 1.0, "in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4}


def to_html(document: Document) -> str:
    """Return the page. It opens offline, texts are escaped, and a content policy forbids scripts and requests."""
    return _template().render(document=document, sections=list(_sections(document)), content_policy=CONTENT_POLICY)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters["folded"] = folded
    return environment.from_string(files("trichord.report").joinpath(TEMPLATE).read_text(encoding="utf-8"))


def _sections(document: Document) -> Iterator[dict[str, Any]]:
    numbers = document.numbers()
    taken: set[str] = set()
    for section in document.sections:
        blocks = [_block(block, numbers) for block in section.blocks]
        yield {"id": _section_id(section, taken), "title": section.title, "intro": section.intro, "blocks": blocks}


def _section_id(section: Section, taken: set[str]) -> str:
    name = unused(f"section-{slug(section.title)}", taken, "{}-{}")
    taken.add(name)
    return name


def _block(block: Table | Figure | Text | Commands, numbers: dict[int, int]) -> dict[str, Any]:
    if isinstance(block, Table):
        return {"type": "table", "number": numbers[id(block)], "table": block, **_table_parts(block)}
    if isinstance(block, Figure):
        return {"type": "figure", "number": numbers[id(block)], "figure": block, **_figure_parts(block)}
    if isinstance(block, Text):
        return {"type": "text", "text": block}
    return {"type": "commands", "commands": block}


def _table_parts(table: Table) -> dict[str, Any]:
    """Return the headings, the rows in a body for each part between separators, and the footnotes of a table."""
    notes = table.notes()
    cuts = sorted({0, *(row for row in table.separators if 0 < row < len(table.rows)), len(table.rows)})
    starts, column = [], 0  # the first column of each group, which is preceded by a gap
    for _, width in table.groups():
        starts.append(column)
        column += width
    return {
        "bodies": [table.rows[start:end] for start, end in zip(cuts, cuts[1:], strict=False)],
        "groups": [
            {"label": group, "width": width, "first": start}
            for (group, width), start in zip(table.groups(), starts, strict=True)
        ],
        "grouped": any(column.group for column in table.columns),
        "gap_before": {start for start in starts if start and table.columns[start].group},
        "long": {at for at in range(len(table.columns)) if any(len(row[at].text) > LONG_TEXT for row in table.rows)},
        "notes": notes,
        "note_number": {note: number for number, note in enumerate(notes, start=1)},
        "wide": len(table.columns) >= WIDE_TABLE,
    }


# ---- figures


def _figure_parts(figure: Figure) -> dict[str, Any]:
    """Return the picture as a data URL, and its width.

    A browser that shows an SVG as an image runs no scripts in it, follows no links and sends no requests.
    """
    text = clean(figure.svg)
    width = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", _root_of(text, figure.name).get("width", ""))
    known = width is not None and width[2] in _POINTS_PER_UNIT
    return {
        "source": f"data:image/svg+xml;base64,{b64encode(text.encode()).decode()}",
        "drawn": f"{float(width[1]) * _POINTS_PER_UNIT[width[2]]:g}pt" if width is not None and known else "",
    }


def _root_of(svg: str, name: str) -> dict[str, str]:
    """Return the attributes of the outermost element. Raise ValueError if the text is not SVG or declares entities."""
    from xml.parsers import expat

    elements: list[tuple[str, dict[str, str]]] = []

    def entity(*_: object) -> None:
        raise ValueError(f"the figure {name} declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda element, attributes: elements.append((element, attributes))
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(svg, True)
    except expat.ExpatError as error:
        raise ValueError(f"the figure {name} is not well-formed SVG: {error}") from error
    if elements[0][0] != "svg":
        raise ValueError(f"the figure {name} is not SVG")
    return elements[0][1]
