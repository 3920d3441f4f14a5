"""Examples in docstrings and pages, and the public functions, classes, methods and properties that have none."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from types import ModuleType
from typing import Any

from modality_helpers import declared


def modules_of(package: str) -> Iterator[str]:
    """Yield the names of a package and of all modules in it."""
    yield package
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        yield from modules_of(info.name) if info.ispkg else (info.name,)


def public_members(module: ModuleType) -> dict[str, Any]:
    """Return the functions and classes that a module defines without a leading underscore, and those in its `__all__`."""
    members = {
        name: member
        for name, member in vars(module).items()
        if not name.startswith("_") and _is_documented(member) and member.__module__ == module.__name__
    }
    exported = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return members | {name: member for name, member in exported.items() if _is_documented(member)}


def _is_documented(member: object) -> bool:
    return inspect.isclass(member) or inspect.isfunction(inspect.unwrap(member))  # type: ignore[arg-type]


def public_methods(cls: type) -> list[str]:
    """Return the methods and properties that a class adds to those of its base classes.

    A method that implements the method of a base class is described there. A `cached_property` is shown by the example of its
    class, because doctest does not find the docstring.
    """
    inherited = {name for base in cls.__mro__[1:] for name in vars(base) if base.__module__.startswith("trichord.")}
    return [
        name
        for name, value in vars(cls).items()
        if not name.startswith("_") and name not in inherited and _is_method(value)
    ]


def _is_method(value: object) -> bool:
    return isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)


def without_example(module: ModuleType) -> list[str]:
    """Return the public names of a module that have no example, or one with a line that does not run."""
    lacking = []
    for member in public_members(module).values():
        home = importlib.import_module(member.__module__)
        names = [member.__name__]
        if inspect.isclass(member):
            names += [f"{member.__name__}.{name}" for name in public_methods(member)]
        examples = examples_of(home)
        lacking += [f"{home.__name__}.{name}" for name in names if not _all_run(examples.get(name, []))]
    return lacking


def examples_of(module: ModuleType) -> dict[str, list[doctest.Example]]:
    """Return the examples that a test of the module runs, by the name of the function, class, method or property."""
    tests = doctest.DocTestFinder().find(module, module.__name__)
    return {test.name.removeprefix(f"{module.__name__}."): test.examples for test in tests}


def run_examples(name: str, folder: Path) -> None:
    """Run the examples of a module in a folder that `example_files.write_example_files` wrote."""
    with chdir(folder), declared():
        results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0, f"{results.failed} of {results.attempted} lines fail; see the output"


def _all_run(examples: list[doctest.Example]) -> bool:
    return bool(examples) and not any(example.options.get(doctest.SKIP) for example in examples)


def python_blocks(page: Path) -> list[str]:
    """Return the fenced Python blocks of a page of the documentation."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def run_block(source: str, page: Path, folder: Path) -> dict[str, Any]:
    """Run a block in a folder that `example_files.write_example_files` wrote, and return its names."""
    names: dict[str, Any] = {"__name__": page.stem}
    with chdir(folder), declared():
        exec(compile(source, str(page), "exec"), names)
    return names
