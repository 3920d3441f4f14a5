"""Layout of the tables that commands print on a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from trichord.errors import printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDTH = 100  # of the columns of figures; with order, seeds and borders, a table then fits 120 columns
Cell = str | Sequence[str]  # text, or its lines


def printed_table(
    headings: Sequence[Cell],
    rows: Sequence[Sequence[Cell]],
    *,
    title: str = "",
    num_left: int = 1,
    chance: bool = False,
) -> Table:
    """Return a table for a terminal. Markup and control characters in names from files are printed as text.

    Args:
        headings: Headings of the columns.
        rows: Cells of each row.
        title: Title, or ''.
        num_left: Number of columns that are aligned left; the others are aligned right.
        chance: Whether the last row contains chance, which is set apart.
    """
    from rich.table import Table

    table = Table(title=_text(title) if title else None, title_justify="left", min_width=min(len(title), WIDTH))
    for number, heading in enumerate(headings):
        table.add_column(_text(heading), justify="left" if number < num_left else "right")
    for row in rows:
        if chance and row is rows[-1]:
            table.add_section()
        table.add_row(*map(_text, row), style="dim" if chance and row is rows[-1] else None)
    return table


def _text(cell: Cell) -> Text:
    from rich.text import Text

    return Text("\n".join(map(printable, [cell] if isinstance(cell, str) else cell)))


def measure_heading(measure: str, unit: str) -> str:
    """Return the heading of a measure, with its unit unless it is a share or a rank."""
    return measure if unit in ("%", "rank") else f"{measure} ({unit})"


def num_text(nums: Collection[int]) -> str:
    """Return the number of units as text: `n = 8`, or `n = 8 to 60` if it differs."""
    return f"n = {min(nums):,}" if len(set(nums)) == 1 else f"n = {min(nums):,} to {max(nums):,}"


def column_width(heading: str, cells: Sequence[str]) -> int:
    """Return the width of a column whose heading is wrapped between words."""
    return max(map(len, (*cells, *heading.split())))


def fitting(widths: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield groups of columns that are together at most WIDTH wide, given the width of each column."""
    group: list[str] = []
    used = 0
    for name, width in widths.items():
        if group and used + width + 3 > WIDTH:
            yield group
            group, used = [], 0
        group, used = [*group, name], used + width + 3
    yield group
