"""The plots of a report as SVG text, from plain data.

Import all plots from here. Those of the joint space are defined in `plots_space`, those of the training and its costs in
`plots_training`, and their common style in `plots_look`. Functions that draw orders take `colours`, the colour of each order, so
that a plot of some orders of a study has the colours of the study. The default is `order_colours` of the orders in the data.
Numbers that are None, NaN or infinite are not drawn. A figure without data says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trichord.errors import TrichordError
from trichord.report.plots_look import (
    GREY,
    INK,
    RASTER_ABOVE,
    fitted,
    look,
    nothing,
    order_colours,
    panels,
    svg_text,
)
from trichord.report.plots_points import Point, PointPanel, PointRow, differences, intervals
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
    "GapPanel",
    "ParameterRow",
    "Point",
    "PointPanel",
    "PointRow",
    "PurityRow",
    "RankPanel",
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
    "intervals",
    "similarity_matrices",
    "wins_and_losses",
]


@dataclass(frozen=True)
class RankPanel:
    """The ranks of the same queries under two orders or systems.

    Attributes:
        title: Title of the benchmark.
        a: Name of the first one.
        b: Name of the second one.
        ranks_a: Ranks (n,) of the true items of n queries under `a`. 1 is best.
        ranks_b: Ranks (n,) under `b`.
    """

    title: str
    a: str
    b: str
    ranks_a: np.ndarray
    ranks_b: np.ndarray


def wins_and_losses(panel: RankPanel, colours: Mapping[str, str]) -> str:
    """Draw a dot for each query, with its rank under A on the x-axis and under B on the y-axis, both logarithmic.

    Queries above the diagonal are ranked better by A. Queries without a finite rank of at least 1 under both are left out, and the
    figure states their number.

    Args:
        panel: Ranks.
        colours: Colour of each order or system by its name.

    Returns:
        The figure as SVG.

    Raises:
        TrichordError: The two have different numbers of queries.
    """
    a, b = (np.asarray(ranks, np.float64) for ranks in (panel.ranks_a, panel.ranks_b))
    if a.shape != b.shape:
        raise TrichordError(
            f"{panel.title}: {panel.a} has ranks of {a.size} queries and {panel.b} of {b.size}; compare them on the same queries"
        )
    with look():
        keep = np.isfinite(a) & np.isfinite(b) & (a >= 1) & (b >= 1)
        if not keep.any():
            return svg_text(nothing("No ranks to compare."))
        figure, (ax,) = panels(1, 1, (3.9, 3.9), left=0.75, right=0.3, top=0.62, bottom=0.55)
        _draw_ranks(ax, panel, a[keep], b[keep], colours)
        ax.set_title(fitted(panel.title, 3.9), pad=18)
        if left_out := int((~keep).sum()):
            note = f"{left_out:,} queries without a rank are left out"
            ax.text(0, 1.01, note, transform=ax.transAxes, va="bottom", color=GREY, fontsize=8)
        return svg_text(figure)


def _draw_ranks(ax: Axes, panel: RankPanel, a: np.ndarray, b: np.ndarray, colours: Mapping[str, str]) -> None:
    """Draw all dots as one collection, and the shares as texts."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    won, lost = a < b, a > b
    colour = np.full(a.shape, GREY, dtype=object)
    colour[won], colour[lost] = colours[panel.a], colours[panel.b]
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
    name_a, name_b = (fitted(name, 1.7) for name in (panel.a, panel.b))
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
