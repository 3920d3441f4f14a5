"""Commands as typed functions: the parameters of a function are the options, and its docstring explains them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, get_args

from trichord.cli.parsing import parse, parser_of, recipe_of, recipe_parser
from trichord.errors import one_line
from trichord.recipes import Recipe
from trichord.settings import descriptions_of

NOTHING: list[Any] = []  # default of options that take lists


def command(
    example: str, *, positional: Collection[str] = (), recipe: str = "", **forms: Mapping[str, Any]
) -> Callable[[Callable[..., int]], Callable[[list[str]], int]]:
    """Return a decorator that makes a command, which takes the words of the command line, of a function.

    Args:
        example: A call that the help shows.
        positional: Parameters that are given without their name.
        recipe: Default of `--recipe`, for a function that has a `Recipe` among its parameters: it takes every setting.
        forms: By parameter, `nargs` and `metavar` as of argparse.
    """

    def decorate(function: Callable[..., int]) -> Callable[[list[str]], int]:
        @wraps(function)
        def run(words: list[str]) -> int:
            words = [_underscored(word) for word in words]
            text = function.__name__.replace("_", "-"), one_line((function.__doc__ or "").split("\n\n")[0]), example
            parser = recipe_parser(*text, words, recipe) if recipe else parser_of(*text)
            parameters = inspect.signature(function, eval_str=True).parameters.values()
            plain = [parameter for parameter in parameters if parameter.annotation is not Recipe]
            for parameter in plain:
                option = parameter.name if parameter.name in positional else f"--{parameter.name}"
                description = descriptions_of(function)[parameter.name]
                form = forms.get(parameter.name, {})
                parser.add_argument(option, help=description, **_type_and_default(parameter, option, form), **form)
            values = parse(parser, words)
            given = {parameter.name: values[parameter.name] for parameter in plain}
            given |= {p.name: recipe_of(values) for p in parameters if p.annotation is Recipe}
            return function(**given)

        return run

    return decorate


def _type_and_default(parameter: inspect.Parameter, option: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """The type and the default of a parameter as argparse takes them: of several words in a row, the type of one."""
    kind = parameter.annotation
    if kind is bool:
        return {"action": "store_true"}
    while form.get("nargs", "?") != "?" and get_args(kind):
        kind = get_args(kind)[0]
    if parameter.default is not parameter.empty:
        return {"type": kind, "default": parameter.default}
    return {"type": kind} | ({"required": True} if option.startswith("-") else {})


def _underscored(word: str) -> str:
    """`--save-embeddings=x` as `--save_embeddings=x`: dashes as people type them."""
    head, equals, value = word.partition("=")
    return "--" + head[2:].replace("-", "_") + equals + value if word.startswith("--") else word
