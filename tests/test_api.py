"""docs/api.md is true and complete: what it lists is there, and nothing that is offered is missing from it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import api_lists
from trichord.cli import COMMANDS

MEND = "an old name works with a DeprecationWarning for one release; then run `python tests/api_lists.py`"


@pytest.mark.parametrize("module", [name for name in api_lists.documented("Imports") if not name.endswith(".mteb")])
def test_every_documented_name_can_be_imported(module: str) -> None:
    names = api_lists.documented("Imports")[module]
    found = importlib.import_module(module)
    assert names and not [name for name in names if not hasattr(found, name)]


@pytest.mark.parametrize("title", sorted(api_lists.TITLES))
def test_the_lists_are_those_of_the_code(title: str) -> None:
    documented, found = api_lists.documented(title), api_lists.TITLES[title]()
    assert set(documented) == set(found), MEND
    for name, entries in found.items():
        assert set(documented[name]) == set(entries), f"{name}: {MEND}"


def test_every_command_is_listed() -> None:
    assert {name.split()[0] for name in api_lists.documented("Commands")} == set(COMMANDS)


def test_what_readme_and_docs_import_is_listed() -> None:
    listed, shown = api_lists.documented("Imports"), api_lists.shown()
    assert shown["trichord.study.run"] == ("run_study",)
    for module, names in shown.items():
        assert set(names) <= set(listed.get(module, ())), f"{module}: run `python tests/api_lists.py`"


@pytest.mark.slow
def test_files_hold_what_is_listed(tmp_path: Path) -> None:
    documented, found = api_lists.documented("Files"), api_lists.files(tmp_path)
    assert set(documented) == set(found)
    for name, entries in found.items():
        assert set(documented[name]) == set(entries), name
