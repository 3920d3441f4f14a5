"""Check that the numbers of a recipe are within their bounds, and describe values of the wrong type in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from trichord.settings import KEY, Bounds

_KINDS = {"int": "an integer", "float": "a finite number", "bool": "true or false", "str": "text", "list": "a list"}


def check_bounds(settings: Any, prefix: str = "") -> None:
    """Check every bounded field of a dataclass and of the dataclasses in it.

    Args:
        settings: The dataclass.
        prefix: Beginning of the names of fields in error messages.

    Raises:
        TrichordError: A field is out of bounds.
    """
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
    """Translate a complaint of jsonargparse about the type of a value: `--seed is x; it must be an integer`.

    Args:
        complaint: Message of jsonargparse.
        prefix: Beginning of the names of settings.
    """

    def wrong_type(match: re.Match[str]) -> str:
        name, kind, value = match.groups()
        return f"{prefix}{name} is {value}; it must be {_KINDS[kind]}"

    def wrong_choice(match: re.Match[str]) -> str:
        name, choices, value = match.groups()
        return f"{prefix}{name} is {value}; it must be one of {choices.replace(chr(39), '')}"

    complaint = re.sub(
        r"""Parser key "(\S+)":.*?Union subtypes.*?dict\[str, float\].*?Given value: (.*)""",
        rf"{prefix}\1 is \2; it must be a number, or numbers by name such as {{video: 0.1}}",
        complaint,
    )
    kinds = "|".join(_KINDS)
    complaint = re.sub(
        r"""Parser key "(\S+)":.*?Expected a (?:typing\.)?Literal\[(.+?)\].*? (?:Given value:|Got value:) (.*)""",
        wrong_choice,
        complaint,
    )
    return re.sub(rf"""Parser key "(\S+)": Expected a <class '({kinds})'>\. Got value: (.*)""", wrong_type, complaint)
