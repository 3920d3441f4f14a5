"""Delimiters of CSV files, which differ between spreadsheets and languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_STATED = re.compile(r"sep=([,;\t])\s*", re.IGNORECASE)  # a first line that Excel reads


def delimiter_of(header: str) -> str:
    """Return the delimiter of a CSV file: the most frequent of comma, semicolon and tab in its header, a comma on a tie.

    Excel writes semicolons where the comma is the decimal separator.
    """
    return max((",", ";", "\t"), key=header.count)


def lines_and_delimiter(lines: Iterator[str]) -> tuple[Iterator[str], str]:
    """Return the lines of a CSV file from its header on, and its delimiter. A first line such as `sep=;` states it."""
    first = next(lines, "")
    if stated := _STATED.fullmatch(first):
        return lines, stated[1]
    return chain([first] if first else [], lines), delimiter_of(first)
