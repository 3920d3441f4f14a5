"""Still pictures in all formats that Pillow reads, and in SVG if resvg is installed."""

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
_ASPECT_SIDE = 1000  # length in pixels of the longer side of an SVG while its aspect ratio is measured


def image(path: str | Path, spec: FrameSpec) -> np.ndarray:
    """Read a still picture.

    The picture is rotated according to its EXIF data, scaled by the antialiased bicubic filter of Pillow (which differs slightly
    from that of swscale, which scales the pictures of videos), and cropped. Transparent parts become white, 16 bits are reduced
    to 8, and the first picture of an animation is read. SVG is drawn by resvg at the requested size (`pip install resvg-py`).

    Args:
        path: Path of the file.
        spec: Size of the picture, as for the pictures of a video. `rate_hz` and `sampling` are not used.

    Returns:
        Picture of shape (H, W, 3), uint8 RGB.

    Raises:
        TrichordError: If the file is missing, truncated or not a picture, or has more than 179 million pixels.
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
            warnings.simplefilter(
                "ignore"
            )  # warnings about large pictures and invalid metadata, which are handled here
            with open_regular(path) as file, Image.open(file) as opened:
                opened.load()
                return _rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError:
        raise TrichordError(f"{path}: has more than 179 million pixels; make it smaller or remove it") from None
    except UnidentifiedImageError:
        raise TrichordError(f"{path}: is not a picture in a known format; convert it to PNG or JPEG") from None
    except Exception as error:  # OSError, SyntaxError, struct.error or EOFError, depending on the plugin of Pillow
        raise_fault(path, error)
        reason = one_line(error) or type(error).__name__
        raise TrichordError(f"{path}: cannot be decoded ({reason}); check that the file is complete") from None


def _rgb(picture: Picture) -> Picture:
    """Convert a picture of any mode to 8-bit RGB, on a white background."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _eight_bits(picture: Picture) -> Picture:
    """Convert 16-bit or 32-bit gray values to 8 bits.

    16-bit values are scaled to the range of 8 bits. Floating-point values are in the range 0 to 1 if none is larger than 1.
    """
    from PIL import Image

    values: Any = np.nan_to_num(np.asarray(picture, np.float64), nan=0.0, posinf=1e9, neginf=0.0)
    if picture.mode == "F":
        values = values * 255 if values.size and values.max() <= 1 else values
    else:
        values = np.floor(values / 257 + 0.5)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _drawn(path: Path, spec: FrameSpec) -> Picture:
    """Draw an SVG twice: to measure its aspect ratio, and at the requested size. The size in the file is not used."""
    from PIL import Image

    try:
        import resvg_py
    except ImportError:
        raise TrichordError(
            f"{path}: SVG requires the package resvg-py, which is not installed; pip install resvg-py, or convert it to PNG"
        ) from None

    text = svg_text(path)

    def drawn_within(side: int, text: str) -> Picture:
        png = resvg_py.svg_to_bytes(svg_string=text, background="#ffffff", width=side, height=side)
        return Image.open(io.BytesIO(bytes(png))).convert("RGB")

    try:
        measured = drawn_within(_ASPECT_SIDE, without_content(text))
        return drawn_within(max(fitted(path, spec, *measured.size)[0]), text)
    except TrichordError:
        raise
    except Exception as error:  # ValueError of resvg, or an error of Pillow that reads its output
        raise_fault(path, error)
        raise TrichordError(f"{path}: cannot be drawn ({one_line(error)}); convert it to PNG") from None
