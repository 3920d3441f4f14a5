"""Checks that every bounded number of a recipe is within its bounds, and plain words for values of the wrong type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from trichord.settings import KEY, Bounds

_KINDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "text", "list": "a list"}


def check_bounds(settings: Any, prefix: str = "") -> None:
    """Check every bounded field of a dataclass, and of the dataclasses in it. Raises TrichordError naming `prefix` + field."""
    for name, bounds, value in _bounded_fields(settings, prefix):
        bounds.check(name, value)


def _bounded_fields(settings: Any, prefix: str) -> Iterator[tuple[str, Bounds, object]]:
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if KEY in entry.metadata:
            yield f"{prefix}{entry.name}", entry.metadata[KEY], value
        elif hasattr(value, "__dataclass_fields__"):
            yield from _bounded_fields(value, f"{prefix}{entry.name}.")


def plainly(complaint: str, prefix: str = "") -> str:
    """Return jsonargparse's complaint about a value of the wrong type in plain words: `--seed is x; it must be a whole number`."""

    def replaced(found: re.Match[str]) -> str:
        name, kind, value = found.groups()
        return f"{prefix}{name} is {value}; it must be {_KINDS[kind]}"

    def chosen(found: re.Match[str]) -> str:
        name, choices, value = found.groups()
        return f"{prefix}{name} is {value}; it must be one of {choices.replace(chr(39), '')}"

    kinds = "|".join(_KINDS)
    complaint = re.sub(
        r"""Parser key "(\S+)":.*?Expected a (?:typing\.)?Literal\[(.+?)\].*? (?:Given value:|Got value:) (.*)""",
        chosen,
        complaint,
    )
    return re.sub(rf"""Parser key "(\S+)": Expected a <class '({kinds})'>\. Got value: (.*)""", replaced, complaint)
