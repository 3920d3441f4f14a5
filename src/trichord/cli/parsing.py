"""From words to arguments, and from results to lines: what all commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError, one_line, printable
from trichord.files.writing import writing_to
from trichord.settings import descriptions_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from trichord.recipes import Recipe


def parser_of(command: str, description: str, example: str) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    text = f"{description} Example: {example}"
    return ArgumentParser(prog=f"trichord {command}", description=text, exit_on_error=False, allow_abbrev=False)


def parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    import argparse

    from trichord.cli.bounds import check_options
    from trichord.recipes.bounds import plainly

    try:
        values = parser.parse_args(words)
    except (argparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        if isinstance(error, TrichordError):
            raise
        raise TrichordError(
            f"{_with_dashes(parser, plainly(one_line(error), '--'))}; see {parser.prog} --help"
        ) from None
    check_options(parser, values)
    return values


def _with_dashes(parser: ArgumentParser, text: str) -> str:
    """'... are required: out' -> '... are required: --out', as a user types it."""
    head, mark, names = text.partition("arguments are required: ")
    options = {option for action in parser._actions for option in action.option_strings}
    shown = [f"--{name}" if f"--{name}" in options else name for name in names.split(", ")]
    return head + mark + ", ".join(shown)


def show(result: object) -> None:
    """Print lines of a result. Names in it come from files: what a terminal would obey is escaped."""
    print("\n".join(map(printable, str(result).split("\n"))))


def call(
    function: Callable[..., Any], command: str, words: list[str], *, positional: tuple[str, ...], example: str
) -> Any:
    """Build the command line of a library function from its signature, parse, call."""
    summary = one_line((function.__doc__ or "").split("\n\n")[0])
    parser = parser_of(command, summary, example)
    descriptions = descriptions_of(function)
    for name in positional:
        parser.add_argument(name, type=str if name == "store" else Path, help=descriptions.get(name, ""))
    parser.add_function_arguments(function, skip=set(positional), fail_untyped=False)
    for group in parser._action_groups:
        if group.title and group.title.rstrip(":.") == summary.rstrip("."):  # the description says it already
            group.title = "settings"
    values = parse(parser, _as_typed(function, words)).as_dict()
    with writing_to(values.get("out") or values.get("store")):
        return function(**{k: v for k, v in values.items() if k != "config"})


def _as_typed(function: Callable[..., Any], words: list[str]) -> list[str]:
    """`--dry-run` as `--dry_run true`: dashes as people type them, and switches that stand alone."""
    import inspect

    annotations = {name: p.annotation for name, p in inspect.signature(function).parameters.items()}
    typed: list[str] = []
    for index, word in enumerate(words):
        head, equals, value = word.partition("=")
        if word.startswith("--"):
            head = "--" + head[2:].replace("-", "_")
        typed.append(head + equals + value)
        after = words[index + 1] if index + 1 < len(words) else ""
        is_switch = annotations.get(head[2:]) in ("bool", bool) and not equals
        if is_switch and after.lower() not in ("true", "false", "yes", "no"):
            typed.append("true")
    return typed


def joined(option: str, words: list[str]) -> list[str]:
    """Join the values of an option that is given more than once into one value, separated by commas."""
    values: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == option:
            values.append(next(rest, ""))
        elif word.startswith(f"{option}="):
            values.append(word.partition("=")[2])
        else:
            others.append(word)
    return [*others, option, ",".join(values)] if values else words


def parts_of(given: list[str] | str) -> list[str]:
    """What an option lists: a list, text with commas, or both."""
    return [
        part.strip()
        for text in ([given] if isinstance(given, str) else given)
        for part in text.split(",")
        if part.strip()
    ]


def recipe_parser(command: str, description: str, example: str, words: list[str], default: str) -> ArgumentParser:
    """A parser with every recipe setting as a dotted option, whose defaults are those of `--recipe`."""
    from jsonargparse import ActionConfigFile

    from trichord.recipes import Recipe, load_recipe, recipe_names, refuse_renamed

    parser = parser_of(command, description, example)
    for word in words:
        refuse_renamed(word.partition("=")[0].removeprefix("--"), "the command line")
    name = value_of("--recipe", words) or default
    _check_configs(words)
    parser.add_argument("--recipe", type=str, default=name, help=f"One of {', '.join(recipe_names())}, or a YAML file.")
    parser.add_argument("--config", action=ActionConfigFile, help="A file as --print_config prints it.")
    parser.add_class_arguments(Recipe)
    parser.set_defaults(
        {f"{group}.{key}": v for group, values in load_recipe(name).to_dict().items() for key, v in values.items()}
    )
    return parser


def _check_configs(words: list[str]) -> None:
    """Check the files that `--config FILE` and, of a group of settings, `--GROUP FILE` name before the parser opens them."""
    from dataclasses import fields

    from trichord.recipes import Recipe
    from trichord.recipes.reading import check_config

    groups = [f.name for f in fields(Recipe)]
    for index in range(len(words)):
        pair = words[index : index + 2]
        if config := value_of("--config", pair):
            check_config(Path(config), groups)
        for group in groups:
            if (config := value_of(f"--{group}", pair)) and Path(config).exists():
                check_config(Path(config), groups)


def value_of(option: str, words: list[str]) -> str | None:
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def recipe_of(values: Namespace) -> Recipe:
    from dataclasses import fields

    from trichord.recipes import Recipe, recipe_from_dict

    plain = values.as_dict()
    return recipe_from_dict({f.name: plain[f.name] for f in fields(Recipe)}, source=str(values.recipe))
