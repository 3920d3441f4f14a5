"""Splitting of text into words, by one of two rules. A store records the rule that it uses.

- `published`: the rule of the published loaders. A word is a run of word characters and straight apostrophes. A vowel sign or
  accent that is a separate character ends a word.
- `unicode`: the text is normalized to NFC, and a letter keeps its marks (the vowel signs of Hindi and Thai, the vowels of
  Arabic). An apostrophe belongs to a word only between two letters, and typographic apostrophes become straight ones.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from typing import Literal

WordSplitting = Literal["unicode", "published"]
WORD_SPLITTINGS: tuple[WordSplitting, ...] = ("unicode", "published")

_PUBLISHED = re.compile(r"[\w']+")
_CLASS_CUT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_APOSTROPHES = "'\u2018\u2019\u02bc\uff07\u00b4`"
_STRAIGHT = str.maketrans(dict.fromkeys(_APOSTROPHES, "'"))
# Soft hyphens, direction marks, word joiners and variation selectors change the appearance of a word, but not its identity.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]"
)
_ZWNJ, _ZWJ = "\u200c", "\u200d"


def tokenize(text: object, splitting: str = "published") -> list[str]:
    """Split text into words. The case is kept.

    Args:
        text: Text to split.
        splitting: Rule, one of `WORD_SPLITTINGS`.

    Returns:
        The words.

    Raises:
        ValueError: If the rule is unknown.

    Example:
        >>> from trichord.captions import tokenize
        >>> tokenize("Don't peel it - 'just' cut!", "unicode")
        ["Don't", 'peel', 'it', 'just', 'cut']
    """
    if splitting == "published":
        return _PUBLISHED.findall(str(text))
    if splitting != "unicode":
        raise ValueError(f"unknown word splitting '{splitting}'; expected 'unicode' or 'published'")
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFC", str(text))).replace("\u02bc", "'")
    return [word.translate(_STRAIGHT) for word in _unicode_word().findall(plain)]


def class_text(name: str) -> str:
    """Convert the name of a class to lowercase words.

    The name is split between a lowercase letter or digit and a capital, before the last of several capitals if a lowercase letter
    follows it, and at every character that is not a letter, mark, digit or apostrophe.

    Args:
        name: Name of a class.

    Returns:
        The words, separated by spaces.

    Example:
        >>> from trichord.captions import class_text
        >>> class_text("ApplyEyeMakeup"), class_text("apply_eye_makeup"), class_text("HTMLPage")
        ('apply eye makeup', 'apply eye makeup', 'html page')
    """
    return " ".join(_class_word().findall(_CLASS_CUT.sub(" ", str(name)))).lower()


@cache
def _marks() -> str:
    """Return the contents of a regular-expression character class of all combining marks."""
    ranges: list[list[int]] = []
    for code in range(0x300, min(0x20000, sys.maxunicode)):  # above, there are only variation selectors
        if unicodedata.category(chr(code)) in ("Mn", "Mc"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


@cache
def _unicode_word() -> re.Pattern[str]:
    part = rf"\w[\w{_marks()}{_ZWJ}]*"
    return re.compile(rf"{part}(?:[{_APOSTROPHES}{_ZWNJ}]{part})*")


@cache
def _class_word() -> re.Pattern[str]:
    part = rf"[^\W_](?:[^\W_]|[{_marks()}{_ZWJ}])*"
    return re.compile(rf"{part}(?:['{_ZWNJ}]{part})*")
