"""Text split into words, by one of two rules that a store records.

`published`: as the loaders of the published code split it, runs of word characters and straight apostrophes. A vowel sign or
an accent that is a character of its own ends a word there.

`unicode`: a letter keeps its marks (the vowel signs of Hindi and Thai, the vowels of Arabic), text is NFC, an apostrophe
belongs to a word between two of its letters only, and a typographic apostrophe is a straight one.
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
# Soft hyphens, marks of direction, joiners of words and variation selectors change how a word looks, not which word it is.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]"
)
_ZWNJ, _ZWJ = "\u200c", "\u200d"


def tokenize(text: object, splitting: str = "published") -> list[str]:
    """Return the words of `text` by a rule of `WORD_SPLITTINGS`; case is kept."""
    if splitting == "published":
        return _PUBLISHED.findall(str(text))
    if splitting != "unicode":
        raise ValueError(f"unknown word splitting '{splitting}'; expected 'unicode' or 'published'")
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFC", str(text))).replace("\u02bc", "'")
    return [word.translate(_STRAIGHT) for word in _unicode_word().findall(plain)]


def class_text(name: str) -> str:
    """The name of a class as words: `ApplyEyeMakeup` and `apply_eye_makeup` are both `apply eye makeup`.

    Cut where a small letter or a digit meets a capital, before the last capital of several that a small letter follows
    (`HTMLPage`: html page), and at anything that is no letter, mark, digit or apostrophe; then in small letters.
    """
    return " ".join(_class_word().findall(_CLASS_CUT.sub(" ", str(name)))).lower()


@cache
def _marks() -> str:
    """The inside of a character class: all marks that combine with a letter."""
    ranges: list[list[int]] = []
    for code in range(0x300, min(0x20000, sys.maxunicode)):  # none lies above, but the variation selectors
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
