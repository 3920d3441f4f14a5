"""Delimiters of CSV files, which differ between spreadsheet programs and languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_STATED = re.compile(r"sep=([,;\t])\s*", re.IGNORECASE)  # a first line that Excel interprets


def delimiter_of(header: str) -> str:
    """Return the delimiter of a CSV file, given its header: the most frequent of comma, semicolon and tab; a comma on a tie.

    Excel writes semicolons in languages in which the comma is the decimal separator.
    """
    return max((",", ";", "\t"), key=header.count)


def lines_and_delimiter(lines: Iterator[str]) -> tuple[Iterator[str], str]:
    """Return the lines of a CSV file from its header on and its delimiter, which a first line such as `sep=;` can state."""
    first = next(lines, "")
    if stated := _STATED.fullmatch(first):
        return lines, stated[1]
    return chain([first] if first else [], lines), delimiter_of(first)
