"""The examples in the docstrings run and print what they show, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from doc_examples import modules_of, without_example
from modality_helpers import declared

COMPLETE = ("evaluation", "losses", "nn")  # rooms whose public names all have an example
ROOMS = (*COMPLETE, "captions", "data", "embedder", "layers", "media", "modalities", "world")
MODULES = ["trichord.modality", "trichord.errors", *(name for room in ROOMS for name in modules_of(f"trichord.{room}"))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, example_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "trichord.embedder.mteb":
        pytest.importorskip("mteb")
    monkeypatch.chdir(example_files)
    with declared():
        results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.parametrize("name", ["trichord", *(n for room in COMPLETE for n in modules_of(f"trichord.{room}"))])
def test_every_public_name_has_an_example_that_runs(name: str) -> None:
    assert without_example(importlib.import_module(name)) == []


SOURCE = '''
def shown():
    """
    >>> shown()
    """

def silent():
    """Do nothing."""

def skipped():
    """
    >>> skipped()  # doctest: +SKIP
    """

class Shape:
    """
    >>> Shape().area
    1
    """

    @property
    def area(self):
        """The area."""
        return 1

    def _own(self):
        pass

class Square(Shape):
    """
    >>> Square().area
    1
    """

    @property
    def area(self):
        return 1
'''


def test_names_without_an_example_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("trichord.shapes")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(SOURCE, vars(module))
    expected = ["silent", "skipped", "Shape.area"]
    assert without_example(module) == [f"trichord.shapes.{name}" for name in expected]
