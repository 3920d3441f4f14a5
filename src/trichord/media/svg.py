"""The text of an SVG file that draws nothing but itself and is no more work than a picture of its kind may be.

resvg, which draws it, would put pictures of other files into it, ends the process when elements are nested too deeply, and
decodes a raster picture inside it whatever its size. These bounds hold before it sees the text. What remains, a drawing that
takes very long, is ended by the process that waits for it (`extraction`, `embedder.worker`).
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

MOST_BYTES = 64 << 20  # also of a packed one (.svgz), unpacked
MOST_PIXELS = 178_956_970  # of the raster pictures in it together, each as often as it is drawn; Pillow's bound for one
DEEPEST = 200  # elements nested in one another, directly or by reference
MOST_OCTAVES, MOST_KERNEL, MOST_BLUR, MOST_REGION = 16, 16, 200.0, 20.0  # of filters
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
    """An element: how deeply it is nested, the pixels of its raster pictures, what it holds and refers to."""

    pixels: int = 0
    parts: list[_Element] = field(default_factory=list)
    references: list[str] = field(default_factory=list)


def svg_text(path: Path) -> str:
    """Return the text of an SVG file.

    Raises:
        TrichordError: The file cannot be read, is too large, draws another file, or is too much work to draw.
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
    """Return an SVG that is drawn in the same size and with nothing in it, where the size follows from the root's attributes.

    Elsewhere the same text: the size of a drawing that states none is that of its content, and a style sheet may change it.
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
    """Goes through the elements of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = _Element()
        self.open = [self.root]
        self.named: dict[str, _Element] = {}
        self.styles: list[str] = []
        self.num_styled = 1  # elements that a rule of a style sheet may apply to

    def run(self, text: str) -> None:
        from xml.parsers import expat

        parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(text.encode(), True)  # entities that grow without end are an error of expat
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
        """Pixels of the raster picture in a `data:` URL; 0 for a part of the file itself."""
        if not _OWN.match(reference):
            raise TrichordError(
                f"{self.path}: draws another file ('{one_line(reference)[:80]}'), which is not read; convert it to PNG"
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
                with Image.open(io.BytesIO(data), formats=_RASTER_FORMATS) as picture:  # reads the header alone
                    return picture.width * picture.height
        except Image.DecompressionBombError:
            raise self._too_many_pixels() from None
        except (OSError, ValueError, SyntaxError, binascii.Error):
            raise _undrawable(self.path, "a raster picture in it is none of PNG, JPEG, GIF and WebP") from None

    def _check_filter(self, kind: str, attributes: dict[str, str]) -> None:
        """Refuse filters whose cost does not depend on how large the picture is drawn."""
        bounds = {"numOctaves": MOST_OCTAVES, "order": MOST_KERNEL, "stdDeviation": MOST_BLUR, "radius": MOST_BLUR}
        if attributes.get("filterUnits") != "userSpaceOnUse" and kind == "filter":
            bounds |= dict.fromkeys(_REGION, MOST_REGION)
        for key, most in bounds.items():
            text = attributes.get(key, "")
            scale = 0.01 if text.rstrip().endswith("%") else 1.0
            if any(abs(float(number)) * scale > most for number in _NUMBER.findall(text)):
                raise TrichordError(
                    f"{self.path}: has a filter ({kind}) whose {key} is '{one_line(text)[:40]}', more than {most:g}; convert "
                    "it to PNG"
                )

    def _measure(self, element: _Element, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """Pixels of the raster pictures that an element draws, and levels below it; what it refers to is included."""
        if id(element) in known:
            return known[id(element)]
        known[id(element)] = 0, 0  # what refers to itself is not drawn
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
            f"{self.path}: its elements are nested more than {DEEPEST} deep; simplify it, or convert it to PNG"
        )


def _undrawable(path: Path, reason: str) -> TrichordError:
    return TrichordError(f"{path}: cannot be drawn ({reason}); convert it to PNG")


def _too_large(path: Path) -> TrichordError:
    return TrichordError(f"{path}: has more than {MOST_BYTES:,} bytes; convert it to PNG")
