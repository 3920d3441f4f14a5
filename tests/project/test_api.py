"""docs/api.md lists exactly the public API: every listed name exists, and no public name is missing."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import api_lists
from trichord.cli import COMMANDS

ADVICE = "keep the old name for one release with a DeprecationWarning, then run `python tests/helpers/api_lists.py`"


@pytest.mark.parametrize("module", [name for name in api_lists.documented("Imports") if not name.endswith(".mteb")])
def test_every_documented_name_can_be_imported(module: str) -> None:
    names = api_lists.documented("Imports")[module]
    imported = importlib.import_module(module)
    assert names and not [name for name in names if not hasattr(imported, name)]


@pytest.mark.parametrize("title", sorted(api_lists.TITLES))
def test_the_lists_match_the_code(title: str) -> None:
    documented, actual = api_lists.documented(title), api_lists.TITLES[title]()
    assert set(documented) == set(actual), ADVICE
    for name, entries in actual.items():
        assert set(documented[name]) == set(entries), f"{name}: {ADVICE}"


def test_every_command_is_listed() -> None:
    assert {name.split()[0] for name in api_lists.documented("Commands")} == set(COMMANDS)


def test_imports_in_the_documentation_are_listed() -> None:
    listed, imported = api_lists.documented("Imports"), api_lists.imports_in_documentation()
    assert imported["trichord.study.run"] == ("run_study",)
    for module, names in imported.items():
        assert set(names) <= set(listed.get(module, ())), f"{module}: run `python tests/helpers/api_lists.py`"


@pytest.mark.slow
def test_contents_of_files_match_the_lists(tmp_path: Path) -> None:
    documented, actual = api_lists.documented("Files"), api_lists.files(tmp_path)
    assert set(documented) == set(actual)
    for name, entries in actual.items():
        assert set(documented[name]) == set(entries), name
