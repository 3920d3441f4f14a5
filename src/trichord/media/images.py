"""Still pictures: any format that Pillow reads, and SVG where resvg is installed."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.faults import raise_fault
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import check_regular, open_regular, unreadable
from trichord.media.sampling import FrameSpec
from trichord.media.scaling import fitted
from trichord.media.svg import svg_text, without_content

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SVG = (".svg", ".svgz")
_ASPECT_SIDE = 1000  # pixels that the longer side of an SVG has while its aspect is measured


def image(path: str | Path, spec: FrameSpec) -> np.ndarray:
    """A still picture as (H, W, 3) uint8 RGB, of the size that `spec` gives a video picture.

    It is turned upright as its EXIF says, scaled by Pillow's bicubic filter (antialiased; swscale's, which the pictures
    of a video go through, differs from it a little), then cropped. Transparent parts are white, 16 bits become 8, of
    an animation the first picture is taken. SVG is drawn by resvg at the size wanted (`pip install resvg-py`); `rate_hz`
    and `sampling` do not count.

    Raises TrichordError if the file is missing, is no picture, is cut off, or holds more than 179 million pixels.
    """
    path = Path(path)
    try:
        check_regular(path)
    except OSError as error:
        raise_fault(path, error)
        raise unreadable(path, error) from None
    picture = _drawn(path, spec) if path.suffix.lower() in _SVG else _loaded(path)
    size, box = fitted(path, spec, *picture.size)
    if picture.size != size:
        from PIL.Image import Resampling

        picture = picture.resize(size, Resampling.BICUBIC)
    return np.array(picture.crop(box), np.uint8)


def _loaded(path: Path) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    refuse_lfs_pointer(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata: judged here, not printed
            with open_regular(path) as file, Image.open(file) as opened:
                opened.load()
                return _rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError:
        raise TrichordError(f"{path}: has more than 179 million pixels; make it smaller or remove it") from None
    except UnidentifiedImageError:
        raise TrichordError(f"{path}: is no picture of a known format; convert it to PNG or JPEG") from None
    except Exception as error:
        raise_fault(path, error)  # else OSError, SyntaxError, struct.error, EOFError: each plugin of Pillow has its own
        reason = one_line(error) or type(error).__name__
        raise TrichordError(f"{path}: cannot be decoded ({reason}); check that the file is complete") from None


def _rgb(picture: Picture) -> Picture:
    """8-bit RGB of any mode, over white where it is transparent."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _eight_bits(picture: Picture) -> Picture:
    """Grey of 16 or 32 bits: the high byte of 16-bit values. Floating point counts as 0 to 1 if it never goes beyond."""
    from PIL import Image

    values: Any = np.nan_to_num(np.asarray(picture, np.float64), nan=0.0, posinf=1e9, neginf=0.0)
    if picture.mode == "F":
        values = values * 255 if values.size and values.max() <= 1 else values
    else:
        values = np.floor(values / 257 + 0.5)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _drawn(path: Path, spec: FrameSpec) -> Picture:
    """SVG: once for its aspect, then at the size wanted; the size that the file states does not count."""
    from PIL import Image

    try:
        import resvg_py
    except ImportError:
        raise TrichordError(f"{path}: SVG needs another package; pip install resvg-py, or convert it to PNG") from None

    text = svg_text(path)

    def drawn_within(side: int, text: str) -> Picture:
        png = resvg_py.svg_to_bytes(svg_string=text, background="#ffffff", width=side, height=side)
        return Image.open(io.BytesIO(bytes(png))).convert("RGB")

    try:
        measured = drawn_within(_ASPECT_SIDE, without_content(text))
        return drawn_within(max(fitted(path, spec, *measured.size)[0]), text)
    except TrichordError:
        raise
    except Exception as error:  # ValueError of resvg, or what Pillow says of its answer
        raise_fault(path, error)
        raise TrichordError(f"{path}: cannot be drawn ({one_line(error)}); convert it to PNG") from None
