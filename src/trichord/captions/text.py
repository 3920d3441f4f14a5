"""Conversion of the markup of a cue to plain text, in the normalization form NFC.

Tags, entities and line breaks of all caption formats are resolved, and drawings are removed. One function serves all formats,
because converted files mix them. A tag is a name with attributes (`<font color="red">`), with classes (`<c.yellow>`) or alone
(`<i>`, `</i>`), a voice (`<v Anna>`) or a word timestamp. Anything else between `<` and `>` is text, as in `if a<b then c>d`.
"""

from __future__ import annotations

import html
import re
import unicodedata

from trichord.errors import one_line

# Possessive quantifiers keep every pattern linear in the length of the text.
_ATTRIBUTES = r"""(?>\s++[\w:.-]++\s*+=\s*+(?>"[^"]*+"|'[^']*+'|[^\s"'<>]++))*+\s*+(?:/\s*+)?+"""
_BLOCK = re.compile(r"(\{[^{}]*+\})")
_OVERRIDE = re.compile(r"\{\s*+\\|\{[a-zA-Z]:")  # {\an8} of ASS, {y:i} of MicroDVD
_DRAWING = re.compile(r"\\p(\d)")
_BREAK = re.compile(rf"<\s*+(?:/\s*+)?+(?:br|p|div|li|tr){_ATTRIBUTES}>|\\[Nn]", re.IGNORECASE)
# Annotations of pronunciation above a word (ruby text)
_READING = re.compile(r"<r[tp](?:[.\s][^<>]*+)?+>[^<]*+(?:</r[tp]\s*+>)?+", re.IGNORECASE)
_SET_OFF = re.compile(r"<(?:[biu]|em|strong|c|font|span)(?:[.\s][^<>]*+)?+>", re.IGNORECASE)
STAMP = re.compile(r"<(\d++:\d\d[\d:.]*+)>")
_VOICE = re.compile(r"(?<!\w)<v(?:\.[^\s<>]*+)?+\s++([^<>]++)>")
_TAG = re.compile(
    rf"<!--[^<>]*+>|</?>|<\d++:[\d:.,]++>|</[A-Za-z][\w.:-]*+\s*+>"
    rf"|<(?:font|span|img)\b[^<>]*+>"
    rf"|(?<!\w)<(?:v|lang)(?:\.[^\s<>]*+)?+\s++[^<>=]++>"
    rf"|<(?:[abciqsuv](?![\w:-])|[A-Za-z][\w:-]++)(?:\.[^\s<>&]*+)?+{_ATTRIBUTES}>"
)
_LONGEST_PADDING = 16
_LONG_ENTITY = re.compile(r"&#[0-9]{1000,};?")  # Python cannot parse numbers of several thousand digits
_ESCAPED_TWICE = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos|nbsp);")


def plain_text(markup: str) -> str:
    """Return the plain text of a cue on one line.

    Args:
        markup: Markup of the cue.

    Returns:
        The plain text.

    Example:
        >>> from trichord.captions import plain_text
        >>> plain_text("<i>Salt</i> &amp; <font color='red'>pepper</font>, if a<b")
        'Salt & pepper, if a<b'
    """
    return " ".join(plain_lines(markup))


def plain_lines(markup: str, *, ass: bool = False) -> tuple[str, ...]:
    r"""Return the lines of a cue that have text, with normalized white space.

    Args:
        markup: Markup of the cue, with `\n` between its lines.
        ass: Whether the markup is a dialogue of ASS, in which everything between braces is hidden.

    Returns:
        The plain text of each line.
    """
    text = markup.replace("\ufeff", "")
    if "{" in text:
        text = _without_blocks(text, ass)
    if "<" in text or "\\" in text:
        text = _BREAK.sub("\n", text).replace("\\h", " ")
        text = _TAG.sub("", _READING.sub("", text))
    if "&" in text:
        resolved = html.unescape(_LONG_ENTITY.sub("\ufffd", text))
        text = html.unescape(resolved) if resolved != text and _ESCAPED_TWICE.search(resolved) else resolved
    lines = unicodedata.normalize("NFC", text).split("\n")
    return tuple(folded for line in lines if (folded := one_line(line)) and not _is_invisible(folded))


def _is_invisible(line: str) -> bool:
    """Return whether a line consists only of direction marks, joiners and zero-width spaces, which pad captions in some files."""
    return len(line) <= _LONGEST_PADDING and all(unicodedata.category(c) in ("Cf", "Zs") for c in line)


def speaker_of(markup: str) -> str:
    """Return the names in the voice tags of a WebVTT cue, or an empty string.

    Args:
        markup: Markup of the cue.

    Returns:
        The names, separated by spaces.
    """
    return one_line(" ".join(_VOICE.findall(markup))) if "<v" in markup else ""


def highlight_of(markup: str) -> int | None:
    """Return the position in the markup at which the first highlighted part begins.

    Args:
        markup: Markup of the cue.

    Returns:
        The position, or None if tags highlight all of the text or nothing.
    """
    if "<" not in markup or (tag := _SET_OFF.search(markup)) is None:
        return None
    end = markup.find("</", tag.end())
    if end <= tag.end():
        return None
    has_more = any(_TAG.sub("", part).strip() for part in (markup[end:], markup[: tag.start()]) if part)
    return tag.start() if has_more else None


def _without_blocks(text: str, ass: bool) -> str:
    """Remove ASS overrides, and the drawings that some of them enclose."""
    kept, draws = [], False
    for at, piece in enumerate(_BLOCK.split(text)):
        is_hidden = at % 2 == 1 and (ass or _OVERRIDE.match(piece) is not None)
        if is_hidden and (modes := _DRAWING.findall(piece)):
            draws = modes[-1] != "0"
        if not is_hidden and not draws:
            kept.append(piece)
    return "".join(kept)
