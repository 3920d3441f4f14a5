"""The report as plain data: sections of texts, tables, figures and commands. `html`, `markdown` and `exports` print it.

Texts are plain: no markup is read in them. White space in titles, captions, notes and paragraphs is folded when printed;
a line break in a cell stays one where the form allows it (HTML, Markdown).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

SLUG = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
REPLACEMENT = "\ufffd"
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


Value: TypeAlias = float | int | str | None


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: As printed.
        value: In full, for CSV and JSON; `None`: the text stands there too.
        values: Further ones by name (`("low", 40.5)`): CSV and JSON give each name a column of its own, "R@10 low".
        strong: Printed bold, for instance the best of a column.
        note: A remark, printed as a footnote under the table. Equal notes of a table share a number.
    """

    text: str
    value: Value = None
    strong: bool = False
    note: str = ""
    values: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True)
class Column:
    """A column's heading. Neighbours of the same `group` stand under one common heading; figures are set right."""

    label: str
    group: str = ""
    numeric: bool = True

    @property
    def heading(self) -> str:
        """Group and label in one line, as CSV, JSON and Markdown name the column."""
        return folded(f"{self.group} {self.label}")


@dataclass(frozen=True)
class Table:
    """A table. `name` is a slug (its file is `tables/NAME.csv`); before the rows `separators` stands a rule."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    separators: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not SLUG.fullmatch(self.name):
            raise ValueError(f"the table's name {self.name!r} is no slug")
        if not self.columns:
            raise ValueError(f"the table {self.name} has no columns")
        if not all(len(row) == len(self.columns) for row in self.rows):
            raise ValueError(f"the table {self.name} has ragged rows")

    def headings(self) -> tuple[str, ...]:
        """A heading for each column, none twice: a repeated one is numbered."""
        seen: dict[str, None] = {}
        for column in self.columns:
            seen[_unused(column.heading, seen)] = None
        return tuple(seen)

    def spread(self) -> tuple[tuple[str, int, str | None], ...]:
        """(heading, column, name) of all columns of CSV and JSON, no heading twice: each column, then the names of its cells'
        further values in the order met. The column itself has the name `None` and its heading of `headings`."""
        taken = dict.fromkeys(self.headings())
        found: list[tuple[str, int, str | None]] = []
        for at, heading in enumerate(self.headings()):
            found.append((heading, at, None))
            for name in dict.fromkeys(name for row in self.rows for name, _ in row[at].values):
                key = _unused(folded(f"{heading} {name}"), taken)
                taken[key] = None
                found.append((key, at, name))
        return tuple(found)

    def groups(self) -> tuple[tuple[str, int], ...]:
        """(group, number of neighbouring columns under it), from left to right. Columns of no group stand alone."""
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and column.group and runs[-1][0] == column.group:
                runs[-1] = (column.group, runs[-1][1] + 1)
            else:
                runs.append((column.group, 1))
        return tuple(runs)

    def notes(self) -> tuple[str, ...]:
        """The different notes of the cells, row by row; footnote i is the i-th, from 1."""
        return tuple(dict.fromkeys(note for row in self.rows for cell in row if (note := folded(cell.note))))


@dataclass(frozen=True)
class Figure:
    """A figure as SVG text. `name` is a slug (its file is `figures/NAME.svg`); `alt` says in words what is seen."""

    name: str
    title: str
    svg: str
    caption: str
    alt: str

    def __post_init__(self) -> None:
        if not SLUG.fullmatch(self.name):
            raise ValueError(f"the figure's name {self.name!r} is no slug")


@dataclass(frozen=True)
class Text:
    """Paragraphs. A `finding` or a `warning` stands in a box."""

    paragraphs: tuple[str, ...]
    kind: Literal["plain", "finding", "warning"] = "plain"


@dataclass(frozen=True)
class Commands:
    """Lines for a shell, to be copied."""

    lines: tuple[str, ...]
    title: str = ""


Block: TypeAlias = Table | Figure | Text | Commands


@dataclass(frozen=True)
class Section:
    """A part of the report, with its own heading and entry in the contents."""

    title: str
    blocks: tuple[Block, ...]
    intro: str = ""


@dataclass(frozen=True)
class Document:
    """The report. `summary` is the few sentences that a reader must see first."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    summary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (("table", [t.name for t in self.tables()]), ("figure", [f.name for f in self.figures()])):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"two {kind}s have the same name: {sorted(twice)}")

    def blocks(self) -> Iterator[Block]:
        """All blocks of all sections, in order."""
        return (block for section in self.sections for block in section.blocks)

    def tables(self) -> list[Table]:
        """All tables, in order. The i-th is Table i, from 1."""
        return [block for block in self.blocks() if isinstance(block, Table)]

    def figures(self) -> list[Figure]:
        """All figures, in order. The i-th is Figure i, from 1."""
        return [block for block in self.blocks() if isinstance(block, Figure)]


def slug(text: str) -> str:
    """A name for a table or figure from any text: lower-case letters a-z and digits, joined by hyphens; never empty.

    Different texts can give the same slug ("av>t" and "AV→T").
    """
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "-".join(re.findall("[a-z0-9]+", bare.lower())) or "unnamed"


def distinct_slugs(texts: Iterable[str]) -> dict[str, str]:
    """Text -> slug, for instance of a study's benchmarks. A slug that is taken gets the next free number: "a-b", "a-b-2"."""
    found: dict[str, str] = {}
    for text in texts:
        if text not in found:
            found[text] = _unused(slug(text), set(found.values()), "{}-{}")
    return found


def _unused(text: str, taken: Container[str], form: str = "{} ({})") -> str:
    """`text`, numbered from 2 where it is taken."""
    key, number = text, 1
    while key in taken:
        number += 1
        key = form.format(text, number).strip()
    return key


def clean(text: str) -> str:
    """`text` with line feeds as its only line ends, and U+FFFD for what no page or terminal should get.

    That is: control characters, overrides of the writing direction, lone surrogates and noncharacters.
    """
    return _UNPRINTABLE.sub(REPLACEMENT, _LINE_ENDS.sub("\n", text))


def folded(text: str) -> str:
    """`clean` text in one line: runs of white space are single spaces. Narrow and fixed spaces stay."""
    return re.sub("[ \t\n]+", " ", clean(text)).strip(" ")
