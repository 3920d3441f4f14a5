"""Parsing of arguments and printing of results, shared by all commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError, one_line, printable
from trichord.settings import SEED, descriptions_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from trichord.recipes import Recipe


def parser_of(command: str, description: str, example: str) -> ArgumentParser:
    """Return the argument parser of a command.

    Args:
        command: Name of the command.
        description: Description for the help text.
        example: Example call for the help text.
    """
    from jsonargparse import ArgumentParser

    from trichord.cli.help import HelpFormatter

    text = f"{description} Example: {example}"
    form: dict[str, Any] = {"formatter_class": HelpFormatter, "exit_on_error": False, "allow_abbrev": False}
    return ArgumentParser(prog=f"trichord {command}", description=text, **form)


def parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    """Parse the words of the command line and check the bounds of numeric options.

    Args:
        parser: Parser of the command.
        words: Words after the name of the command.

    Raises:
        TrichordError: An argument is missing, unknown, of the wrong type or out of bounds.
    """
    import argparse

    from trichord.cli.bounds import check_options

    try:
        values = parser.parse_args(words)
    except (argparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        if isinstance(error, TrichordError):
            raise
        from trichord.recipes.bounds import plainly

        raise TrichordError(
            f"{_with_dashes(parser, plainly(one_line(error), '--'))}; see {parser.prog} --help"
        ) from None
    check_options(parser, values)
    return values


def _with_dashes(parser: ArgumentParser, text: str) -> str:
    """Write the names of required options as they are typed: `... are required: out` becomes `... are required: --out`."""
    head, mark, names = text.partition("arguments are required: ")
    options = {option for action in parser._actions for option in action.option_strings}
    shown = [f"--{name}" if f"--{name}" in options else name for name in names.split(", ")]
    return head + mark + ", ".join(shown)


def show(result: object) -> None:
    """Print the lines of a result. Control characters, which may come from file names, are escaped."""
    print("\n".join(map(printable, str(result).split("\n"))))


def call(
    function: Callable[..., Any], command: str, words: list[str], *, positional: tuple[str, ...], example: str
) -> Any:
    """Build the command line of a library function from its signature, parse the arguments, and call the function.

    Args:
        function: The function.
        command: Name of the command.
        words: Words after the name of the command.
        positional: Parameters that are given without their name.
        example: Example call for the help text.

    Returns:
        The result of the function.
    """
    summary = one_line((function.__doc__ or "").split("\n\n")[0])
    parser = parser_of(command, summary, example)
    descriptions = descriptions_of(function)
    for name in positional:
        parser.add_argument(name, type=str if name == "store" else Path, help=descriptions.get(name, ""))
    parser.add_function_arguments(function, skip=set(positional), fail_untyped=False)
    for group in parser._action_groups:
        if group.title and group.title.rstrip(":.") == summary.rstrip("."):  # the description already contains it
            group.title = "settings"
    values = parse(parser, _as_typed(function, words)).as_dict()
    from trichord.files.writing import writing_to

    with writing_to(values.get("out") or values.get("store")):
        return function(**{k: v for k, v in values.items() if k != "config"})


def _as_typed(function: Callable[..., Any], words: list[str]) -> list[str]:
    """Convert options to the form that the parser expects: `--dry-run` becomes `--dry_run true`."""
    import inspect

    annotations = {name: p.annotation for name, p in inspect.signature(function).parameters.items()}
    converted: list[str] = []
    for index, word in enumerate(words):
        head, equals, value = word.partition("=")
        if word.startswith("--"):
            head = "--" + head[2:].replace("-", "_")
        converted.append(head + equals + value)
        next_word = words[index + 1] if index + 1 < len(words) else ""
        is_switch = annotations.get(head[2:]) in ("bool", bool) and not equals
        if is_switch and next_word.lower() not in ("true", "false", "yes", "no"):
            converted.append("true")
    return converted


def joined(option: str, words: list[str]) -> list[str]:
    """Join the values of an option that is given several times into one value, separated by commas."""
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


def parts_of(values: list[str] | str) -> list[str]:
    """Return the entries of a list option, which may be a list, a string with commas, or both."""
    return [
        part.strip()
        for text in ([values] if isinstance(values, str) else values)
        for part in text.split(",")
        if part.strip()
    ]


def seeds_of(value: list[int] | int | str) -> list[int]:
    """Return integers from a list, a single integer, or text with commas."""
    try:
        seeds = [int(part) for part in parts_of(value if isinstance(value, str) else str(value).strip("[]"))]
    except ValueError:
        raise TrichordError(
            f"--seeds is {value}; give an integer, or several separated by commas, such as 0,1"
        ) from None
    SEED.check("--seeds", seeds)
    return seeds


def recipe_parser(command: str, description: str, example: str, words: list[str], default: str) -> ArgumentParser:
    """Return a parser with all recipe settings as dotted options, whose defaults are those of `--recipe`.

    Args:
        command: Name of the command.
        description: Description for the help text.
        example: Example call for the help text.
        words: Words after the name of the command.
        default: Default of `--recipe`.
    """
    from jsonargparse import ActionConfigFile

    from trichord.recipes import Recipe, load_recipe, recipe_names, refuse_renamed

    parser = parser_of(command, description, example)
    for word in words:
        refuse_renamed(word.partition("=")[0].removeprefix("--"), "the command line")
    name = value_of("--recipe", words) or default
    _check_configs(words)
    parser.add_argument(
        "--recipe", type=str, default=name, help=f"Recipe: one of {', '.join(recipe_names())}, or a YAML file."
    )
    parser.add_argument("--config", action=ActionConfigFile, help="File of settings in the form of --print_config.")
    parser.add_class_arguments(Recipe)
    parser.set_defaults(
        {f"{group}.{key}": v for group, values in load_recipe(name).to_dict().items() for key, v in values.items()}
    )
    return parser


def _check_configs(words: list[str]) -> None:
    """Check the files given by `--config FILE` and by `--GROUP FILE` for a group of settings, before the parser opens them."""
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
    """Return the value of an option in the words of the command line; None if it is not there."""
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def recipe_of(values: Namespace) -> Recipe:
    """Return the recipe of parsed arguments."""
    from dataclasses import fields

    from trichord.recipes import Recipe, recipe_from_dict

    plain = values.as_dict()
    return recipe_from_dict({f.name: plain[f.name] for f in fields(Recipe)}, source=str(values.recipe))
