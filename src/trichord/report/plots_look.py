"""The common style of the plots: colours, fonts, sizes, panels, and the SVG text of a figure.

Nothing depends on the time, on random numbers or on the matplotlibrc of the user, so equal data give equal text. Text is stored
as text (`svg.fonttype` none) and laid out with the widths of DejaVu Sans. If a reader lacks this font, the usual sans-serif fonts
are narrower, so that nothing overlaps. The colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.modalities.registry import specification
from trichord.modality import Order, known, letter_of, name_of
from trichord.study.drawing import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = 9.375  # inches: 900 CSS pixels
RASTER_ABOVE = 800  # number of points above which they are drawn as an embedded picture
INK, GREY, LIGHT = "#222222", "#808080", "#dddddd"
BLUE, RED, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
STUDY_COLOURS = {"av>t": BLUE, "av": BLUE, "at>v": RED, "at": RED, "vt>a": GREEN, "vt": GREEN, "avt": PURPLE}
FURTHER_COLOURS = (GREEN, PURPLE, BLUE, RED, "#8c6d00", "#f0e442")  # of modalities without a colour of their own
OTHER_COLOURS = ("#56b4e9", "#e69f00", "#000000", "#8c6d00", "#f0e442", BLUE, RED, GREEN, PURPLE)
LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trichord",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "figure.dpi": 120,
}


@contextmanager
def look() -> Iterator[None]:
    """Apply the common style within the context, without warnings about letters that the font lacks."""
    with drawing(LOOK):
        yield


def svg_text(figure: Figure) -> str:
    """Return the figure as SVG. Call it within `look`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def order_colours(orders: Iterable[Order]) -> dict[Order, str]:
    """Return a colour for each order.

    The four orders of V, A and T have the same colour in every study, and a first stage has the colour of its order (`av` that of
    `av>t`). Other orders take the next free colour. With more than nine of them, colours repeat.
    """
    orders = list(dict.fromkeys(orders))
    others = [order.code for order in orders if order.code not in STUDY_COLOURS]
    colours = STUDY_COLOURS | {code: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, code in enumerate(others)}
    return {order: colours[order.code] for order in orders}


def with_colours(orders: Iterable[Order], colours: Mapping[Order, str] | None) -> dict[Order, str]:
    """Return the given colours, completed by `order_colours` for orders without one."""
    return {order: (colours or {}).get(order, colour) for order, colour in order_colours(orders).items()}


def modality_colour(modality: str) -> str:
    """Return the colour of a modality, given its name or letter. An unknown modality is grey.

    The specification of the modality may define the colour. Other modalities get a colour of the palette that depends on their
    name, or the next free one if a modality that comes before in the alphabet has it. With more than six of them, colours repeat.
    """
    name = name_of(letter_of(modality))
    if name not in known():
        return GREY
    own = {m: specification(m).colour for m in known()}
    taken: list[int] = []
    for other in [m for m, colour in own.items() if not colour]:
        first = zlib.crc32(other.encode()) % len(FURTHER_COLOURS)
        places = [(first + step) % len(FURTHER_COLOURS) for step in range(len(FURTHER_COLOURS))]
        taken.append(next((place for place in places if place not in taken), first))
        own[other] = FURTHER_COLOURS[taken[-1]]
    return own[name]


def plain(text: object) -> str:
    """Return the text as one printable line. Control characters and white space become single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def text_width(text: str, size: float = 9) -> float:
    """Return the width of a line of text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size)
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / 72 if text else 0.0


def fitted(text: object, width: float, size: float = 9) -> str:
    """Return the text as one line of at most `width` inches. A longer text is cut and ends in '…'."""
    line = plain(text)[:400]
    if text_width(line, size) <= width:
        return line
    low, high = 0, len(line)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if text_width(line[:middle] + "…", size) <= width else (low, middle)
    return line[:low].rstrip() + "…"


def fitted_all(texts: Sequence[object], most: float, size: float = 8) -> tuple[list[str], float]:
    """Return the texts cut to `most` inches, and the width of the widest."""
    lines = [fitted(text, most, size) for text in texts]
    return lines, max((text_width(line, size) for line in lines), default=0.0)


def panels(
    num: int,
    columns: int,
    size: tuple[float, float],
    *,
    left: float,
    right: float = 0.1,
    top: float = 0.28,
    bottom: float = 0.5,
    across: float = 0.3,
    head: float = 0.0,
    minimum: float = 0.0,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `num` equal panels in rows of `columns`, and its axes row by row. All lengths are in inches.

    Args:
        num: Number of panels.
        columns: Number of panels in a row.
        size: Width and height of the axes of a panel.
        left: Left margin of the figure, with the labels of the first panel.
        right: Right margin of the figure.
        top: Space above every panel, for its title.
        bottom: Space below every panel, for its ticks.
        across: Space between adjacent panels of a row.
        head: Space above all panels, for a legend.
        minimum: Minimum width of the figure.
    """
    from matplotlib.figure import Figure

    columns = min(columns, num)
    rows = -(-num // columns)
    width = max(left + columns * size[0] + (columns - 1) * across + right, minimum)
    height = head + rows * (top + size[1] + bottom)
    figure = Figure(figsize=(width, height))
    axes = []
    for i in range(num):
        row, column = divmod(i, columns)
        x = left + column * (size[0] + across)
        y = height - head - row * (top + size[1] + bottom) - top - size[1]
        axes.append(figure.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return figure, axes


def nothing(text: str) -> Figure:
    """Return a figure with a text that explains why there is nothing to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PAGE / 2, 0.6))
    figure.text(0.02, 0.5, text, color=GREY, va="center")
    return figure


def legend(figure: Figure, handles: Sequence[Any], left: float = 0.1, columns: int = 8) -> None:
    """Draw a legend at the top of the figure, `left` inches from its edge, with at most `columns` handles in a line."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(left / width, 1 - 0.02 / height),
        ncols=min(columns, max(len(handles), 1)),
        borderaxespad=0.2,
        borderpad=0.2,
        handlelength=1.2,
        handletextpad=0.4,
        columnspacing=1.4,
    )


def marker(label: str, colour: str, shape: str = "o", *, filled: bool = True, size: float = 5) -> Any:
    """Return a handle for a legend."""
    from matplotlib.lines import Line2D

    face = colour if filled else "white"
    return Line2D(
        [], [], linestyle="none", marker=shape, color=colour, markerfacecolor=face, markersize=size, label=label
    )


def finite(values: Iterable[Any]) -> np.ndarray:
    """Return the finite numbers among values as an array (n,), float64. None is not finite."""
    array = np.array(
        [np.nan if v is None else v for v in np.ravel(np.asarray(list(values), dtype=object))], dtype=float
    )
    return array[np.isfinite(array)]


def label_rows(ax: Axes, labels: Sequence[str], colours: Sequence[str] | None = None) -> None:
    """Arrange rows 0, 1, ... from top to bottom, and write their labels in `colours`, or none if it is None."""
    ax.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    ax.set_yticks(range(len(labels)), labels if colours is not None else [""] * len(labels))
    ax.tick_params(axis="y", length=0)
    for tick, colour in zip(ax.get_yticklabels(), colours or [], strict=False):
        tick.set_color(colour)
