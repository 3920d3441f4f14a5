"""The names of languages in file names and tracks, such as `en`, `eng`, `en_US` and `English`."""

from __future__ import annotations

import re

# Each entry lists the ISO 639-1 code, the one or two ISO 639-2 codes, and the English name.
_TABLE = """
af afr afrikaans|ar ara arabic|az aze azerbaijani|be bel belarusian|bg bul bulgarian|bn ben bengali|bs bos bosnian
ca cat catalan|cs ces cze czech|cy cym wel welsh|da dan danish|de deu ger german|el ell gre greek|en eng english
es spa spanish|et est estonian|eu eus baq basque|fa fas per persian|fi fin finnish|fil tl tgl filipino|fr fra fre french
ga gle irish|gl glg galician|gu guj gujarati|he iw heb hebrew|hi hin hindi|hr hrv croatian|hu hun hungarian
hy hye arm armenian|id ind indonesian|is isl ice icelandic|it ita italian|ja jpn japanese|ka kat geo georgian
kk kaz kazakh|km khm khmer|kn kan kannada|ko kor korean|lo lao|lt lit lithuanian|lv lav latvian|mk mkd mac macedonian
ml mal malayalam|mn mon mongolian|mr mar marathi|ms msa may malay|my mya bur burmese|nb nob|ne nep nepali
nl nld dutch|nn nno|no nor norwegian|pa pan punjabi|pl pol polish|ps pus pashto|pt por portuguese|ro ron rum romanian
ru rus russian|si sin sinhala|sk slk slo slovak|sl slv slovenian|sq sqi alb albanian|sr srp serbian|sv swe swedish
sw swa swahili|ta tam tamil|te tel telugu|th tha thai|tr tur turkish|uk ukr ukrainian|ur urd urdu|uz uzb uzbek
vi vie vietnamese|yue cantonese|zh zho chi chinese|zu zul zulu
"""
_CODES = {name: group.split()[0] for group in _TABLE.replace("\n", "|").split("|") for name in group.split()}
_TAG = re.compile(r"([A-Za-z]{2,12})(?:[-_][A-Za-z0-9]{1,8})*")


def language_of(name: str) -> str:
    """Return the short code of a language, such as `en` for `eng`, `en-US` and `English`.

    Args:
        name: Language tag, code or English name.

    Returns:
        The short code, or an empty string if the name is not that of a language.

    Example:
        >>> from trichord.captions.languages import language_of
        >>> language_of("en_US"), language_of("German"), language_of("final")
        ('en', 'de', '')
    """
    match = _TAG.fullmatch(name.strip())
    return _CODES.get(match[1].lower(), "") if match else ""
