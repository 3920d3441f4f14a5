"""Format the help text of a command: the types and defaults of options, as a user writes them."""

from __future__ import annotations

import re
from argparse import Action

from jsonargparse import DefaultHelpFormatter

PRINT_CONFIG = (
    "Print the settings as YAML, in the form of --config, and exit. The flag skip_default omits settings that have "
    "their default value."
)


class HelpFormatter(DefaultHelpFormatter):
    """Formatter of argparse that names types without Python's notation, and omits defaults that are empty.

    The description of an option says what happens without it.
    """

    def _get_type_str(self, action: Action) -> str | None:
        text = super()._get_type_str(action)
        return None if text is None else type_name(text)

    def _expand_help(self, action: Action) -> str:
        if "--print_config" in action.option_strings:
            return PRINT_CONFIG
        return re.sub(r", default: (?:null|\[\])?(?=\)$)", "", super()._expand_help(action))


def type_name(text: str) -> str:
    """Return the name of a type in a help text, from its notation in Python.

    Args:
        text: The type, such as `Path | null` or `Literal['auto', 'none']`.
    """
    text = re.sub(r"<class '(\w+)'>", r"\1", text).removesuffix(" | null")
    text = re.sub(r"^Optional\[(.*)\]$", r"\1", text)
    text = re.sub(r"^Literal\[(.*)\]$", lambda match: match[1].replace("'", "").replace(", ", " or "), text)
    return re.sub(r"\bPath\b", "path", text)
