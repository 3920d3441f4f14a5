"""The examples in the docstrings run and print what they show, and every public name has one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from doc_examples import modules_of, run_examples, without_example
from paths import ROOT

COMPLETE = ("embedder", "evaluation", "losses", "nn")  # rooms whose public names all have an example
ROOMS = (*COMPLETE, "captions", "data", "layers", "media", "modalities", "world")
MODULES = ["trichord.modality", "trichord.errors", *(name for room in ROOMS for name in modules_of(f"trichord.{room}"))]
ELSEWHERE = {  # next to tests that need the same packages or processes, which take seconds to load
    "trichord.embedder.encoders": "embedder/test_embedder_encoders.py",
    "trichord.embedder.mteb": "embedder/test_mteb.py",
    "trichord.embedder.mteb_items": "embedder/test_mteb.py",
    "trichord.embedder.results": "embedder/test_embedder_card.py",
    "trichord.embedder.worker": "embedder/test_embedder_worker.py",
}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ELSEWHERE])
def test_examples_run(name: str, example_files: Path) -> None:
    run_examples(name, example_files)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_examples_run_elsewhere(name: str) -> None:
    source = (ROOT / "tests" / ELSEWHERE[name]).read_text()
    assert "run_examples(" in source and f'"{name}"' in source


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
