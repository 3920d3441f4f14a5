"""The examples in the docstrings run and print what they show, and every public function and class has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

ROOMS = ("captions", "data", "layers", "losses", "media", "modalities", "nn", "world")
COMPLETE = ("trichord.losses", "trichord.nn")  # every public function and class of these rooms has an example


def modules(room: str) -> Iterator[str]:
    yield room
    package = importlib.import_module(room)
    for info in pkgutil.iter_modules(package.__path__, f"{room}."):
        yield from modules(info.name) if info.ispkg else (info.name,)


MODULES = ["trichord.modality", *(name for room in ROOMS for name in modules(f"trichord.{room}"))]


def public_members(module: ModuleType) -> dict[str, object]:
    """Return the public functions and classes that the module defines."""
    return {
        name: member
        for name, member in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(member) or inspect.isfunction(inspect.unwrap(member)))  # type: ignore[arg-type]
        and member.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(COMPLETE)])
def test_every_public_function_and_class_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    exported = {key: getattr(module, key) for key in getattr(module, "__all__", ())}
    members = exported | public_members(module)
    assert [key for key, member in members.items() if ">>>" not in (member.__doc__ or "")] == []
