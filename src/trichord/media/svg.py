"""The text of an SVG file, of bounded size, that draws nothing but itself: resvg would put pictures of other files into it."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from trichord.errors import TrichordError, one_line

MOST_BYTES = 64 << 20  # also of a packed one (.svgz), unpacked
_OWN = re.compile(r"\s*(#|data:image/(png|jpeg|jpg|gif|webp)\s*[;,])", re.IGNORECASE)
_DRAWN = ("image", "feImage", "use")


def svg_text(path: Path) -> str:
    """What stands in the file. Raises TrichordError when it cannot be read, is too large, or draws another file."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if content.startswith(b"\x1f\x8b"):
            content = zlib.decompressobj(31).decompress(content, MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, zlib.error) as error:
        raise TrichordError(f"{path}: cannot be drawn ({one_line(error)[:100]}); convert it to PNG") from None
    if len(content) > MOST_BYTES:
        raise TrichordError(f"{path}: has more than {MOST_BYTES:,} bytes; convert it to PNG")
    if other := _drawn_from_elsewhere(path, text):
        raise TrichordError(
            f"{path}: draws another file ('{one_line(other)[:80]}'), which is not read; convert it to PNG"
        )
    return text


def _drawn_from_elsewhere(path: Path, text: str) -> str:
    """What a picture in it refers to that is neither a part of it nor the picture itself; '' if nothing."""
    from xml.parsers import expat

    found: list[str] = []

    def start(element: str, attributes: dict[str, str]) -> None:
        if element.rpartition(":")[2] in _DRAWN:
            references = (value for name, value in attributes.items() if name.rpartition(":")[2] == "href")
            found.extend(value for value in references if not _OWN.match(value))

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    try:
        parser.Parse(text.encode(), True)  # entities that grow without end are an error of expat
    except expat.ExpatError as error:
        raise TrichordError(f"{path}: cannot be drawn ({one_line(error)[:100]}); convert it to PNG") from None
    return found[0] if found else ""
