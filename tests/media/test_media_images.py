"""Still pictures of every kind: colours, orientation, sizes, and refused files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trichord.errors import TrichordError
from trichord.media import FrameSpec, frames, image, write_video

WHOLE = FrameSpec(width=60, height=40)


def card(mode: str = "RGB") -> Image.Image:
    """Return 60 x 40 pixels: red on the left, blue on the right; light at the top, dark at the bottom."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = (220, 30, 30), (30, 30, 220)
    pixels[20:] //= 2
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg", "a.webp", "a.gif", "a.tif", "a.avif", "a.ppm"])
def test_formats(tmp_path: Path, name: str) -> None:
    card().save(tmp_path / name)
    decoded = image(tmp_path / name, WHOLE)
    assert decoded.shape == (40, 60, 3) and decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    for y, x in ((5, 10), (5, 50), (35, 10), (35, 50)):
        assert np.abs(decoded[y, x].astype(int) - np.asarray(card())[y, x]).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright(tmp_path: Path, orientation: int) -> None:
    undo = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM]
    undo += [Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE]
    undo += [Image.Transpose.ROTATE_270]
    step = undo[orientation - 1]
    exif = Image.Exif()
    exif[274] = orientation
    (card() if step is None else card().transpose(step)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(image(tmp_path / "a.png", WHOLE), np.asarray(card()))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA", "I;16", "I", "F"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    if mode in ("I;16", "I"):
        picture = Image.fromarray(np.asarray(card("L")).astype(np.uint16) * 257)
        picture = picture.convert("I") if mode == "I" else picture
    else:
        picture = card().quantize(8) if mode == "P" else card().convert(mode)  # convert would dither
    path = tmp_path / ("a.png" if mode in ("L", "1", "P", "LA", "RGBA", "I;16") else "a.tif")
    picture.save(path)
    decoded = image(path, WHOLE)
    expected = np.asarray(card("L" if mode in ("L", "LA", "I;16", "I", "F") else "RGB").convert("RGB")).astype(int)
    assert np.abs(decoded.astype(int) - expected).max() <= (255 if mode == "1" else 3)
    assert mode != "1" or set(np.unique(decoded)) <= {0, 255}


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[:, :20, 3], pixels[:, 20:40, 3] = 255, 51  # black: opaque, a fifth, not at all
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert image(tmp_path / "a.png", WHOLE)[20, [10, 30, 50], 0].tolist() == [0, 204, 255]
    palette = card().quantize(8)
    palette.save(tmp_path / "b.gif", transparency=palette.getpixel((0, 0)))
    decoded = image(tmp_path / "b.gif", WHOLE)
    assert decoded[5, 10].tolist() == [255, 255, 255] and decoded[5, 50, 2] > 150


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    others = [Image.new("RGB", (60, 40), (0, level, 0)) for level in (100, 200)]
    for name in ("a.gif", "a.png", "a.webp"):
        card().save(tmp_path / name, save_all=True, append_images=others, lossless=True)
        assert np.abs(image(tmp_path / name, WHOLE).astype(int) - np.asarray(card())).max() < 8


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 64), st.one_of(st.none(), st.integers(1, 64)), st.booleans()
)
def test_sizes(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, side: int, crop: int | None, is_exact: bool
) -> None:
    path = tmp_path_factory.mktemp("sizes") / "a.png"
    Image.new("RGB", (width, height), (9, 99, 199)).save(path)
    exact = {"width": 33, "height": 21} if is_exact else {}
    spec = FrameSpec(short_side=side, crop=crop, **exact)
    size = spec.size_of(width, height)
    if crop is not None and crop > min(size):
        with pytest.raises(TrichordError, match=f"a crop of {crop} does not fit into {size[0]}x{size[1]}"):
            image(path, spec)
        return
    decoded = image(path, spec)
    assert decoded.shape == ((crop, crop, 3) if crop else (size[1], size[0], 3))
    assert (decoded == (9, 99, 199)).all()


def test_a_crop_is_the_middle_and_scaling_is_smooth(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    decoded = image(tmp_path / "a.png", FrameSpec(short_side=50, crop=50))
    assert np.abs(decoded[25, :, 0] - (50 + np.arange(50) * 2 + 0.5)).max() < 1.01
    lines = np.zeros((100, 200, 3), np.uint8)
    lines[:, ::2] = 200
    Image.fromarray(lines).save(tmp_path / "b.png")  # without antialias the lines would stay
    assert np.abs(image(tmp_path / "b.png", FrameSpec(short_side=25))[:, 5:-5].astype(int) - 100).max() < 8


def test_a_still_picture_equals_a_video_of_it(tmp_path: Path) -> None:
    t = np.linspace(0, 1, 128)
    pixels = np.stack(
        [255 * t[None] * np.ones((96, 1)), 200 * t[:96, None] * np.ones((1, 128))] + [np.full((96, 128), 90)]
    )
    picture = pixels.transpose(1, 2, 0).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    write_video(tmp_path / "a.mp4", [picture] * 3, 10, crf=5)
    (shown,) = frames(tmp_path / "a.mp4", width=64, height=48)
    difference = np.abs(image(tmp_path / "a.png", FrameSpec(width=64, height=48)).astype(int) - shown)
    assert difference.mean() < 3


def test_svg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.svg"
    box = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 12">'
    path.write_text(box + '<rect width="12" height="12" fill="#ff0000"/></svg>')
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "resvg_py", None)
        with pytest.raises(
            TrichordError,
            match=r"a\.svg: SVG requires the package resvg-py, which is not installed; pip install resvg-py",
        ):
            image(path, FrameSpec())
    pytest.importorskip("resvg_py")
    decoded = image(path, FrameSpec(short_side=64))
    assert decoded.shape == (64, 128, 3)
    assert decoded[30, 30].tolist() == [255, 0, 0] and decoded[30, 100].tolist() == [255, 255, 255]
    assert image(path, FrameSpec(short_side=300, crop=200)).shape == (200, 200, 3)
    path.write_text(box.replace("viewBox", 'width="1" height="100000000" name') + "</svg>")
    with pytest.raises(TrichordError, match=r"a\.svg: a picture of 1x\d+ becomes .*; crop it or remove it"):
        image(path, FrameSpec())
    path.write_text("<svg")
    with pytest.raises(TrichordError, match=r"a\.svg: cannot be drawn \(.+\); convert it to PNG"):
        image(path, FrameSpec())


def test_refused_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(name: str, message: str) -> None:
        with pytest.raises(TrichordError, match=message) as caught:
            image(tmp_path / name, FrameSpec())
        assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path / name))

    says("gone.png", "does not exist; check the path")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    says("text.png", "is not a picture in a known format; convert it to PNG or JPEG")
    says("empty.jpg", "is not a picture in a known format")
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8))
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        noise.save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        says(name, r"cannot be decoded \(.+\); check that the file is complete|is not a picture in a known format")
    Image.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    says("bomb.png", "has more than 179 million pixels; make it smaller or remove it")
    Image.new("1", (60000, 1)).save(tmp_path / "strip.png")
    says(
        "strip.png",
        "a picture of 60000x1 becomes 15360000x256 at short side 256, which is too large; crop it or remove it",
    )
