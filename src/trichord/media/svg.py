"""Checks of SVG files before they are drawn: no references to other files, and bounded work.

resvg, which draws them, would include pictures from other files, kills the process if elements are nested too deeply, and decodes
embedded raster pictures of any size. The checks run before resvg reads the text. A drawing that passes them but takes very long is
stopped by the process that waits for it (`trichord.extraction`, `trichord.embedder.worker`).
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes
from xml.sax.saxutils import quoteattr

from trichord.errors import TrichordError, one_line
from trichord.files.reading import FileTooLargeError, read_bytes

MOST_BYTES = 64 << 20  # maximum size of a file, and of the contents of a compressed file (.svgz)
MOST_PIXELS = (
    178_956_970  # maximum total of the raster pictures each time they are drawn; the limit of Pillow for one picture
)
DEEPEST = 200  # maximum nesting of elements, directly or by reference
MOST_OCTAVES, MOST_KERNEL, MOST_BLUR, MOST_REGION = 16, 16, 200.0, 20.0  # limits of filters
_OWN = re.compile(r"\s*(#|data:image/(png|jpeg|jpg|gif|webp)\s*[;,])", re.IGNORECASE)
_RASTER_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_DRAWN = ("image", "feImage", "use")
# Possessive quantifiers keep every pattern linear in the length of the text.
_INNER = re.compile(r"url\(\s*+['\"]?+\s*+#([^)'\"]*+)")
_NUMBER = re.compile(r"[-+]?+(?:\d++\.?+\d*+|\.\d++)(?:[eE][-+]?+\d++)?+")
_SIZES = ("width", "height", "viewBox", "preserveAspectRatio")
_LENGTH = re.compile(r"\s*+\d++\.?+\d*+(?:px|pt|pc|mm|cm|in)?+\s*+")
_REGION = ("x", "y", "width", "height")


@dataclass
class _Element:
    """An element of an SVG.

    Attributes:
        pixels: Number of pixels of its own raster pictures.
        parts: Child elements.
        references: Names of the elements to which it refers.
    """

    pixels: int = 0
    parts: list[_Element] = field(default_factory=list)
    references: list[str] = field(default_factory=list)


def svg_text(path: Path) -> str:
    """Read and check an SVG file.

    Args:
        path: Path of the file, which may be compressed.

    Returns:
        The text of the file.

    Raises:
        TrichordError: If the file cannot be read, is too large, refers to another file, or would take too much work to draw.
    """
    try:
        content = read_bytes(path, max_bytes=MOST_BYTES)
        if content.startswith(b"\x1f\x8b"):
            content = zlib.decompressobj(31).decompress(content, MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileTooLargeError:
        raise _too_large(path) from None
    except (OSError, UnicodeDecodeError, zlib.error) as error:
        raise _undrawable(path, one_line(error)[:100]) from None
    if len(content) > MOST_BYTES:
        raise _too_large(path)
    _Check(path).run(text)
    return text


def without_content(text: str) -> str:
    """Return an empty SVG of the same size, if the attributes of the root element determine the size.

    Otherwise, the text is returned unchanged: the size of a drawing without a stated size is that of its content, and a style
    sheet may change the size.

    Args:
        text: Text of an SVG file.

    Returns:
        Text of an SVG file.
    """
    from xml.parsers import expat

    roots: list[dict[str, str]] = []
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = lambda name, attributes: None if roots else roots.append(attributes)
    parser.Parse(text.encode(), True)
    root = roots[0]
    sizes = [root.get(name, "") for name in ("width", "height")]
    is_stated = all(map(_LENGTH.fullmatch, sizes)) or ("viewBox" in root and sizes == ["", ""])
    if not is_stated or "style" in root or ":style" in text or "<style" in text or "<?xml-stylesheet" in text:
        return text
    kept = "".join(f" {name}={quoteattr(root[name])}" for name in _SIZES if name in root)
    return f'<svg xmlns="http://www.w3.org/2000/svg"{kept}></svg>'


class _Check:
    """A check of the elements of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = _Element()
        self.open = [self.root]
        self.named: dict[str, _Element] = {}
        self.styles: list[str] = []
        self.num_styled = 1  # number of elements to which a style sheet may apply

    def run(self, text: str) -> None:
        """Raise TrichordError if the text exceeds one of the bounds."""
        from xml.parsers import expat

        parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(text.encode(), True)  # expat rejects entities that expand exponentially
        except expat.ExpatError as error:
            raise _undrawable(self.path, one_line(error)[:100]) from None
        pixels, _ = self._measure(self.root, 0, {})
        if pixels:
            by_styles = (self.named[name] for name in _INNER.findall("".join(self.styles)) if name in self.named)
            pixels += self.num_styled * sum(self._measure(element, 0, {})[0] for element in by_styles)
        if pixels > MOST_PIXELS:
            raise self._too_many_pixels()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.open) > DEEPEST:
            raise self._too_deep()
        kind = name.rpartition(":")[2]
        element = _Element()
        for key, value in attributes.items():
            element.references += _INNER.findall(value)
            if key.rpartition(":")[2] == "href" and value.strip().startswith("#"):
                element.references.append(value.strip()[1:])
        if kind in _DRAWN:
            element.pixels = sum(self._raster(v) for k, v in attributes.items() if k.rpartition(":")[2] == "href")
        if kind == "filter" or kind.startswith("fe"):
            self._check_filter(kind, attributes)
        self.num_styled += 1
        self.open[-1].parts.append(element)
        self.open.append(element)
        if "id" in attributes:
            self.named.setdefault(attributes["id"], element)
        if kind == "style":
            self.styles.append("")

    def _end(self, name: str) -> None:
        self.open.pop()
        if name.rpartition(":")[2] == "style":
            self.styles.append(" ")

    def _characters(self, text: str) -> None:
        if self.styles and self.styles[-1] != " ":
            self.styles[-1] += text

    def _raster(self, reference: str) -> int:
        """Return the number of pixels of the raster picture in a `data:` URL, or 0 for a reference to an element of the file."""
        if not _OWN.match(reference):
            raise TrichordError(
                f"{self.path}: draws another file ('{one_line(reference)[:80]}'), which is not allowed; convert it to PNG"
            )
        if reference.lstrip().startswith("#"):
            return 0
        from PIL import Image

        head, _, body = reference.partition(",")
        try:
            data = unquote_to_bytes(body)
            if "base64" in head.lower():
                data = base64.b64decode(data + b"==")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(data), formats=_RASTER_FORMATS) as picture:  # reads only the header
                    return picture.width * picture.height
        except Image.DecompressionBombError:
            raise self._too_many_pixels() from None
        except (OSError, ValueError, SyntaxError, binascii.Error):
            raise _undrawable(self.path, "an embedded raster picture is not in PNG, JPEG, GIF or WebP format") from None

    def _check_filter(self, kind: str, attributes: dict[str, str]) -> None:
        """Reject filters whose cost does not depend on the size of the drawn picture."""
        bounds = {"numOctaves": MOST_OCTAVES, "order": MOST_KERNEL, "stdDeviation": MOST_BLUR, "radius": MOST_BLUR}
        if attributes.get("filterUnits") != "userSpaceOnUse" and kind == "filter":
            bounds |= dict.fromkeys(_REGION, MOST_REGION)
        for key, most in bounds.items():
            text = attributes.get(key, "")
            scale = 0.01 if text.rstrip().endswith("%") else 1.0
            if any(abs(float(number)) * scale > most for number in _NUMBER.findall(text)):
                raise TrichordError(
                    f"{self.path}: has a filter ({kind}) whose {key} is '{one_line(text)[:40]}', which exceeds the limit of "
                    f"{most:g}; convert it to PNG"
                )

    def _measure(self, element: _Element, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """Return the number of pixels of the raster pictures that an element draws, and the number of levels below it.

        Elements to which it refers are included.
        """
        if id(element) in known:
            return known[id(element)]
        known[id(element)] = 0, 0  # an element that refers to itself is not drawn
        pixels, height = element.pixels, 0
        targets = [self.named[name] for name in element.references if name in self.named]
        for part in (*element.parts, *targets):
            if depth == DEEPEST:
                raise self._too_deep()
            pixels_of_part, height_of_part = self._measure(part, depth + 1, known)
            pixels, height = pixels + pixels_of_part, max(height, height_of_part + 1)
        if height > DEEPEST:
            raise self._too_deep()
        known[id(element)] = pixels, height
        return pixels, height

    def _too_many_pixels(self) -> TrichordError:
        return TrichordError(
            f"{self.path}: draws raster pictures of more than {MOST_PIXELS // 1_000_000} million pixels; make them smaller or "
            "remove the file"
        )

    def _too_deep(self) -> TrichordError:
        return TrichordError(
            f"{self.path}: its elements are nested more than {DEEPEST} levels deep; simplify it, or convert it to PNG"
        )


def _undrawable(path: Path, reason: str) -> TrichordError:
    return TrichordError(f"{path}: cannot be drawn ({reason}); convert it to PNG")


def _too_large(path: Path) -> TrichordError:
    return TrichordError(f"{path}: has more than {MOST_BYTES:,} bytes; convert it to PNG")
