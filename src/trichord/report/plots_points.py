"""Plots of points with intervals: figures of systems with chance, and differences between systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.report.plots_look import (
    GREY,
    INK,
    LIGHT,
    PAGE,
    finite,
    fitted,
    fitted_all,
    label_rows,
    legend,
    look,
    marker,
    nothing,
    panels,
    svg_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHAPES = ("o", "s", "D", "^", "v")  # markers of the first measure, the second, ...


@dataclass(frozen=True)
class Point:
    """An estimate with the ends of its interval and chance, which are None or NaN if they are unknown."""

    estimate: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    filled: bool = True


@dataclass(frozen=True)
class PointRow:
    """A labelled row with a point for each measure, or None for a measure that was not scored."""

    label: str
    points: Sequence[Point | None]
    colour: str = INK


@dataclass(frozen=True)
class PointPanel:
    """Rows from top to bottom, with a title."""

    title: str
    rows: Sequence[PointRow]


def intervals(shown: Sequence[PointPanel], axis: str, measures: Sequence[str] = ()) -> str:
    """Draw a panel for each benchmark or target, each with its own scale from zero.

    Chance is a grey tick in the row of its measure.

    Args:
        shown: Panels.
        axis: Label of the axis, with the unit.
        measures: Names of the points of a row, if there are several.

    Returns:
        The figure as SVG.
    """
    with look():
        if not any(panel.rows for panel in shown):
            return svg_text(nothing("No figures to show."))
        handles = [marker(name, INK, _shape(i)) for i, name in enumerate(measures)]
        handles = handles or [marker("estimate, with its interval", INK)]
        if any(_number(point.chance) == _number(point.chance) for panel in shown for _, _, point in _points(panel)):
            handles.append(marker("chance", GREY, "|", size=8))
        return _drawn(shown, axis, handles, max(1, len(measures)), zero_line=False)


def differences(shown: Sequence[PointPanel]) -> str:
    """Draw a panel for each benchmark: every difference with its interval, and a line at zero.

    The marker of a significant difference is filled. Panels of a line that have the same rows share their labels.
    """
    with look():
        if not any(panel.rows for panel in shown):
            return svg_text(nothing("No differences to show, since there are fewer than two orders."))
        handles = [marker("significant", INK), marker("not significant", INK, filled=False)]
        return _drawn(shown, "difference (points)", handles, 1, zero_line=True)


def _drawn(shown: Sequence[PointPanel], axis: str, handles: Sequence[Any], num_points: int, *, zero_line: bool) -> str:
    shared = len({tuple(row.label for row in panel.rows) for panel in shown}) == 1
    most = max(len(panel.rows) for panel in shown)
    _, wide = fitted_all([row.label for panel in shown for row in panel.rows], 2.2)
    left = wide + 0.2
    across = 0.3 if shared else left + 0.1
    columns = min(len(shown), 3 if shared or wide < 0.9 else 2)
    width = min((PAGE - left - 0.1 - (columns - 1) * across) / columns, PAGE / 2)
    size = width, 0.12 + max(0.16 * num_points, 0.2) * most
    figure, axes = panels(len(shown), columns, size, left=left, across=across, head=0.3, minimum=PAGE / 2)
    for i, (ax, panel) in enumerate(zip(axes, shown, strict=True)):
        draw_points(ax, panel, num_points, zero_line=zero_line)
        labels = [fitted(row.label, 2.2, 8) for row in panel.rows]
        label_rows(ax, labels, None if shared and i % columns else [INK] * len(labels))
        ax.set_ylim(most - 0.5, -0.5)
        ax.set_xlabel(fitted(axis, width))
        ax.set_title(fitted(panel.title, width))
    legend(figure, handles, left - 0.05)
    return svg_text(figure)


def draw_points(ax: Axes, panel: PointPanel, num_points: int = 1, *, zero_line: bool = False) -> None:
    """Draw the rows of a panel. The scale includes zero."""
    if zero_line:
        ax.axvline(0, color=GREY, linewidth=1.0, zorder=1)
    for y in range(len(panel.rows)):
        if y and not zero_line:
            ax.axhline(y - 0.5, color=LIGHT, linewidth=0.6)
        if not any(at == y for at, _, _ in _points(panel)):
            ax.text(0.02, y, "not scored", color=GREY, va="center", transform=ax.get_yaxis_transform(), fontsize=8)
    for y, i, point in _points(panel):
        at, colour = y + (i - (num_points - 1) / 2) * 0.78 / num_points, panel.rows[y].colour
        low, high, chance = map(_number, (point.low, point.high, point.chance))
        if np.isfinite(chance):
            ax.plot([chance], [at], marker="|", color=GREY, markersize=8, markeredgewidth=1.4, zorder=2)
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([low, high], [at, at], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=3)
        ax.plot(
            [point.estimate], [at], marker=_shape(i), color=colour, markerfacecolor=colour if point.filled else "white",
            markersize=4.5, zorder=4, clip_on=False,
        )  # fmt: skip
    values = finite([v for _, _, p in _points(panel) for v in (p.estimate, p.low, p.high, p.chance)])
    low, high = min([*values, 0.0]), max([*values, 0.0])
    pad = 0.06 * (high - low) or 1.0
    ax.set_xlim(*((low - pad, high + pad) if zero_line else (0, min(high + pad, 102))))
    ax.grid(axis="x")


def _points(panel: PointPanel) -> list[tuple[int, int, Point]]:
    """Return (row, measure, point) for each point with a finite estimate."""
    return [
        (y, i, point)
        for y, row in enumerate(panel.rows)
        for i, point in enumerate(row.points)
        if point is not None and np.isfinite(point.estimate)
    ]


def _shape(i: int) -> str:
    return SHAPES[i % len(SHAPES)]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
