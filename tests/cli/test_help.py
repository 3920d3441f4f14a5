"""The help text of every command describes every option: in a sentence, with its unit and its default."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest

import api_lists
from trichord.cli import command as commands
from trichord.cli import data, main, parsing
from trichord.cli.help import type_name

COMMANDS = sorted(api_lists.documented("Commands"))
OWN = ("--help", "--print_config", "--config")
SENTENCE = re.compile(
    r"(?:[A-Z0-9`'-]|[a-z_]+(?:, [a-z_]+)*: [A-Z]).*[.)]", re.DOTALL
)  # or the loss it belongs to, then so
UNITS = {"_s": "second", "_hz": "per second", "_gb": "gigabyte", "_db": "dB", "_bytes": "byte", "_dim": "idth"}
EXPLAINED = re.compile(r"(?i)\bdefault\b|\bempty\b|\bif\b|\band exit\b")  # what happens without the option


class Captured(Exception):  # noqa: N818 - carries the parser of a command
    pass


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    def capture(parser: Any, words: list[str]) -> None:
        raise Captured(parser)

    for module in (parsing, commands, data):
        monkeypatch.setattr(module, "parse", capture)
    with pytest.raises(Captured) as caught:
        main([*command.split(), "--debug"])
    return caught.value.args[0]


def options_of(parser: Any) -> list[tuple[str, argparse.Action, str]]:
    """Return name, action and description of each option and positional argument."""
    actions = [action for action in parser._actions if not set(action.option_strings) & set(OWN)]
    return [(action.dest, action, " ".join((action.help or "").split())) for action in actions]


def not_described(parser: Any) -> list[str]:
    return [name for name, _, text in options_of(parser) if not SENTENCE.fullmatch(text)]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "doctor"])
def test_every_option_is_described(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(command, monkeypatch)
    assert not_described(parser) == []
    assert [g.title for g in parser._action_groups if re.match(r"<|class|.*'>", g.title or "")] == []
    options = options_of(parser)
    without_unit = [
        name for name, _, text in options for end, unit in UNITS.items() if name.endswith(end) and unit not in text
    ]
    assert without_unit == []
    optional = [entry for entry in options if not entry[1].required and entry[1].option_strings]
    assert [
        name for name, action, text in optional if action.default in (None, "", []) and not EXPLAINED.search(text)
    ] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_free_of_python_notation(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main([*command.split(), "--help"]) == 0
    except SystemExit as end:
        assert end.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: trichord {command}") and f"Example: trichord {command}" in text
    assert re.findall(r"<class|Optional\[|Literal\[|Union\[|\bnull\b|default: \)|PosixPath", text) == []


def misindented(out: Path, *, step_s: float = 1.0, seed: int = 0) -> None:
    """Write a file.

    Args:
        out: File to write.
        step_s: Duration of a step
        in seconds.
        seed: Random seed.
    """


def test_a_dropped_description_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(parser: Any, words: list[str]) -> None:
        raise Captured(parser)

    monkeypatch.setattr(parsing, "parse", capture)
    with pytest.raises(Captured) as caught:
        parsing.call(misindented, "write", [], positional=("out",), example="trichord write out")
    assert not_described(caught.value.args[0]) == ["step_s", "seed"], "jsonargparse drops the whole section"


def test_types_are_named_as_a_user_writes_them() -> None:
    assert type_name("<class 'Path'>") == type_name("Path | null") == "path"
    assert type_name("Optional[Literal['unicode', 'published']]") == "unicode or published"
    assert type_name("dict[str, Path] | null") == "dict[str, path]" and type_name("float") == "float"


def test_doctor_refuses_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "everything"]) == 2
    assert "doctor takes no arguments" in capsys.readouterr().err
