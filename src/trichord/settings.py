"""Bounds of numeric settings, and the descriptions of settings that docstrings give.

NaN and infinity lie outside all bounds. This module does not import torch.
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
    """The range of numbers that a setting allows.

    Args:
        least: The smallest allowed number.
        most: The largest allowed number.
        above: Whether `least` itself is excluded.
        length: The length that a list of numbers must have; None allows any length.
    """

    least: float
    most: float = LARGEST
    above: bool = False
    length: int | None = None

    def check(self, name: str, value: object) -> None:
        """Check that a number, or each number of a list, lies within the bounds. None always passes.

        Args:
            name: The name of the setting, for the error message.
            value: The value to check.

        Raises:
            TrichordError: A number lies outside the bounds, or the list has another length.
        """
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
DRAW_SEED = Bounds(0, 2**32 - 1)  # for benchmarks that sample; scikit-learn accepts no larger seed


def bounded(default: Value, least: float, most: float = LARGEST, *, above: bool = False) -> Value:
    """Return a dataclass field with a default and bounds for its value.

    Args:
        default: The default value of the field.
        least: The smallest allowed value.
        most: The largest allowed value.
        above: Whether `least` itself is excluded.
    """
    value: Any = field(default=default, metadata={KEY: Bounds(least, most, above)})
    return value


def bounded_list(default: list[Value], least: float, most: float = LARGEST) -> list[Value]:
    """Return a dataclass field that holds a list of bounded numbers of the same length as its default."""
    bounds = Bounds(least, most, length=len(default))
    value: Any = field(default_factory=lambda: list(default), metadata={KEY: bounds})
    return value


def _text(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def summary_of(documented: object) -> str:
    """Return the first line of a docstring without its final period."""
    return (inspect.getdoc(documented) or "").partition("\n")[0].rstrip(".")


def descriptions_of(documented: object) -> dict[str, str]:
    """Return the description of each argument in the docstring of a class or function, each on one line."""
    doc = inspect.getdoc(documented) or ""
    arguments = doc.partition("\nArgs:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
