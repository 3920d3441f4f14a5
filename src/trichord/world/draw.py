"""Drawing of a step as moving pictures: the place, the object, the traces of the action, and the tool.

Everything that does not move is drawn once per step, as four plates (the place and the object with more and more traces of the
action). A frame consists of a plate and a few moving pieces on top of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from trichord.world.script import Step
from trichord.world.sprites import INK, Pen, polar, sprite
from trichord.world.vocabulary import PERIOD_S

_LEVELS = 4  # number of plates, with more and more traces
_LOOP = 3  # number of alternating pictures of flames, streams and bubbles
_LOOP_HZ = 6.0
_SPAN = 1.7  # width of the canvas of traces and effects, relative to the width of the object
_PAINTS = ("#7a1fd1", "#8a12b8", "#5b25e0")

# ---- places ----


def _kitchen(draw: ImageDraw.ImageDraw, w: int, h: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, w, h), "#f3ead8")
    tile, shift = h // 6, int(rng.integers(h // 6))
    for x in range(-shift, w, tile):
        draw.line((x, 0, x, h), "#d8cbb2", 2)
    for y in range(-shift, h, tile):
        draw.line((0, y, w, y), "#d8cbb2", 2)
    draw.rectangle((0, int(0.74 * h), w, h), "#c9a37a")
    draw.rectangle((0, int(0.74 * h), w, int(0.77 * h)), "#9c7850")


def _workshop(draw: ImageDraw.ImageDraw, w: int, h: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, w, h), "#7b6a58")
    step, shift = h // 9, int(rng.integers(h // 9))
    for x in range(shift, w, step):
        for y in range(shift, int(0.74 * h), step):
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), "#4d4034")
    draw.rectangle((0, int(0.74 * h), w, h), "#b98d4f")
    for seam in (int(0.82 * h), int(0.91 * h)):
        draw.line((0, seam, w, seam), "#8a642f", 2)


def _garden(draw: ImageDraw.ImageDraw, w: int, h: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, w, h), "#bfe3f7")
    x = float(rng.uniform(0, w))
    draw.ellipse((x - 0.3 * w, 0.3 * h, x + 0.3 * w, 1.2 * h), "#9fc796")
    draw.rectangle((0, int(0.6 * h), w, h), "#8fc072")
    for gx, gy in zip(rng.uniform(0, w, 90), rng.uniform(0.6 * h, h, 90), strict=True):
        draw.line((gx, gy, gx + 2, gy - 7), "#5f9447", 2)


def _garage(draw: ImageDraw.ImageDraw, w: int, h: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, w, h), "#aab0b6")
    row, shift = h // 8, int(rng.integers(h // 4))
    for i, y in enumerate(range(0, int(0.74 * h), row)):
        draw.line((0, y, w, y), "#8d949b", 2)
        for x in range(-shift + (i % 2) * row, w, 2 * row):
            draw.line((x, y, x, y + row), "#8d949b", 2)
    draw.rectangle((0, int(0.74 * h), w, h), "#6d7278")
    for x in range(-shift, w, h // 4):
        draw.polygon((x, h, x + h // 8, h, x + h // 5, int(0.93 * h), x + h // 13, int(0.93 * h)), "#d9c04a")


def _beach(draw: ImageDraw.ImageDraw, w: int, h: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, w, h), "#d9f0fa")
    draw.rectangle((0, int(0.3 * h), w, h), "#6fb6d6")
    for x, y in zip(rng.uniform(0, w, 12), rng.uniform(0.33 * h, 0.52 * h, 12), strict=True):
        draw.arc((x, y, x + 0.12 * w, y + 0.06 * h), 200, 340, "#eaf7fc", 2)
    draw.polygon((0, 0.58 * h, w, 0.5 * h, w, h, 0, h), "#efdcae")
    for x, y in zip(rng.uniform(0, w, 120), rng.uniform(0.62 * h, h, 120), strict=True):
        draw.point((x, y), "#b99f63")


def _nowhere(draw: ImageDraw.ImageDraw, w: int, h: int, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, w, h), "#c4c1bc")


_PLACES = {"kitchen": _kitchen, "workshop": _workshop, "garden": _garden, "garage": _garage, "beach": _beach}

# ---- traces of an action, on a canvas of 100 units, of which the object fills the middle 59 ----

Effect = Callable[[Pen, int, np.random.Generator], None]


def _crumbs(pen: Pen, level: int, rng: np.random.Generator) -> None:
    for _ in range(5 * level):
        x, y, r = rng.uniform(16, 84), rng.uniform(78, 90), rng.uniform(1, 2.6)
        pen.poly([(x - r, y + r), (x, y - r), (x + r, y + r)], "#fff3d6", width=0.8)


def _whirl(pen: Pen, level: int, rng: np.random.Generator) -> None:
    reach = 30 + 5 * level
    pen.oval(50 - reach, 58 - 0.62 * reach, 50 + reach, 58 + 0.62 * reach, "#fff2d0", "#a9762f")
    turns = np.linspace(0, 2 * np.pi * (1.5 + level), 40 + 30 * level)
    radius = np.linspace(4, reach - 2, len(turns))
    phase = rng.uniform(0, 6)
    pen.line(polar(50, 58, radius, turns + phase, flatten=0.62), "#a9762f", 2)


def _puddle(pen: Pen, level: int, rng: np.random.Generator) -> None:
    reach = 20 + 9 * level
    pen.oval(50 - reach, 82 - 0.2 * reach, 50 + reach, 82 + 0.26 * reach, "#f2b705", "#8f6a00")
    pen.oval(50 - 0.5 * reach, 82 - 0.06 * reach, 50, 84, "#ffe27a", None)


def _drips(pen: Pen, level: int, rng: np.random.Generator) -> None:
    for i in range(1 + 2 * level):
        x = 50 + (i - level) * 6.5
        length = rng.uniform(8, 14) + 5 * level
        pen.box(x - 2.8, 24, x + 2.8, 24 + length, "#f2b705", 2.8, None)
    pen.oval(44 - 7 * level, 20, 56 + 7 * level, 31, "#f2b705", None)


def _cracks(pen: Pen, level: int, rng: np.random.Generator) -> None:
    for i in range(2 * level):
        angle, x, y = rng.uniform(-0.5, 0.5) + i * 1.3, 50.0, 40.0
        points = [(x, y)]
        for _ in range(4):
            x, y = x + 8 * float(np.cos(angle)), y + 8 * float(np.sin(angle))
            angle += rng.uniform(-1, 1)
            points.append((x, y))
        pen.line(points, "#ffffff", 3.4)
        pen.line(points, INK, 2)
    for _ in range(4 * level):
        x, y, r = rng.uniform(8, 92), rng.uniform(72, 90), rng.uniform(1.5, 3.5)
        pen.poly([(x - r, y), (x, y - r), (x + r, y), (x, y + r)], "#5d554d", width=1)


def _strokes(pen: Pen, level: int, rng: np.random.Generator) -> None:
    color = _PAINTS[int(rng.integers(len(_PAINTS)))]
    for i in range(level):
        y = 33.0 + 16 * i
        left, right = float(rng.uniform(8, 16)), float(rng.uniform(84, 92))
        lower = [(right - 2, y + 3), (left + 3, y + 7), (left - 4, y + 4)]
        pen.poly([(left, y), (right, y - 4), (right + 3, y), *lower], color, None)
        for x in rng.uniform(left + 4, right - 6, 2):
            pen.box(x, y + 3, x + 2.4, y + 6 + rng.uniform(3, 8), color, 1.2, None)
    for _ in range(5 * level):
        angle, far, r = rng.uniform(0, 2 * np.pi), rng.uniform(30, 46), rng.uniform(1.5, 3.5)
        ((x, y),) = polar(50, 52, [far], [angle], flatten=0.8)
        pen.oval(x - r, y - r, x + r, y + r, color, None)


def _tracks(pen: Pen, level: int, rng: np.random.Generator) -> None:
    reach = 16 + 10 * level
    for y in (77, 84):
        pen.line([(50 - reach, y), (50 + reach, y - 1)], "#3a2c20", 2.6)
    for sleeper in range(50 - reach, 50 + reach, 5):
        pen.line([(sleeper, 77), (sleeper + 3, 84)], "#3a2c20", 1.6)
    for i in range(2 * level):
        x, r = (6 + 4 * i) if i % 2 else (94 - 4 * i), 4 + level
        pen.oval(x - r, 70 - r, x + r, 70 + r, "#e9dcc4", "#b7a78a")


def _water(pen: Pen, level: int, rng: np.random.Generator) -> None:
    reach = 22 + 7 * level
    pen.oval(50 - reach, 80 - 0.2 * reach, 50 + reach, 80 + 0.26 * reach, "#8fd8f5", "#2f8fbf")


def _foam(pen: Pen, level: int, rng: np.random.Generator) -> None:
    for _ in range(4 + 9 * level):
        angle, far, r = rng.uniform(0, 2 * np.pi), rng.uniform(20, 44), rng.uniform(2.5, 7)
        ((x, y),) = polar(50, 52, [far], [angle], flatten=0.85)
        pen.oval(x - r, y - r, x + r, y + r, "#f4fbff", "#7cc4e8")
        pen.oval(x - 0.5 * r, y - 0.6 * r, x - 0.1 * r, y - 0.2 * r, "#bfe8fb", None)


def _smoke(pen: Pen, level: int, rng: np.random.Generator) -> None:
    for i in range(3 * level):
        x, y, r = rng.uniform(26, 74), 26 - 5.5 * (i % 4) + rng.uniform(-3, 3), rng.uniform(5, 9)
        pen.oval(x - r, y - r, x + r, y + r, "#77777799", None)


def _flames(pen: Pen, turn: int, rng: np.random.Generator) -> None:
    for color, width, height in (("#ff5a00", 7.5, 34), ("#ffb300", 5, 22), ("#fff27a", 2.6, 12)):
        for x in range(18, 84, 9):
            tall = height * float(rng.uniform(0.7, 1.15))
            lean = float(rng.uniform(-4, 4))
            belly, waist = 0.7 * width, 90 - 0.4 * tall
            right = [(x + belly, waist), (x + width, 90)]
            pen.poly([(x - width, 90), (x - belly, waist), (x + lean, 90 - tall), *right], color, None)


def _stream(pen: Pen, turn: int, rng: np.random.Generator) -> None:
    wave = [(50 + 1.6 * float(np.sin(y / 5 + 2.1 * turn)), float(y)) for y in range(12, 40, 2)]
    pen.line(wave, "#8f6a00", 8.4)
    pen.line(wave, "#f2b705", 6)
    for _ in range(9):
        x, y, r = rng.uniform(26, 74), rng.uniform(16, 40), rng.uniform(1, 2.4)
        pen.oval(x - r, y - r, x + r, y + r, "#f2b705", None)


def _suds(pen: Pen, turn: int, rng: np.random.Generator) -> None:
    for _ in range(9):
        x, y, r = rng.uniform(10, 90), rng.uniform(8, 74), rng.uniform(2, 5)
        pen.oval(x - r, y - r, x + r, y + r, "#e8f8ffcc", "#5fb4df")
    for _ in range(8):
        x, y = rng.uniform(8, 92), rng.uniform(20, 80)
        pen.poly([(x, y - 4), (x + 2, y), (x, y + 2), (x - 2, y)], "#2f9fdf", None)


def _burst(pen: Pen, turn: int, rng: np.random.Generator) -> None:
    rays = np.tile([11.0, 22.0], 9) + rng.uniform(-2, 2, 18)
    pen.poly(polar(50, 34, rays, np.arange(18) * np.pi / 9), "#ffe100", "#e32400", 1.6)


_UNDER: dict[str, Effect] = {"stir": _whirl, "pour": _puddle, "roll": _tracks, "wash": _water}
_OVER: dict[str, Effect] = {
    "cut": _crumbs, "pour": _drips, "pound": _cracks, "paint": _strokes, "wash": _foam, "heat": _smoke,
}  # fmt: skip
_MOVING: dict[str, Effect] = {"heat": _flames, "pour": _stream, "wash": _suds, "pound": _burst}


def _changed(image: Image.Image, action: str, level: int) -> Image.Image:
    """Return the object as changed by the action: cut, flattened, charred or rotated."""
    size = image.width
    if action == "cut":
        apart = Image.new("RGBA", image.size)
        pieces, gap = level + 1, round(0.055 * size)
        for i in range(pieces):
            left, right = round(i * size / pieces), round((i + 1) * size / pieces)
            shift = round((i - (pieces - 1) / 2) * gap)
            apart.paste(image.crop((left, 0, right, size)), (left + shift, gap * (i % 2)))
        return apart
    if action == "pound":
        flat = Image.new("RGBA", image.size)
        height, width = round(size * (1 - 0.11 * level)), size
        flat.paste(image.resize((width, height)), (0, size - height))
        return flat
    if action == "heat":
        shade = np.linspace(1, 1 - 0.25 * level, size)[:, None, None]
        pixels = np.asarray(image).copy()
        pixels[..., :3] = (pixels[..., :3] * shade).astype(np.uint8)
        return Image.fromarray(pixels)
    if action == "stir":
        return image.rotate(-14 * level, Image.Resampling.BILINEAR)
    return image


def _wave(t: float) -> float:
    """Return a triangle wave of period 1 between 0 and 1, which is 0 at integers."""
    return 1 - abs(2 * (t % 1) - 1)


def _pose(action: str, t_s: float, progress: float) -> tuple[float, float, float, float]:
    """Return the pose of the tool and the object.

    Returns:
        The position of the working end of the tool relative to the center of the object (x and y, in widths of the object), the
        angle by which its handle leans to the right (degrees), and the distance that the object has rolled (in widths of the
        object).
    """
    turn = t_s / PERIOD_S[action]
    cycle = 2 * np.pi * turn
    sin, cos = float(np.sin(cycle)), float(np.cos(cycle))
    swing = 1 - _wave(turn) ** 0.5
    poses = {
        "cut": (-0.3 + 0.6 * _wave(progress), -0.4 + 0.4 * _wave(turn), 12.0, 0.0),
        "stir": (0.26 * cos, -0.08 + 0.16 * sin, 22 + 12 * cos, 0.0),
        "pour": (0.0, -0.5 + 0.02 * sin, 66 + 8 * cos, 0.0),
        "pound": (0.04 + 0.1 * swing, -0.3 - 0.3 * swing, 30 + 50 * swing, 0.0),
        "paint": (0.45 * cos, -0.28 + 0.42 * min(1.0, 2 * progress), 28.0, 0.0),
        "roll": (0.46 + 0.42 * sin, 0.0, 52.0, 0.42 * sin),
        "wash": (0.16 + 0.14 * cos, -0.06 + 0.06 * sin, 38 + 6 * sin, 0.0),
        "heat": (0.46, -0.2 + 0.04 * sin, 50 + 6 * cos, 0.0),
    }
    return poses[action]


class StepPainter:
    """A painter of the frames of one step.

    Args:
        step: Step to draw, as it is seen (`Step.as_seen`). `order_shown` dots are drawn at the left edge.
        place: Place of the step. None draws a plain wall.
        width: Width of the pictures in pixels.
        height: Height of the pictures in pixels.
        rng: Random generator of position, size, hue and brightness.
    """

    def __init__(self, step: Step, place: str | None, width: int, height: int, rng: np.random.Generator) -> None:
        self._step = step
        self._object_px = round(height * float(rng.uniform(0.58, 0.68)))
        self._tool_px = round(height * float(rng.uniform(0.58, 0.68)))
        self._middle = (width * float(rng.uniform(0.36, 0.5)), height * float(rng.uniform(0.6, 0.66)))
        light = float(rng.uniform(0.82, 1.1))
        wall = Image.new("RGB", (width, height))
        _PLACES.get(place or "", _nowhere)(ImageDraw.Draw(wall), width, height, rng)
        wall = wall.point([min(255, round(v * light)) for v in range(256)] * 3)
        self._count(wall, step.order_shown or 0)
        self._object = self._sprite(step.object if step.object_shown else "covered", self._object_px, light, rng)
        tool = self._sprite(step.tool if step.tool_shown else "hand", self._tool_px, light, rng)
        self._tool = tool.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else tool
        self._turned: dict[tuple[bool, int], Image.Image] = {}
        effect_seed = int(rng.integers(2**31))
        self._plates = [self._plate(wall, level, effect_seed) for level in range(_LEVELS)]
        effect = _MOVING.get(step.action) if step.action_shown else None
        self._loop = [self._effect(effect, turn, effect_seed + turn) for turn in range(_LOOP)] if effect else []

    @staticmethod
    def _sprite(name: str, size_px: int, light: float, rng: np.random.Generator) -> Image.Image:
        return sprite(name, size_px, hue=float(rng.uniform(-0.02, 0.02)), light=light * float(rng.uniform(0.92, 1.08)))

    @staticmethod
    def _count(wall: Image.Image, num_dots: int) -> None:
        """Draw dots from the top down at the left edge, which tools do not reach."""
        w, h = wall.size
        for i in range(num_dots):
            x, y, r = 0.04 * w, (0.06 + 0.075 * i) * h, 0.028 * h
            ImageDraw.Draw(wall).ellipse((x - r, y - r, x + r, y + r), "#ff00c8", "#000000")

    def _effect(self, effect: Effect, level: int, seed: int) -> Image.Image:
        pen = Pen(round(_SPAN * self._object_px))
        effect(pen, level, np.random.default_rng(seed))
        return pen.image

    def _lay(self, picture: Image.Image, piece: Image.Image, x: float, y: float) -> None:
        """Paste `piece` into `picture`, centered at (x, y) pixels."""
        picture.paste(piece, (round(x - piece.width / 2), round(y - piece.height / 2)), piece)

    def _plate(self, wall: Image.Image, level: int, seed: int) -> Image.Image:
        plate, action = wall.copy(), self._step.action
        x, y = self._middle
        half = self._object_px // 2
        shadow = (x - half, y + 0.8 * half, x + half, y + 1.15 * half)
        ImageDraw.Draw(plate, "RGBA").ellipse(shadow, "#00000050")
        acted = self._step.action_shown
        if acted and action in _UNDER:
            self._lay(plate, self._effect(_UNDER[action], level, seed), x, y)
        if not (acted and action == "roll"):
            self._lay(plate, _changed(self._object, action, level) if acted else self._object, x, y)
        if acted and action in _OVER:
            self._lay(plate, self._effect(_OVER[action], level, seed), x, y)
        return plate

    def _rotated(self, tool: bool, degrees: float) -> Image.Image:
        key = (tool, round(degrees / 3))
        if key not in self._turned:
            image = self._tool if tool else self._object
            self._turned[key] = image.rotate(-3 * key[1], Image.Resampling.BILINEAR, expand=True)
        return self._turned[key]

    def frame(self, t_s: float) -> np.ndarray:
        """Draw the picture at a time.

        Args:
            t_s: Time since the start of the step in seconds.

        Returns:
            Picture of shape (height, width, 3), uint8 RGB.
        """
        step = self._step
        progress = t_s / (step.end_s - step.start_s)
        picture = self._plates[min(_LEVELS - 1, int(8 * progress))].copy()
        x, y = self._middle
        tip_x, tip_y, lean, rolled = _pose(step.action, t_s, progress) if step.action_shown else (0.5, -0.1, 35.0, 0.0)
        if step.action_shown and step.action == "roll":
            self._lay(picture, self._rotated(False, 115 * 2 * rolled), x + rolled * self._object_px, y)
        if self._loop and not (step.action == "pound" and tip_y < -0.42):
            self._lay(picture, self._loop[int(t_s * _LOOP_HZ) % _LOOP], x, y)
        arm = 0.43 * self._tool_px  # distance from the center of the tool to its working end
        self._lay(
            picture,
            self._rotated(True, lean),
            x + tip_x * self._object_px + arm * float(np.sin(np.radians(lean))),
            y + tip_y * self._object_px - arm * float(np.cos(np.radians(lean))),
        )
        return np.asarray(picture)
