"""Settings: bounds of numbers that a user gives, and what docstrings say about them. Free of torch.

NaN and infinity are outside of all bounds.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trichord.errors import TrichordError

Value = TypeVar("Value")
LARGEST = 1_000_000_000
KEY = "bounds"  # in the metadata of a dataclass field


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


def _text(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def summary_of(documented: object) -> str:
    """Return the first line of a docstring, without its full stop."""
    return (inspect.getdoc(documented) or "").partition("\n")[0].rstrip(".")


def descriptions_of(documented: object) -> dict[str, str]:
    """Return what the docstring of a class or function says about each of its arguments, each text on one line."""
    doc = inspect.getdoc(documented) or ""
    arguments = doc.partition("\nArgs:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
