"""Define commands as typed functions, whose parameters are the options and whose docstring describes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import wraps
from typing import Any, get_args

from trichord.cli.parsing import parse, parser_of, recipe_of, recipe_parser
from trichord.errors import one_line
from trichord.settings import descriptions_of

NOTHING: list[Any] = []  # default of list options


def command(
    example: str, *, positional: Collection[str] = (), recipe: str = "", **forms: Mapping[str, Any]
) -> Callable[[Callable[..., int]], Callable[[list[str]], int]]:
    """Return a decorator that turns a function into a command, which takes the words of the command line.

    Args:
        example: Example call for the help text.
        positional: Parameters that are given without their name.
        recipe: Default of `--recipe` for a function with a `Recipe` among its parameters, which takes all settings as options.
        **forms: `nargs` and `metavar` of argparse, by parameter.
    """

    def decorate(function: Callable[..., int]) -> Callable[[list[str]], int]:
        @wraps(function)
        def run(words: list[str]) -> int:
            words = [_underscored(word) for word in words]
            text = function.__name__.replace("_", "-"), one_line((function.__doc__ or "").split("\n\n")[0]), example
            parser = recipe_parser(*text, words, recipe) if recipe else parser_of(*text)
            parameters = inspect.signature(function, eval_str=True).parameters.values()
            settings = _names_of_settings(parameters) if recipe else []
            options = [parameter for parameter in parameters if parameter.name not in settings]
            for parameter in options:
                option = parameter.name if parameter.name in positional else f"--{parameter.name}"
                description = descriptions_of(function)[parameter.name]
                form = forms.get(parameter.name, {})
                parser.add_argument(option, help=description, **_type_and_default(parameter, option, form), **form)
            values = parse(parser, words)
            arguments = {parameter.name: values[parameter.name] for parameter in options}
            arguments |= {name: recipe_of(values) for name in settings}
            return function(**arguments)

        return run

    return decorate


def _names_of_settings(parameters: Iterable[inspect.Parameter]) -> list[str]:
    """Return the names of the parameters that take a recipe, all of whose settings are options."""
    from trichord.recipes import Recipe

    return [parameter.name for parameter in parameters if parameter.annotation is Recipe]


def _type_and_default(parameter: inspect.Parameter, option: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the type and the default of a parameter for argparse; for options with several values, the type of one value."""
    kind = parameter.annotation
    if kind is bool:
        return {"action": "store_true"}
    while form.get("nargs", "?") != "?" and get_args(kind):
        kind = get_args(kind)[0]
    if parameter.default is not parameter.empty:
        return {"type": kind, "default": parameter.default}
    return {"type": kind} | ({"required": True} if option.startswith("-") else {})


def _underscored(word: str) -> str:
    """Replace dashes in the name of an option: `--save-embeddings=x` becomes `--save_embeddings=x`."""
    head, equals, value = word.partition("=")
    return "--" + head[2:].replace("-", "_") + equals + value if word.startswith("--") else word
