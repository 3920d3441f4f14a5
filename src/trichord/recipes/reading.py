"""YAML files of settings, read as plain values: nothing in them is run, nothing is copied without end.

Tags that name Python objects are refused by PyYAML's safe loader; aliases (of which a few lines make billions of values),
keys that stand there twice and files of a size or depth that no settings have are refused here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from trichord.errors import TrichordError, one_line
from trichord.files.reading import unreadable

MOST_BYTES = 256 << 10
DEEPEST = 20


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases, deep nesting and repeated keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not read; write the value out")
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.constructor.ConstructorError(None, None, f"its values lie more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if isinstance(key, str) and keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{twice[0][:80]}' stands there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file.

    Raises ValueError, in one line, for a file that is none, too large or refused; OSError when it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        return yaml.load(content.decode("utf-8-sig"), _Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:  # also of odd dates and numbers
        raise ValueError(one_line(error)[:200]) from None


def check_config(path: Path) -> None:
    """Raise TrichordError for a file that `read_yaml` refuses, before another reader opens it."""
    try:
        read_yaml(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise TrichordError(
            f"{path}: not a YAML file: {one_line(error)}; give one that --print_config printed"
        ) from None


def check_plain(values: object, source: str) -> None:
    """Raise TrichordError unless `values` are groups of settings, none of them empty and no number infinite."""
    if not isinstance(values, dict):
        raise TrichordError(f"{source}: a recipe is a mapping of settings such as `training: {{epochs: 3}}`")
    for group, settings in values.items():
        if not isinstance(settings, dict):
            raise TrichordError(f"{source}: {_told(group)} is no group of settings but {_told(settings)}; correct it")
        for key, value in settings.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise TrichordError(f"{source}: {_told(group)}.{_told(key)} is {value}; it must be a finite number")
            if value is None or isinstance(value, dict):
                what = "nothing" if value is None else _told(value)
                raise TrichordError(f"{source}: {_told(group)}.{_told(key)} is {what}; give a value, or leave it out")


def _told(value: object) -> str:
    try:
        return one_line(value)[:80]
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__}"
