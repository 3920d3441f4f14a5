"""YAML files of settings, read as plain values: nothing in them is run, nothing in them grows beyond the file.

Every YAML file goes through `read_yaml`. Tags that name Python objects are refused by PyYAML's safe loader. Aliases and merge
keys (with which a few lines make billions of values), repeated keys, numbers of thousands of digits, and files of a size, a
depth or a count of values that no settings have are refused here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import yaml

from trichord.errors import TrichordError, one_line
from trichord.files.reading import FileTooLargeError, read_bytes, unreadable

MOST_BYTES = 256 << 10
MOST_VALUES = 10_000  # keys, values, lists and mappings together; the settings of a study have some hundred
MOST_DIGITS = 400  # of a number; a float has at most 17, an exact one 310 before its point
DEEPEST = 20
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader, with the bounds of this module."""

    depth = 0
    count = 0
    most_values = MOST_VALUES

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _refused("aliases (*name) are not read; write the value out")
        self.depth += 1
        self.count += 1
        if self.depth > DEEPEST:
            raise _refused(f"its values are nested more than {DEEPEST} deep")
        if self.count > self.most_values:
            raise _refused(f"it has more than {self.most_values:,} keys and values")
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag == _MERGE:
            raise _refused("merge keys (<<) are not read; write the values out", node.start_mark)
        if node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            raise _refused(f"a number has more than {MOST_DIGITS} digits", node.start_mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str):
                if key.value in seen:
                    raise _refused(f"the key '{key.value[:80]}' is repeated", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _MetadataLoader(_Loader):
    most_values = 1_000_000


def _refused(reason: str, mark: Any = None) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, reason, mark)


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file.

    Raises ValueError, in one line, for a file that is none, too large or refused; OSError when it cannot be read.
    """
    try:
        content = read_bytes(path, max_bytes=MOST_BYTES)
    except FileTooLargeError:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes") from None
    return _parsed(content, _Loader)


def parse_metadata(text: str) -> Any:
    """Return the plain values of the metadata of a model card, of which there may be more than of settings.

    Raises ValueError as `read_yaml`.
    """
    return _parsed(text, _MetadataLoader)


def _parsed(content: bytes | str, loader: type[_Loader]) -> Any:
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return yaml.load(text, loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:  # also of odd dates and numbers
        raise ValueError(one_line(error)[:200]) from None


def check_config(path: Path, groups: Collection[str]) -> None:
    """Check a file of settings before the command-line parser opens it.

    The parser would take text in the place of a group, or under `config`, for the name of a further file of settings.

    Args:
        path: The file.
        groups: Names of the groups of settings.

    Raises:
        TrichordError: `read_yaml` refuses the file, or the file names another one.
    """
    try:
        values = read_yaml(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise TrichordError(
            f"{path}: not a YAML file: {one_line(error)}; give one that --print_config printed"
        ) from None
    for name, value in values.items() if isinstance(values, dict) else ():
        if (name in groups and not isinstance(value, dict)) or (name == "config" and value is not None):
            raise TrichordError(
                f"{path}: {_told(name)} is {_told(value)} where a group of settings belongs; settings are not read from "
                "further files: write them out"
            )


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
