"""The plots of a study's report as SVG text, from plain data: recalls, their differences, and queries won and lost.

This is the place to import all plots from; those of the joint space are in `plots_space`, those of training and its costs
in `plots_training`, the common look in `plots_look`. Orders are given as codes (`av>t`) and printed as AV→T. Every function
takes `colours`, order code -> colour, so that a plot of some of a study's orders has the study's colours; without it the
colours are `order_colours` of the orders in the data. Numbers that are None, NaN or infinite are not drawn. Figures of
nothing say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError
from trichord.report.plots_look import (
    GREY,
    INK,
    LIGHT,
    PAGE,
    RASTER_ABOVE,
    finite,
    fitted,
    fitted_all,
    label_rows,
    legend,
    look,
    marker,
    nothing,
    order_colours,
    order_label,
    panels,
    svg_text,
    with_colours,
)
from trichord.report.plots_space import (
    GapPanel,
    PurityRow,
    ScatterPanel,
    SimilarityPanel,
    gaps,
    joint_space,
    purity,
    similarity_matrices,
)
from trichord.report.plots_training import (
    CostRow,
    ParameterRow,
    StageCurves,
    block_means,
    costs,
    learning_curves,
    parameters,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CostRow",
    "DifferencePanel",
    "GapPanel",
    "ParameterRow",
    "PurityRow",
    "RankPanel",
    "RecallPanel",
    "ScatterPanel",
    "SimilarityPanel",
    "StageCurves",
    "block_means",
    "costs",
    "differences",
    "gaps",
    "joint_space",
    "learning_curves",
    "order_colours",
    "parameters",
    "purity",
    "recall_intervals",
    "similarity_matrices",
    "wins_and_losses",
]

SHAPES = ("o", "s", "D", "^", "v")  # of R@1, R@5, R@10, and of further recalls

Interval = tuple[float, float | None, float | None]  # estimate, low, high


@dataclass(frozen=True)
class RecallPanel:
    """Recalls of one benchmark, in percent.

    Attributes:
        title: The benchmark.
        orders: Codes, from top to bottom.
        estimates: order -> k -> (estimate, low, high); an order that is absent was not scored.
        chance: k -> recall of a random ranking.
    """

    title: str
    orders: Sequence[str]
    estimates: Mapping[str, Mapping[int, Interval]]
    chance: Mapping[int, float]


@dataclass(frozen=True)
class DifferencePanel:
    """Differences between orders on one benchmark, in points.

    Attributes:
        title: The benchmark.
        rows: (label such as "AV→T − AVT", estimate, low, high, whether the two are told apart), from top to bottom.
    """

    title: str
    rows: Sequence[tuple[str, float, float, float, bool]]


@dataclass(frozen=True)
class RankPanel:
    """The same queries under two orders.

    Attributes:
        title: The benchmark.
        order_a, order_b: Codes.
        ranks_a, ranks_b: (queries,) or (seeds, queries): rank of the truth, 1 is best; the mean over seeds is drawn.
        label_a, label_b: Names of what is no order; `order_a` and `order_b` are then keys of the colours alone.
    """

    title: str
    order_a: str
    order_b: str
    ranks_a: np.ndarray
    ranks_b: np.ndarray
    label_a: str = ""
    label_b: str = ""

    @property
    def labels(self) -> tuple[str, str]:
        """As printed."""
        return self.label_a or order_label(self.order_a), self.label_b or order_label(self.order_b)


def recall_intervals(benchmarks: Sequence[RecallPanel], colours: Mapping[str, str] | None = None) -> str:
    """One panel a benchmark: R@1, R@5 and R@10 of every order with their intervals, and chance as a grey tick in the row
    of its recall. Every panel has its own scale from zero."""
    with look():
        orders = list(dict.fromkeys(order for panel in benchmarks for order in panel.orders))
        if not orders:
            return svg_text(nothing("No recalls to show."))
        recalls = sorted({k for p in benchmarks for k in (*p.chance, *(k for e in p.estimates.values() for k in e))})
        found = with_colours(orders, colours)
        labels, left = fitted_all([order_label(order) for order in orders], 1.5)
        width, columns = _column_width(len(benchmarks), left + 0.2)
        size = width, 0.13 + max(0.16 * len(recalls), 0.3) * len(orders)
        figure, axes = panels(len(benchmarks), columns, size, left=left + 0.2, head=0.3, minimum=PAGE / 2)
        for i, (ax, panel) in enumerate(zip(axes, benchmarks, strict=True)):
            _draw_recalls(ax, panel, orders, recalls, found)
            label_rows(ax, labels, None if i % columns else [INK] * len(orders))
            ax.set_title(fitted(panel.title, width))
        handles = [marker(f"R@{k}", INK, _shape(i)) for i, k in enumerate(recalls)]
        legend(figure, [*handles, marker("chance", GREY, "|", size=8)], left + 0.1)
        return svg_text(figure)


def _shape(i: int) -> str:
    return SHAPES[i % len(SHAPES)]


def _column_width(num: int, left: float, across: float = 0.3, columns: int = 3) -> tuple[float, int]:
    """Width of panels that fill the page, at most `columns` side by side (never wider than half a page), and how many."""
    columns = min(columns, max(num, 1))
    return min((PAGE - left - 0.1 - (columns - 1) * across) / columns, PAGE / 2), columns


def _draw_recalls(
    ax: Axes, panel: RecallPanel, orders: Sequence[str], recalls: Sequence[int], colours: Mapping[str, str]
) -> None:
    """Points are collections of one; chance ticks have the grey of the legend."""
    shift = {k: (i - (len(recalls) - 1) / 2) * 0.78 / max(len(recalls), 1) for i, k in enumerate(recalls)}
    for y, order in enumerate(orders):
        if y:
            ax.axhline(y - 0.5, color=LIGHT, linewidth=0.6)
        scored = {k: e for k, e in panel.estimates.get(order, {}).items() if np.isfinite(_number(e[0]))}
        if order not in panel.orders or not scored:
            ax.text(0.02, y, "not scored", color=GREY, va="center", transform=ax.get_yaxis_transform(), fontsize=8)
            continue
        for i, k in enumerate(recalls):
            row = y + shift[k]
            if np.isfinite(_number(panel.chance.get(k))):
                ax.plot([panel.chance[k]], [row], marker="|", color=GREY, markersize=8, markeredgewidth=1.4, zorder=2)
            if k in scored:
                _interval(ax, scored[k], row, colours[order], _shape(i), True)
    highs = finite([v for e in panel.estimates.values() for interval in e.values() for v in interval])
    most = max([*highs, *finite(panel.chance.values()), 0.0])
    ax.set_xlim(0, min(most * 1.06, 102) if most > 0 else 1)
    ax.set_xlabel("recall (%)")
    ax.grid(axis="x")


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _interval(ax: Axes, interval: Sequence[Any], y: float, colour: str, shape: str, filled: bool) -> None:
    """A marker on a bar; the bar is left out where an end is not finite."""
    estimate, low, high = (_number(value) for value in interval)
    if np.isfinite(low) and np.isfinite(high):
        ax.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=3)
    if np.isfinite(estimate):
        face = colour if filled else "white"
        ax.plot(
            [estimate], [y], marker=shape, color=colour, markerfacecolor=face, markersize=4.5, zorder=4, clip_on=False
        )


def differences(benchmarks: Sequence[DifferencePanel]) -> str:
    """One panel a benchmark: every difference with its interval, and a line at zero. A marker is filled where the
    two orders are told apart. Rows are labelled once where all panels of a line have the same."""
    with look():
        if not any(panel.rows for panel in benchmarks):
            return svg_text(nothing("No differences to show: there is one order, or none."))
        shared = len({tuple(row[0] for row in panel.rows) for panel in benchmarks}) == 1
        most = max((len(panel.rows) for panel in benchmarks), default=1)
        _, wide = fitted_all([row[0] for panel in benchmarks for row in panel.rows], 2.2)
        left = wide + 0.2
        across = 0.3 if shared else left + 0.1
        width, columns = _column_width(len(benchmarks), left, across, 3 if shared or wide < 0.9 else 2)
        figure, axes = panels(
            len(benchmarks), columns, (width, 0.1 + 0.19 * most), left=left, across=across, head=0.3, minimum=PAGE / 2
        )
        for i, (ax, panel) in enumerate(zip(axes, benchmarks, strict=True)):
            _draw_differences(ax, panel)
            labels = [fitted(row[0], 2.2, 8) for row in panel.rows]
            label_rows(ax, labels, None if shared and i % columns else [INK] * len(labels))
            ax.set_ylim(most - 0.5, -0.5)
            ax.set_title(fitted(panel.title, width))
        handles = [marker("told apart", INK), marker("not told apart", INK, filled=False)]
        legend(figure, handles, left - 0.05)
        return svg_text(figure)


def _draw_differences(ax: Axes, panel: DifferencePanel) -> None:
    ax.axvline(0, color=GREY, linewidth=1.0, zorder=1)
    for y, (_, estimate, low, high, apart) in enumerate(panel.rows):
        _interval(ax, (estimate, low, high), y, INK, "o", apart)
    values = finite([v for row in panel.rows for v in row[1:4]])
    low, high = min([*values, 0.0]), max([*values, 0.0])
    pad = 0.06 * (high - low) or 1.0
    ax.set_xlim(low - pad, high + pad)
    ax.set_xlabel("difference (points)")
    ax.grid(axis="x")


def wins_and_losses(panel: RankPanel, colours: Mapping[str, str] | None = None) -> str:
    """One dot a query: its mean rank under order A (across) and under B (up), both logarithmic, and the diagonal. A query
    above the diagonal is won by A; the shares are written where they belong. Queries without a finite rank of at least 1
    under both orders are left out, and their number is told.

    Raises TrichordError where the two orders do not have the same queries.
    """
    a, b = _mean_ranks(panel.ranks_a), _mean_ranks(panel.ranks_b)
    if a.shape != b.shape:
        name_a, name_b = panel.labels
        raise TrichordError(
            f"{panel.title}: {name_a} has ranks of {a.size} queries and {name_b} of {b.size}; compare them on the same queries"
        )
    with look():
        orders = [panel.order_a, panel.order_b]
        found = dict(colours or dict.fromkeys(orders, INK)) if panel.label_a else with_colours(orders, colours)
        keep = np.isfinite(a) & np.isfinite(b) & (a >= 1) & (b >= 1)
        if not keep.any():
            return svg_text(nothing("No ranks to compare."))
        figure, (ax,) = panels(1, 1, (3.9, 3.9), left=0.75, right=0.3, top=0.62, bottom=0.55)
        _draw_ranks(ax, panel, a[keep], b[keep], found)
        ax.set_title(fitted(panel.title, 3.9), pad=18)
        if left_out := int((~keep).sum()):
            note = f"{left_out:,} queries without a rank are left out"
            ax.text(0, 1.01, note, transform=ax.transAxes, va="bottom", color=GREY, fontsize=8)
        return svg_text(figure)


def _mean_ranks(ranks: Any) -> np.ndarray:
    """(queries,) mean over seeds."""
    array = np.asarray(ranks, dtype=np.float64)
    return array.mean(0) if array.ndim == 2 and len(array) else array.ravel()


def _draw_ranks(ax: Axes, panel: RankPanel, a: np.ndarray, b: np.ndarray, colours: Mapping[str, str]) -> None:
    """One collection of dots; shares as texts."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    won, lost = a < b, a > b
    colour = np.full(a.shape, GREY, dtype=object)
    colour[won], colour[lost] = colours[panel.order_a], colours[panel.order_b]
    most = max(a.max(), b.max(), 10.0) * 1.25
    ax.plot([1, most], [1, most], color=INK, linewidth=0.8, zorder=3)
    ax.scatter(
        a,
        b,
        s=7 if a.size > 200 else 14,
        c=list(colour),
        alpha=0.45,
        linewidths=0,
        rasterized=a.size > RASTER_ABOVE,
        zorder=2,
    )
    for scale, limits in ((ax.set_xscale, ax.set_xlim), (ax.set_yscale, ax.set_ylim)):
        scale("log")
        limits(0.85, most)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=(1,) if most > 300 else (1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    name_a, name_b = (fitted(name, 1.7) for name in panel.labels)
    ax.set_xlabel(f"rank under {name_a} (1 is best)")
    ax.set_ylabel(f"rank under {name_b} (1 is best)")
    equal = 100 * (1 - won.mean() - lost.mean())
    box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5}
    for x, y, align, text in (
        (0.03, 0.96, "left", f"{name_a} ranks better: {100 * won.mean():.1f} %"),
        (0.97, 0.05, "right", f"{name_b} ranks better: {100 * lost.mean():.1f} %"),
    ):
        ax.text(x, y, text, transform=ax.transAxes, ha=align, va="center", weight="bold", bbox=box, zorder=5)
    ax.text(
        1, 1.01, f"equal: {abs(equal):.1f} %", transform=ax.transAxes, ha="right", va="bottom", color=INK, fontsize=8
    )
