"""Bounds of numbers that a user gives. NaN and infinity are outside of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from trichord.errors import TrichordError

Value = TypeVar("Value")
LARGEST = 1_000_000_000
KEY = "bounds"  # in the metadata of a dataclass field
_KINDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "text", "list": "a list"}


@dataclass(frozen=True)
class Bounds:
    """The numbers from `least` to `most`.

    Args:
        least: The smallest number that is allowed.
        most: The largest one.
        above: `least` itself is not allowed.
        length: Of a list: how many numbers it has.
    """

    least: float
    most: float = LARGEST
    above: bool = False
    length: int | None = None

    def check(self, name: str, value: object) -> None:
        """Raise TrichordError when a number, or one of a list of numbers, is outside. None is never outside."""
        if isinstance(value, list):
            if self.length is not None and len(value) != self.length:
                raise TrichordError(f"{name} is {value}; it must be a list of {self.length} numbers")
            wrong = any(self._is_outside(number) for number in value)
        else:
            wrong = self._is_outside(value)
        if wrong:
            subject = "each number" if isinstance(value, list) else "it"
            raise TrichordError(f"{name} is {value}; {subject} must be {self}")

    def __str__(self) -> str:
        least, most = _text(self.least), _text(self.most)
        if self.above:
            return f"above {least}, and at most {most}"
        return f"at least {least}, and at most {most}"

    def _is_outside(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        inside = self.least < value <= self.most if self.above else self.least <= value <= self.most
        return not inside  # also for NaN


SEED = Bounds(0, 2**63 - 1)
DRAW_SEED = Bounds(0, 2**32 - 1)  # of what a benchmark draws: scikit-learn takes no larger one


def bounded(default: Value, least: float, most: float = LARGEST, *, above: bool = False) -> Value:
    """Return a dataclass field with a default and bounds."""
    value: Any = field(default=default, metadata={KEY: Bounds(least, most, above)})
    return value


def bounded_list(default: list[Value], least: float, most: float = LARGEST) -> list[Value]:
    """Return a dataclass field of a list of numbers, as many as its default has."""
    bounds = Bounds(least, most, length=len(default))
    value: Any = field(default_factory=lambda: list(default), metadata={KEY: bounds})
    return value


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


def _text(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
