"""The report as plain data: sections of texts, tables, figures and commands. `html`, `markdown` and `exports` print it.

Texts are plain text, without markup. White space in titles, captions, notes and paragraphs is collapsed when it is printed. A line
break in a cell is kept in the formats that support it (HTML and Markdown).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

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
    """A cell of a table.

    Attributes:
        text: The printed text.
        value: The value with full precision, for CSV and JSON. If it is None, they contain the text.
        strong: Whether the text is printed bold, for example the best of a column.
        note: A footnote, printed below the table. Equal notes of a table share a number.
        values: Further values by name, such as `("low", 40.5)`. CSV and JSON have a column for each name, such as "R@10 low".
    """

    text: str
    value: Value = None
    strong: bool = False
    note: str = ""
    values: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True)
class Column:
    """The heading of a column. Adjacent columns of the same `group` share a heading. Numeric columns are right-aligned."""

    label: str
    group: str = ""
    numeric: bool = True

    @property
    def heading(self) -> str:
        """Group and label in one line, the name of the column in CSV, JSON and Markdown."""
        return folded(f"{self.group} {self.label}")


@dataclass(frozen=True)
class Table:
    """A table. `name` is a slug (its file is `tables/NAME.csv`). A rule precedes the rows with the indices `separators`."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    separators: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not SLUG.fullmatch(self.name):
            raise ValueError(f"the name of the table, {self.name!r}, is not a slug")
        if not self.columns:
            raise ValueError(f"the table {self.name} has no columns")
        if not all(len(row) == len(self.columns) for row in self.rows):
            raise ValueError(f"the table {self.name} has ragged rows")

    def headings(self) -> tuple[str, ...]:
        """Return a different heading for each column. A repeated heading gets a number."""
        seen: dict[str, None] = {}
        for column in self.columns:
            seen[unused(column.heading, seen)] = None
        return tuple(seen)

    def spread(self) -> tuple[tuple[str, int, str | None], ...]:
        """Return (heading, column index, name) of all columns in CSV and JSON.

        Each column of the table is followed by the columns of its cells' further values, in order of appearance. The name is None
        for the column itself. All headings differ.
        """
        taken = dict.fromkeys(self.headings())
        columns: list[tuple[str, int, str | None]] = []
        for at, heading in enumerate(self.headings()):
            columns.append((heading, at, None))
            for name in dict.fromkeys(name for row in self.rows for name, _ in row[at].values):
                key = unused(folded(f"{heading} {name}"), taken)
                taken[key] = None
                columns.append((key, at, name))
        return tuple(columns)

    def groups(self) -> tuple[tuple[str, int], ...]:
        """Return each group and its number of adjacent columns, from left to right. A column without a group is its own group."""
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and column.group and runs[-1][0] == column.group:
                runs[-1] = (column.group, runs[-1][1] + 1)
            else:
                runs.append((column.group, 1))
        return tuple(runs)

    def notes(self) -> tuple[str, ...]:
        """Return the distinct notes of the cells, row by row. Footnotes are numbered from 1 in this sequence."""
        return tuple(dict.fromkeys(note for row in self.rows for cell in row if (note := folded(cell.note))))


@dataclass(frozen=True)
class Figure:
    """A figure as SVG text. `name` is a slug (its file is `figures/NAME.svg`). `alt` describes the figure in words."""

    name: str
    title: str
    svg: str
    caption: str
    alt: str

    def __post_init__(self) -> None:
        if not SLUG.fullmatch(self.name):
            raise ValueError(f"the name of the figure, {self.name!r}, is not a slug")


@dataclass(frozen=True)
class Text:
    """Paragraphs. A `finding` or a `warning` is printed in a box."""

    paragraphs: tuple[str, ...]
    kind: Literal["plain", "finding", "warning"] = "plain"


@dataclass(frozen=True)
class Commands:
    """Shell commands to copy."""

    lines: tuple[str, ...]
    title: str = ""


Block: TypeAlias = Table | Figure | Text | Commands


@dataclass(frozen=True)
class Section:
    """A section of the report, with a heading and an entry in the table of contents."""

    title: str
    blocks: tuple[Block, ...]
    intro: str = ""


@dataclass(frozen=True)
class Document:
    """The report. `summary` contains the sentences that a reader must see first."""

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
        """Return all blocks of all sections, in order."""
        return (block for section in self.sections for block in section.blocks)

    def tables(self) -> list[Table]:
        """Return all tables, in order. They are numbered from 1."""
        return [block for block in self.blocks() if isinstance(block, Table)]

    def figures(self) -> list[Figure]:
        """Return all figures, in order. They are numbered from 1."""
        return [block for block in self.blocks() if isinstance(block, Figure)]

    def numbers(self) -> dict[int, int]:
        """Return the number of each table and figure by its `id`."""
        return {id(block): at for blocks in (self.tables(), self.figures()) for at, block in enumerate(blocks, start=1)}


def columns(labels: Iterable[str], texts: Container[str]) -> tuple[Column, ...]:
    """Return columns without groups.

    Args:
        labels: Labels of the columns.
        texts: Labels of the columns that are not numeric.
    """
    return tuple(Column(label, numeric=label not in texts) for label in labels)


def first_of(texts: Sequence[str], most: int, joint: str = ", ") -> str:
    """Return the first `most` texts in a line, with the number of further ones: `a, b and 3 more`."""
    return joint.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def slug(text: str) -> str:
    """Return a name for a table or figure: lowercase letters a-z and digits, joined by hyphens; never empty.

    Different texts may have the same slug ("av>t" and "AV→T").
    """
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "-".join(re.findall("[a-z0-9]+", bare.lower())) or "unnamed"


def distinct_slugs(texts: Iterable[str]) -> dict[str, str]:
    """Return a different slug for each text. A slug that is taken gets the next free number: "a-b", "a-b-2"."""
    slugs: dict[str, str] = {}
    for text in texts:
        if text not in slugs:
            slugs[text] = unused(slug(text), set(slugs.values()), "{}-{}")
    return slugs


def unused(text: str, taken: Container[str], form: str = "{} ({})") -> str:
    """Return `text`, with the first free number from 2 if it is in `taken`."""
    key, number = text, 1
    while key in taken:
        number += 1
        key = form.format(text, number).strip()
    return key


def clean(text: str) -> str:
    """Return `text` with line feeds as its only line ends, and U+FFFD in place of unsafe characters.

    Unsafe are control characters, overrides of the writing direction, lone surrogates and noncharacters.
    """
    return _UNPRINTABLE.sub(REPLACEMENT, _LINE_ENDS.sub("\n", text))


def folded(text: str) -> str:
    """Return the `clean` text in one line. Runs of white space become single spaces; narrow and fixed-width spaces are kept."""
    return re.sub("[ \t\n]+", " ", clean(text)).strip(" ")
