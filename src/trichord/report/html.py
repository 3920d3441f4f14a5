"""The report as one HTML file: no script, nothing from outside, the same text for the same document."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from trichord.report.document import Commands, Document, Figure, Section, Table, Text, clean, folded, slug

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATE = "page.html.j2"
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
WIDE_TABLE = 7  # columns; from here on the first column stays in sight while the rest scrolls
LONG_TEXT = 36  # letters from which a cell's text may break, in a column that is not too narrow

# What a plot may consist of. All else is left out with what it holds: scripts, foreign markup, matplotlib's metadata.
SVG_ELEMENTS = frozenset(
    [
        "svg",
        "g",
        "defs",
        "path",
        "use",
        "rect",
        "circle",
        "ellipse",
        "line",
        "polyline",
        "polygon",
        "text",
        "tspan",
        "image",
        "clipPath",
        "mask",
        "marker",
        "pattern",
        "symbol",
        "linearGradient",
        "radialGradient",
        "stop",
        "style",
        "title",
        "desc",
    ]
)
_XML_NAMESPACES = ("xmlns", "xmlns:xlink")
_REFERENCE = re.compile(r"url\(\s*(['\"]?)#([^'\")]*?)\1\s*\)")
_RULE = re.compile(r"([^{}@;]+)\{([^{}]*)\}")
_PLAIN_RULES = re.compile(rf"(?:{_RULE.pattern})*\s*")
_INNER_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")
_POINTS_PER_UNIT = {"": 0.75, "px": 0.75, "pt": 1.0, "in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4}


def to_html(document: Document) -> str:
    """The whole page. It opens offline; texts are escaped, and a content policy forbids scripts and requests."""
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
    template = environment.from_string(files("trichord.report").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(document=document, sections=list(_sections(document)), content_policy=CONTENT_POLICY)


def _sections(document: Document) -> Iterator[dict[str, Any]]:
    numbers = {id(block): number for number, block in enumerate(document.tables(), start=1)}
    numbers |= {id(block): number for number, block in enumerate(document.figures(), start=1)}
    taken: set[str] = set()
    for section in document.sections:
        blocks = [_block(block, numbers) for block in section.blocks]
        yield {"id": _section_id(section, taken), "title": section.title, "intro": section.intro, "blocks": blocks}


def _section_id(section: Section, taken: set[str]) -> str:
    base = f"section-{slug(section.title)}"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def _block(block: Table | Figure | Text | Commands, numbers: dict[int, int]) -> dict[str, Any]:
    if isinstance(block, Table):
        return {"type": "table", "number": numbers[id(block)], "table": block, **_table_parts(block)}
    if isinstance(block, Figure):
        from markupsafe import Markup

        return {
            "type": "figure",
            "number": numbers[id(block)],
            "figure": block,
            "svg": Markup(inline_svg(block.svg, block.name, block.alt)),
        }
    if isinstance(block, Text):
        return {"type": "text", "text": block}
    return {"type": "commands", "commands": block}


def _table_parts(table: Table) -> dict[str, Any]:
    """Headings, rows cut into bodies at the separators, and footnotes of a table."""
    notes = table.notes()
    cuts = sorted({0, *(row for row in table.separators if 0 < row < len(table.rows)), len(table.rows)})
    starts, column = [], 0  # where a group begins, for a gap before it
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


def inline_svg(svg: str, name: str, alt: str) -> str:
    """An SVG file's text as an element for an HTML page.

    Every id and every reference to one gets the prefix `NAME--`, as the ids of two plots are often the same. Prolog,
    metadata, scripts, handlers and references to anything outside are left out. The size becomes the greatest width.
    """
    from xml.parsers import expat

    writer = _SvgWriter(name, alt)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.ordered_attributes = True
    parser.StartElementHandler = writer.start
    parser.EndElementHandler = writer.end
    parser.CharacterDataHandler = writer.text
    parser.EntityDeclHandler = writer.entity
    try:
        parser.Parse(clean(svg), True)
    except expat.ExpatError as error:
        raise ValueError(f"the figure {name} is no well-formed SVG: {error}") from error
    if not (writer.parts and writer.parts[0].startswith("<svg")):
        raise ValueError(f"the figure {name} is no SVG")
    return "".join(writer.parts)


class _SvgWriter:
    """Writes the elements that a parser reports. `hidden` counts the open elements of a part that is left out."""

    def __init__(self, name: str, alt: str) -> None:
        self.prefix = f"{name}--"
        self.alt = folded(alt)
        self.parts: list[str] = []
        self.hidden = 0
        self.style: list[str] | None = None

    def start(self, element: str, attributes: list[str]) -> None:
        if self.hidden or element not in SVG_ELEMENTS:
            self.hidden += 1
            return
        pairs = dict(zip(attributes[::2], attributes[1::2], strict=True))
        kept = {key: new for key, value in pairs.items() if (new := self.attribute(key, value)) is not None}
        if element == "svg" and not self.parts:
            kept = self.root(kept)
        self.parts.append(f"<{element}" + "".join(f" {key}={quoteattr(value)}" for key, value in kept.items()) + ">")
        if element == "style":
            self.style = []

    def end(self, element: str) -> None:
        if self.hidden:
            self.hidden -= 1
            return
        if self.style is not None:
            self.parts.append(escape(self.scoped("".join(self.style))))
            self.style = None
        self.parts.append(f"</{element}>")

    def text(self, text: str) -> None:
        if self.hidden:
            return
        if self.style is not None:
            self.style.append(text)
        else:
            self.parts.append(escape(text))

    def entity(self, *_: object) -> None:
        raise ValueError(f"the figure {self.prefix.removesuffix('--')} declares entities")

    def attribute(self, key: str, value: str) -> str | None:
        """The attribute's new value; `None`: it is left out."""
        if key.lower().startswith("on"):
            return None
        if key == "id":
            return self.prefix + value
        if key in ("href", "xlink:href"):
            if value.startswith("#"):
                return f"#{self.prefix}{value[1:]}"
            return value if _INNER_IMAGE.fullmatch(value) else None
        if key.startswith("xmlns") and key not in _XML_NAMESPACES:
            return None
        return self.references(value)

    def references(self, text: str) -> str | None:
        """`text` with prefixed `url(#..)`; `None` if it refers to anything else or hides what it says."""
        bare = _REFERENCE.sub("", text)
        if "\\" in bare or "url(" in bare.lower() or "@import" in bare.lower():
            return None
        return _REFERENCE.sub(lambda found: f"url(#{self.prefix}{found[2]})", text)

    def scoped(self, style: str) -> str:
        """A style sheet that holds within this figure only; matplotlib's `*{..}` would reach the whole page."""
        checked = self.references(re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL))
        if checked is None or not _PLAIN_RULES.fullmatch(checked):
            return ""
        rules = []
        for selectors, declarations in _RULE.findall(checked):
            own = re.sub("#(?=[A-Za-z_])", f"#{self.prefix}", selectors).split(",")
            rules.append(",".join(f"#{self.prefix}figure {one.strip()}" for one in own) + f"{{{declarations.strip()}}}")
        return "".join(rules)

    def root(self, attributes: dict[str, str]) -> dict[str, str]:
        """The outermost element: an image with a text, as wide as the page allows and never wider than it was drawn."""
        width = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", attributes.pop("width", ""))
        height = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", attributes.pop("height", ""))
        for key in ("id", "style", "role", "aria-label"):
            attributes.pop(key, None)
        new = {"id": f"{self.prefix}figure", "role": "img", "aria-label": self.alt}
        if width and height and width[2] in _POINTS_PER_UNIT:
            attributes.setdefault("viewBox", f"0 0 {width[1]} {height[1]}")
            drawn = f"{float(width[1]) * _POINTS_PER_UNIT[width[2]]:g}pt"
            new["style"] = f"max-width:{drawn};--drawn:{drawn}"
        return new | attributes
