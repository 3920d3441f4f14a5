"""The colours of systems, and the plot of the recall at every K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.report.plots_look import (
    BLUE,
    GREEN,
    GREY,
    INK,
    OTHER_COLOURS,
    PURPLE,
    RED,
    fitted,
    fitted_all,
    look,
    nothing,
    order_colours,
    panels,
    svg_text,
)
from trichord.study.figures import System

PALETTE = (BLUE, RED, GREEN, PURPLE, *OTHER_COLOURS[:4])


@dataclass(frozen=True, eq=False)
class RecallCurve:
    """The recall of one system in percent at each K."""

    label: str
    k: np.ndarray
    recall: np.ndarray
    colour: str = INK


def system_colours(systems: Sequence[System]) -> dict[str, str]:
    """Return a colour for each system. With more than eight systems, colours repeat.

    If all systems are orders and all differ, the colours are those of `order_colours`.
    """
    orders = [system.order for system in systems if system.order is not None]
    if len(set(orders)) == len(systems):
        colours = order_colours(orders)
        return {system.name: colours[order] for system, order in zip(systems, orders, strict=True)}
    return {system.name: PALETTE[i % len(PALETTE)] for i, system in enumerate(systems)}


def recall_curves(title: str, curves: Sequence[RecallCurve], chance: RecallCurve | None) -> str:
    """Draw the recall over K on a logarithmic axis, with a line for each system and a dashed line for chance."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    with look():
        if not curves:
            return svg_text(nothing("No ranks to show."))
        labels, wide = fitted_all([curve.label for curve in curves], 2.6)
        figure, (ax,) = panels(1, 1, (4.6, 2.9), left=0.6, right=wide + 0.6, top=0.28, bottom=0.5)
        for label, curve in zip(labels, curves, strict=True):
            ax.plot(curve.k, curve.recall, color=curve.colour, linewidth=1.6, label=label, zorder=3)
        handles = [Line2D([], [], color=c.colour, linewidth=1.6, label=n) for c, n in zip(curves, labels, strict=True)]
        if chance is not None:
            ax.plot(chance.k, chance.recall, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)
            handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="chance"))
        most = max(float(curve.k.max()) for curve in curves)
        ax.set_xscale("log")
        ax.set_xlim(1, max(most, 2))
        ax.set_ylim(0, 101)
        ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1,) if most > 300 else (1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.set_xlabel("K, the number of first items of the gallery")
        ax.set_ylabel("recall at K (%)")
        ax.set_title(fitted(title, 4.6))
        ax.grid()
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), handlelength=1.6)
        return svg_text(figure)
