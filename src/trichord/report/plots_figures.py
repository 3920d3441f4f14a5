"""The plots of a report of evaluations: measures with intervals and chance, and recall at every K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trichord.report.plots_look import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    OTHER_COLOURS,
    PAGE,
    PURPLE,
    RED,
    finite,
    fitted,
    fitted_all,
    label_rows,
    legend,
    look,
    marker,
    nothing,
    order_colours,
    panels,
    svg_text,
)
from trichord.study.figures import System

PALETTE = (BLUE, RED, GREEN, PURPLE, *OTHER_COLOURS[:4])


@dataclass(frozen=True)
class IntervalRow:
    """One point: label of its line, estimate, interval (None: not known), chance (None: not known), colour."""

    label: str
    estimate: float
    low: float | None
    high: float | None
    chance: float | None
    colour: str = INK


@dataclass(frozen=True)
class IntervalPanel:
    """Points under one title, from top to bottom."""

    title: str
    rows: Sequence[IntervalRow]


@dataclass(frozen=True, eq=False)
class RecallCurve:
    """Recall in percent at K of one system."""

    label: str
    k: np.ndarray
    recall: np.ndarray
    colour: str = INK


def system_colours(systems: Sequence[System]) -> dict[str, str]:
    """System -> colour: orders have those of every study where no order stands twice and nothing else does; beyond eight
    systems colours come again."""
    codes = [system.order for system in systems]
    if all(codes) and len(set(codes)) == len(codes):
        colours = order_colours(codes)
        return {system.name: colours[system.order] for system in systems}
    return {system.name: PALETTE[i % len(PALETTE)] for i, system in enumerate(systems)}


def intervals(shown: Sequence[IntervalPanel], measure: str) -> str:
    """A panel for each target, or one alone; every panel has its own scale from zero. measure: with its unit, of the axis."""
    with look():
        if not any(panel.rows for panel in shown):
            return svg_text(nothing("No figures to show."))
        shared = len({tuple(row.label for row in panel.rows) for panel in shown}) == 1
        most = max(len(panel.rows) for panel in shown)
        _, wide = fitted_all([row.label for panel in shown for row in panel.rows], 2.2)
        left = wide + 0.2
        across = 0.3 if shared else left + 0.1
        columns = min(len(shown), 3 if shared or wide < 0.9 else 2)
        width = min((PAGE - left - 0.1 - (columns - 1) * across) / columns, PAGE / 2)
        figure, axes = panels(
            len(shown), columns, (width, 0.12 + 0.22 * most), left=left, across=across, head=0.3, minimum=PAGE / 2
        )
        for i, (ax, panel) in enumerate(zip(axes, shown, strict=True)):
            for y, row in enumerate(panel.rows):
                if y:
                    ax.axhline(y - 0.5, color=LIGHT, linewidth=0.6)
                if row.chance is not None:
                    ax.plot([row.chance], [y], marker="|", color=GREY, markersize=9, markeredgewidth=1.4, zorder=2)
                if row.low is not None and row.high is not None:
                    ax.plot(
                        [row.low, row.high], [y, y], color=row.colour, linewidth=1.6, solid_capstyle="butt", zorder=3
                    )
                ax.plot([row.estimate], [y], marker="o", color=row.colour, markersize=4.5, zorder=4, clip_on=False)
            values = finite([v for row in panel.rows for v in (row.estimate, row.high, row.chance)])
            high = max([*values, 0.0])
            ax.set_xlim(0, min(high * 1.06, 102) if high > 0 else 1)
            ax.set_xlabel(fitted(measure, width))
            ax.grid(axis="x")
            labels = [fitted(row.label, 2.2, 8) for row in panel.rows]
            label_rows(ax, labels, None if shared and i % columns else [INK] * len(labels))
            ax.set_ylim(most - 0.5, -0.5)
            ax.set_title(fitted(panel.title, width))
        handles = [marker("estimate, with its interval", INK)]
        if any(row.chance is not None for panel in shown for row in panel.rows):
            handles.append(marker("chance", GREY, "|", size=8))
        legend(figure, handles, left - 0.05)
        return svg_text(figure)


def recall_curves(title: str, curves: Sequence[RecallCurve], chance: RecallCurve | None) -> str:
    """Recall over K, K logarithmic, with a line for each system and a broken one for chance."""
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
        ax.set_xlabel("K, the first so many items of the gallery")
        ax.set_ylabel("recall at K (%)")
        ax.set_title(fitted(title, 4.6))
        ax.grid()
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), handlelength=1.6)
        return svg_text(figure)
