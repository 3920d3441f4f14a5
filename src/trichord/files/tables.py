"""The dialects of tables of text, as spreadsheets and people write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_STATED = re.compile(r"sep=([,;\t])\s*", re.IGNORECASE)  # a first line that Excel reads


def delimiter_of(header: str) -> str:
    """What separates the cells of a CSV: commas, or semicolons (Excel, where the comma is the decimal point), or tabs."""
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def lines_and_delimiter(lines: Iterator[str]) -> tuple[Iterator[str], str]:
    """The lines of a CSV from its header on, and what separates its cells."""
    first = next(lines, "")
    if stated := _STATED.fullmatch(first):
        return lines, stated[1]
    return chain([first] if first else [], lines), delimiter_of(first)
