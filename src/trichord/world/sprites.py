"""The pictures of the objects and tools of the world, each drawn by one function on a canvas of 100 x 100 units.

Objects fill the canvas. Tools are upright in the middle of the canvas, with the working end down at (50, 93), so that they can be
rotated about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
INK = "#1c1412"
_FINE = 2  # factor by which pictures are drawn larger before they are reduced


class Pen:
    """A drawing tool with dark outlines, whose unit is a hundredth of the canvas.

    Args:
        size_px: Width and height of the canvas in pixels.
    """

    def __init__(self, size_px: int) -> None:
        self.image = Image.new("RGBA", (size_px, size_px))
        self._draw = ImageDraw.Draw(self.image)
        self._scale = size_px / 100

    def _px(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._scale, y * self._scale) for x, y in points]

    def _width(self, units: float) -> int:
        return max(1, round(units * self._scale))

    def poly(self, points: Sequence[Point], fill: str, outline: str | None = INK, width: float = 2.2) -> None:
        """Draw a filled polygon."""
        px = self._px(points)
        self._draw.polygon(px, fill=fill)
        if outline:
            self._draw.line([*px, px[0], px[1]], fill=outline, width=self._width(width), joint="curve")

    def oval(self, x0: float, y0: float, x1: float, y1: float, fill: str | None, outline: str | None = INK) -> None:
        """Draw a filled ellipse."""
        self._draw.ellipse(self._px([(x0, y0), (x1, y1)]), fill=fill, outline=outline, width=self._width(2.2))

    def ring(self, x0: float, y0: float, x1: float, y1: float, color: str, width: float) -> None:
        """Draw the outline of an ellipse."""
        self._draw.ellipse(self._px([(x0, y0), (x1, y1)]), outline=color, width=self._width(width))

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: str, radius: float = 0, outline: str | None = INK
    ) -> None:
        """Draw a filled rectangle with rounded corners."""
        self._draw.rounded_rectangle(
            self._px([(x0, y0), (x1, y1)]), radius * self._scale, fill=fill, outline=outline, width=self._width(2.2)
        )

    def line(self, points: Sequence[Point], fill: str = INK, width: float = 2.2) -> None:
        """Draw a line through points."""
        self._draw.line(self._px(points), fill=fill, width=self._width(width), joint="curve")


def _arc(cx: float, cy: float, rx: float, ry: float, start_deg: float, end_deg: float, num: int = 24) -> list[Point]:
    angles = np.radians(np.linspace(start_deg, end_deg, num))
    return [(cx + rx * float(np.cos(a)), cy + ry * float(np.sin(a))) for a in angles]


def polar(
    cx: float,
    cy: float,
    radii: Sequence[float] | np.ndarray,
    angles: Sequence[float] | np.ndarray,
    *,
    flatten: float = 1.0,
) -> list[Point]:
    """Return points given by polar coordinates.

    Args:
        cx: Horizontal position of the center.
        cy: Vertical position of the center.
        radii: Distances from the center.
        angles: Angles in radians.
        flatten: Factor that multiplies vertical distances.

    Returns:
        The points.
    """
    return [
        (cx + float(r * np.cos(a)), cy + flatten * float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)
    ]


# ---- objects ----


def _tomato(pen: Pen) -> None:
    pen.oval(8, 16, 92, 94, "#e0201b")
    pen.oval(20, 30, 40, 48, "#ff8a7a", None)
    pen.poly(polar(50, 20, [26, 8] * 5, np.arange(10) * np.pi / 5 + 0.3, flatten=0.7), "#2e8b2e")
    pen.line([(50, 20), (54, 4)], "#2e6b1e", 5)


def _onion(pen: Pen) -> None:
    pen.poly([(46, 2), (54, 2), (60, 22), *_arc(50, 60, 42, 36, -55, 235), (40, 22)], "#a04a9c")
    for rx in (12, 24, 34):
        pen.line(_arc(50, 58, rx, 34, -85, 85), "#e3b7e0", 2.6)
        pen.line(_arc(50, 58, rx, 34, 95, 265), "#e3b7e0", 2.6)
    for x in (42, 47, 53, 58):
        pen.line([(50, 94), (x, 100)], "#d9c7a0", 2)


def _carrot(pen: Pen) -> None:
    for tip in ((92, 2), (98, 14), (80, 0), (98, 26)):
        pen.line([(72, 26), tip], "#2f9e3a", 7)
    pen.poly([(62, 20), (80, 38), (50, 68), (4, 97), (32, 48)], "#f57c13")
    for x, y in ((52, 34), (38, 46), (50, 50), (28, 62), (20, 78)):
        pen.line([(x, y), (x + 7, y + 8)], "#a84a00", 2.6)


def _fish(pen: Pen) -> None:
    pen.poly([(70, 50), (98, 22), (92, 50), (98, 78)], "#2a62b8")
    pen.poly([(36, 30), (50, 10), (64, 32)], "#2a62b8")
    pen.oval(2, 24, 78, 76, "#5fa4e6")
    for x in (34, 46, 58):
        for y in (40, 52, 64):
            pen.line(_arc(x, y, 5, 6, -80, 80, 8), "#24518f", 2)
    pen.line(_arc(16, 50, 12, 20, -70, 70), "#24518f", 3)
    pen.oval(10, 38, 20, 48, "#ffffff")
    pen.oval(13, 41, 17, 45, INK)


def _bread(pen: Pen) -> None:
    pen.poly([(4, 82), (3, 52), *_arc(50, 54, 47, 32, 180, 360), (97, 52), (96, 82)], "#b9712a")
    pen.box(4, 70, 96, 84, "#e2b06a", 5)
    for x in (22, 44, 66):
        pen.poly([(x, 32), (x + 7, 30), (x + 16, 60), (x + 9, 62)], "#f6dca6", "#7a4312", 1.6)


def _cheese(pen: Pen) -> None:
    pen.poly([(4, 48), (80, 14), (97, 44)], "#ffe680")
    pen.poly([(4, 48), (97, 44), (97, 84), (4, 88)], "#ffc81f")
    for x, y, r in ((22, 66, 8), (46, 58, 6), (58, 76, 8), (80, 60, 9), (36, 80, 4)):
        pen.oval(x - r, y - r, x + r, y + r, "#c98a00")


def _plank(pen: Pen) -> None:
    pen.poly([(2, 52), (78, 8), (98, 40), (22, 84)], "#d8a566")
    pen.poly([(2, 52), (22, 84), (22, 97), (2, 65)], "#8f5f2c")
    pen.poly([(22, 84), (98, 40), (98, 53), (22, 97)], "#a8743a")
    for k in (0.2, 0.4, 0.6, 0.8):
        pen.line([(2 + 20 * k + 6, 52 + 32 * k - 3), (78 + 20 * k - 6, 8 + 32 * k + 3)], "#8a5a26", 2)
    pen.oval(40, 40, 56, 54, "#7a4a1c")
    for x, y in ((20, 62), (80, 30)):
        pen.oval(x - 3, y - 3, x + 3, y + 3, "#444444")


def _bolt(pen: Pen) -> None:
    pen.box(34, 30, 66, 97, "#a9b4bd")
    for y in range(44, 96, 8):
        pen.line([(32, y + 5), (68, y - 3)], "#4a555e", 3.5)
    pen.poly([(10, 20), (24, 3), (76, 3), (90, 20), (76, 36), (24, 36)], "#7d8a95")
    pen.poly([(24, 3), (76, 3), (76, 36), (24, 36)], "#cfd8de")


def _brick(pen: Pen) -> None:
    pen.poly([(2, 46), (22, 22), (98, 22), (80, 46)], "#d9694f")
    pen.poly([(80, 46), (98, 22), (98, 62), (80, 88)], "#7c2a1c")
    pen.box(2, 46, 80, 88, "#b03f2a")
    for x in (24, 46, 68):
        pen.oval(x - 3, 28, x + 11, 40, "#3c120b")
    for x, y in ((14, 58), (30, 74), (50, 60), (66, 76), (40, 80), (68, 54)):
        pen.oval(x - 2, y - 2, x + 2, y + 2, "#e08a74", None)


def _pot(pen: Pen) -> None:
    pen.ring(0, 42, 24, 66, INK, 6)
    pen.ring(76, 42, 100, 66, INK, 6)
    pen.poly([(12, 36), (88, 36), (82, 92), (18, 92)], "#12a5a0")
    pen.line([(16, 66), *[(22 + 8 * i, 58 if i % 2 else 74) for i in range(8)], (84, 66)], "#f4fbfa", 4)
    pen.poly(_arc(50, 36, 44, 20, 180, 360), "#0c7f7b")
    pen.oval(42, 4, 58, 20, "#222222")


def _fern(pen: Pen) -> None:
    for angle in (-75, -48, -20, 8, 36, 64):
        a = np.radians(angle - 90 + 6)
        dx, dy = float(np.cos(a)), float(np.sin(a))
        length = 86 - abs(angle) * 0.35
        pen.line([(50, 96), (50 + dx * length, 96 + dy * length)], "#145c1c", 2.6)
        for k in np.linspace(0.3, 1, 8):
            x, y, leaf = 50 + dx * length * k, 96 + dy * length * k, 15 * (1.25 - k)
            for side in (-1, 1):
                tip = (x + leaf * (0.6 * dx - side * dy), y + leaf * (0.6 * dy + side * dx))
                pen.poly([(x, y), (x + dx * 5, y + dy * 5), tip], "#39b54a", "#1d7a2a", 1)


def _cloth(pen: Pen) -> None:
    pen.poly([(6, 12), (50, 20), (94, 8), (88, 50), (96, 92), (50, 84), (4, 96), (12, 52)], "#ff7eb6")
    for k in range(1, 6):
        s = k / 6
        pen.line([(6 + 88 * s, 15), (8 + 84 * s, 90)], "#ffffff", 5.5)
        pen.line([(9, 12 + 80 * s), (91, 10 + 80 * s)], "#ffe3f0", 5.5)
    pen.line([(6, 12), (50, 20), (94, 8), (88, 50), (96, 92), (50, 84), (4, 96), (12, 52), (6, 12)])


def _boot(pen: Pen) -> None:
    pen.poly([(30, 4), (74, 4), (74, 84), (4, 84), (4, 66), (26, 54), (32, 46)], "#5a3217")
    pen.box(2, 82, 76, 94, "#1b1b1b")
    pen.box(58, 88, 78, 98, "#1b1b1b")
    pen.box(28, 3, 76, 16, "#8a5a30", 3)
    for y in (24, 34, 44, 54):
        pen.line([(28, y), (46, y + 5)], "#ffd23f", 4)


def _candle(pen: Pen) -> None:
    pen.poly([(50, 0), (62, 18), (50, 30), (38, 18)], "#ffb000", "#ff5a00", 3)
    pen.line([(50, 24), (50, 38)], INK, 3)
    pen.box(22, 36, 78, 92, "#fbf6e6", 4)
    pen.poly([(24, 40), (42, 40), (40, 60), (32, 66), (24, 58)], "#dccfa4", None)
    pen.poly([(60, 40), (76, 40), (76, 76), (66, 70)], "#dccfa4", None)
    pen.oval(4, 82, 96, 99, "#c9a227")


def _melon(pen: Pen) -> None:
    pen.oval(2, 18, 98, 90, "#4fb83d")
    for rx in (8, 26, 42):
        for begin, end in ((-88, 88), (92, 268)):
            pen.line(_arc(50, 54, rx, 35, begin, end), "#145c1c", 5)
    pen.oval(2, 18, 98, 90, None)
    pen.line([(50, 18), (56, 6)], "#7a5a20", 5)


def _wheel(pen: Pen) -> None:
    pen.oval(2, 2, 98, 98, "#161616")
    pen.oval(18, 18, 82, 82, "#d9dde0")
    for k in range(6):
        a = k * np.pi / 3
        pen.line([(50, 50), (50 + 31 * float(np.cos(a)), 50 + 31 * float(np.sin(a)))], "#3a3f44", 6)
    pen.oval(40, 40, 60, 60, "#e0201b")


def _covered(pen: Pen) -> None:
    pen.poly([(10, 92), (18, 30), (36, 14), (66, 16), (84, 34), (92, 92)], "#a39c92")
    for x in (30, 50, 68):
        pen.line([(x, 26), (x - 6, 90)], "#7e776d", 2.6)


# ---- tools: the working end is down ----


def _handle(pen: Pen, color: str, y0: float = 4, y1: float = 44, half: float = 6) -> None:
    pen.box(50 - half, y0, 50 + half, y1, color, half * 0.8)


def _knife(pen: Pen) -> None:
    pen.poly([(36, 36), (68, 36), (68, 60), (48, 98), (36, 92)], "#e8edf0")
    pen.line([(61, 40), (61, 60), (46, 90)], "#8e9aa3", 2.4)
    _handle(pen, "#1d1d1d", 2, 40, 10)


def _spoon(pen: Pen) -> None:
    _handle(pen, "#c98d4a", 2, 62, 5.5)
    pen.oval(28, 54, 72, 98, "#c98d4a")
    pen.oval(35, 61, 65, 91, "#8d5a22")


def _hammer(pen: Pen) -> None:
    _handle(pen, "#c58a3d", 3, 78, 6)
    pen.box(22, 70, 78, 94, "#5b646b", 3)
    pen.box(14, 66, 30, 97, "#3d444a", 3)
    pen.poly([(78, 72), (94, 82), (78, 92)], "#5b646b")


def _brush(pen: Pen) -> None:
    _handle(pen, "#c3122f", 3, 52, 6)
    pen.box(34, 48, 66, 64, "#d5d8da", 1)
    pen.poly([(34, 64), (66, 64), (70, 92), (60, 98), (40, 98), (30, 92)], "#f1dd9b")
    for x in (38, 44, 50, 56, 62):
        pen.line([(50 + (x - 50) * 0.9, 66), (x, 94)], "#9b7b2a", 1.8)


def _saw(pen: Pen) -> None:
    teeth = [(66 - (1 if i % 2 else 11) + (0 if i % 2 else 4), 36 + i * 4.6) for i in range(13)]
    pen.poly([(34, 34), (66, 34), *teeth, (52, 98), (40, 98)], "#cfd6db", width=1.6)
    pen.box(26, 3, 72, 36, "#f08a1d", 8)
    pen.box(38, 12, 60, 26, "#00000000", 6)


def _jug(pen: Pen) -> None:
    pen.ring(60, 26, 92, 66, "#1b3f8f", 8)
    pen.poly([(22, 14), (72, 14), (78, 90), (28, 92), (26, 40), (12, 20)], "#2f6fe0")
    pen.line([(36, 30), (40, 80)], "#a9c8ff", 6)
    pen.oval(26, 8, 72, 22, "#123070")


def _roller(pen: Pen) -> None:
    _handle(pen, "#188a3a", 3, 40, 7)
    pen.line([(50, 40), (50, 58), (90, 58), (90, 82), (80, 82)], "#555555", 4.5)
    pen.box(12, 68, 82, 96, "#f7f7f2", 6)
    for x in (26, 40, 54, 68):
        pen.line([(x, 70), (x, 94)], "#c9c9c0", 2)


def _scissors(pen: Pen) -> None:
    pen.poly([(44, 40), (54, 40), (72, 96), (62, 90)], "#dfe5e9")
    pen.poly([(56, 40), (46, 40), (28, 96), (38, 90)], "#c3ccd2")
    pen.oval(46, 48, 54, 56, "#444444")
    pen.ring(18, 4, 48, 42, "#e0207a", 8)
    pen.ring(52, 4, 82, 42, "#e0207a", 8)


def _fork(pen: Pen) -> None:
    _handle(pen, "#7c8790", 2, 52, 5)
    pen.poly([(24, 48), (76, 48), (72, 70), (28, 70)], "#c2ccd3")
    for x in (25, 39, 53, 67):
        pen.box(x, 60, x + 8, 98, "#c2ccd3", 3)


def _wrench(pen: Pen) -> None:
    _handle(pen, "#e8c31a", 3, 62, 8)
    left = [(38, 78), (40, 92), (26, 97), (20, 74)]
    pen.poly([(38, 56), (62, 56), (80, 74), (74, 97), (60, 92), (62, 78), *left], "#6b757d")


def _hand(pen: Pen) -> None:
    pen.box(36, 3, 64, 50, "#e9b48c", 8)
    pen.oval(28, 40, 72, 80, "#e9b48c")
    for x in (30, 40, 50, 60):
        pen.box(x, 66, x + 9, 97, "#e9b48c", 4)


_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "tomato": _tomato, "onion": _onion, "carrot": _carrot, "fish": _fish, "bread": _bread, "cheese": _cheese,
    "plank": _plank, "bolt": _bolt, "brick": _brick, "pot": _pot, "fern": _fern, "cloth": _cloth, "boot": _boot,
    "candle": _candle, "melon": _melon, "wheel": _wheel, "covered": _covered, "knife": _knife, "spoon": _spoon,
    "hammer": _hammer, "brush": _brush, "saw": _saw, "jug": _jug, "roller": _roller, "scissors": _scissors,
    "fork": _fork, "wrench": _wrench, "hand": _hand,
}  # fmt: skip


def recolor(image: Image.Image, *, hue: float, light: float) -> Image.Image:
    """Change the hue and the brightness of a picture.

    Args:
        image: RGBA picture.
        hue: Shift of the hue, where 1 is a full turn.
        light: Factor that multiplies the brightness.

    Returns:
        RGBA picture.
    """
    h, s, v = image.convert("RGB").convert("HSV").split()
    h = h.point(partial(_turned, hue))
    v = v.point(partial(_lit, light))
    colored = Image.merge("HSV", (h, s, v)).convert("RGB")
    colored.putalpha(image.getchannel("A"))
    return colored


def _turned(hue: float, value: int) -> int:
    return round(value + hue * 255) % 256


def _lit(light: float, value: int) -> int:
    return min(255, round(value * light))


def sprite(name: str, size_px: int, *, hue: float = 0.0, light: float = 1.0) -> Image.Image:
    """Draw an object or a tool.

    Args:
        name: Name of an object or tool, "covered" for a hidden object, or "hand" for a hand without a tool.
        size_px: Width and height in pixels.
        hue: Shift of the hue, where 1 is a full turn.
        light: Factor that multiplies the brightness.

    Returns:
        RGBA picture.
    """
    pen = Pen(size_px * _FINE)
    _DRAWINGS[name](pen)
    return recolor(pen.image.reduce(_FINE), hue=hue, light=light)
