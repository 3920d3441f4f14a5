"""Read YAML files of settings as plain values, without executing code and with bounds on size, depth and number of values.

Every YAML file is read by `read_yaml`. Tags that name Python objects are rejected by the safe loader of PyYAML. This module also
rejects aliases and merge keys (which can turn a few lines into billions of values), repeated keys, numbers with thousands of
digits, and files that are larger, deeper or contain more values than any settings do.
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
MOST_VALUES = 10_000  # keys, values, lists and mappings together; the settings of a study have some hundreds
MOST_DIGITS = (
    400  # digits of a number; a float has at most 17, and at most 310 before the point if it is written exactly
)
DEEPEST = 20
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Safe loader with the bounds of this module."""

    depth = 0
    count = 0
    most_values = MOST_VALUES

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _refused("aliases (*name) are not supported; write out the value")
        self.depth += 1
        self.count += 1
        if self.depth > DEEPEST:
            raise _refused(f"the values are nested more than {DEEPEST} levels deep")
        if self.count > self.most_values:
            raise _refused(f"the file has more than {self.most_values:,} keys and values")
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag == _MERGE:
            raise _refused("merge keys (<<) are not supported; write out the values", node.start_mark)
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
    """Return the plain values of a YAML file.

    Raises:
        ValueError: The file is not valid YAML, is too large or is rejected; the message has one line.
        OSError: The file cannot be read.
    """
    try:
        content = read_bytes(path, max_bytes=MOST_BYTES)
    except FileTooLargeError:
        raise ValueError(f"the file has more than {MOST_BYTES:,} bytes") from None
    return _parsed(content, _Loader)


def parse_metadata(text: str) -> Any:
    """Return the plain values of the metadata of a model card, which may have more values than settings.

    Raises:
        ValueError: As in `read_yaml`.
    """
    return _parsed(text, _MetadataLoader)


def _parsed(content: bytes | str, loader: type[_Loader]) -> Any:
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return yaml.load(text, loader)  # noqa: S506 - a safe loader
    except (
        yaml.YAMLError,
        ValueError,
        ArithmeticError,
        RecursionError,
    ) as error:  # the loader also raises these for invalid dates and numbers
        raise ValueError(one_line(error)[:200]) from None


def check_config(path: Path, groups: Collection[str]) -> None:
    """Check a file of settings before the command-line parser opens it.

    The parser would interpret a string in place of a group, or under `config`, as the name of another file of settings.

    Args:
        path: The file.
        groups: Names of the groups of settings.

    Raises:
        TrichordError: `read_yaml` rejects the file, or the file names another one.
    """
    try:
        values = read_yaml(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise TrichordError(
            f"{path}: the file is not valid YAML ({one_line(error)}); give a file in the form that --print_config prints"
        ) from None
    for name, value in values.items() if isinstance(values, dict) else ():
        if (name in groups and not isinstance(value, dict)) or (name == "config" and value is not None):
            raise TrichordError(
                f"{path}: {_shown(name)} is {_shown(value)}, but it must be a group of settings; settings are not read from other "
                "files, so write them out"
            )


def check_plain(values: object, source: str, by_name: Collection[str] = ()) -> None:
    """Check that values are non-empty groups of settings without infinite numbers.

    Args:
        values: The values.
        source: Origin of the values, for error messages.
        by_name: Names of the settings that may be a mapping of names to numbers, such as `training.weight_decay`.

    Raises:
        TrichordError: They are not.
    """
    if not isinstance(values, dict):
        raise TrichordError(
            f"{source}: the recipe is not a mapping of settings; write it like `training: {{epochs: 3}}`"
        )
    for group, settings in values.items():
        if not isinstance(settings, dict):
            raise TrichordError(
                f"{source}: {_shown(group)} is {_shown(settings)}, but it must be a group of settings; correct it"
            )
        for key, value in settings.items():
            if isinstance(value, dict) and f"{group}.{key}" in by_name:
                _check_numbers(value, f"{source}: {group}.{key}")
                continue
            if isinstance(value, float) and not math.isfinite(value):
                raise TrichordError(f"{source}: {_shown(group)}.{_shown(key)} is {value}; it must be a finite number")
            if value is None or isinstance(value, dict):
                shown = "empty" if value is None else _shown(value)
                raise TrichordError(
                    f"{source}: {_shown(group)}.{_shown(key)} is {shown}; give a value, or remove the key"
                )


def _check_numbers(numbers: dict[Any, Any], name: str) -> None:
    for key, number in numbers.items():
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not isinstance(key, str) or not is_number:
            raise TrichordError(f"{name} is {_shown(numbers)}; give a number, or a mapping such as {{video: 0.1}}")
        if isinstance(number, float) and not math.isfinite(number):
            raise TrichordError(f"{name}.{_shown(key)} is {number}; it must be a finite number")


def _shown(value: object) -> str:
    try:
        return one_line(value)[:80]
    except (ValueError, RecursionError):  # a number with thousands of digits
        return f"a {type(value).__name__}"
