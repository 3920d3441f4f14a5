"""Support for text paths in library functions that take `pathlib.Path`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_ONE = ("Path", "Path | None")
_SEVERAL = ("Sequence[Path]", "list[Path]")


def accepts_text_paths(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that text is accepted for parameters annotated as `Path` or as a sequence of `Path`."""
    signature = inspect.signature(function)
    kinds = {name: str(parameter.annotation) for name, parameter in signature.parameters.items()}

    @wraps(function)
    def with_paths(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _as_path(value, kinds[name])
        return function(*bound.args, **bound.kwargs)

    return with_paths


def _as_path(value: Any, kind: str) -> Any:
    if kind in _ONE and isinstance(value, str):
        return Path(value)
    if kind in _SEVERAL and isinstance(value, list | tuple):
        return [Path(item) if isinstance(item, str) else item for item in value]
    return value
