"""Plots of the joint space as SVG text: similarity matrices, the principal plane, modality gaps and purity of clusters.

`evaluation.geometry` defines the measured values. Import the plots from `plots`, which also describes `colours`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.report.plots_look import (
    GREY,
    INK,
    LIGHT,
    PAGE,
    RASTER_ABOVE,
    finite,
    fitted,
    label_rows,
    legend,
    look,
    marker,
    modality_colour,
    nothing,
    panels,
    svg_text,
    text_width,
    with_colours,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

CLUSTER_COLOURS = 20  # those of tab20 in matplotlib; they repeat for further clusters


@dataclass(frozen=True)
class SimilarityPanel:
    """A matrix of cosines.

    Attributes:
        title: The title, such as "AV→T VT".
        matrix: Cosines (rows, columns), with the true pairs on the diagonal.
    """

    title: str
    matrix: np.ndarray


@dataclass(frozen=True)
class ScatterPanel:
    """The principal plane of one joint space.

    Attributes:
        title: The title, such as "AV→T".
        coordinates: Coordinates (n, 2) by modality.
        cluster: Cluster (n,) of each point by modality, int.
        explained: Shares (2,) of the variance along the axes.
    """

    title: str
    coordinates: Mapping[str, np.ndarray]
    cluster: Mapping[str, np.ndarray]
    explained: Sequence[float]


@dataclass(frozen=True)
class GapPanel:
    """The modality gaps of a pair.

    Attributes:
        title: The pair, such as "VT".
        gaps: Gaps of all seeds by order, from 0 to 2.
    """

    title: str
    gaps: Mapping[Order, Sequence[float | None]]


@dataclass(frozen=True)
class PurityRow:
    """The purity of the clusters of an order.

    Attributes:
        order: The order.
        values: Values of all seeds by measure ("modality purity", "label purity", "agreement VT", ...), from 0 to 1.
        chance: Chance by measure, as a single number or one for each seed. Measures without chance may be missing.
    """

    order: Order
    values: Mapping[str, Sequence[float | None]]
    chance: Mapping[str, float | Sequence[float | None] | None] = field(default_factory=dict)


def similarity_matrices(matrices: Sequence[SimilarityPanel], columns: int = 6) -> str:
    """Draw heat maps of cosines, `columns` in a line, on one scale that is symmetric about zero.

    White is zero, blue is negative and red is positive. Values that are not finite are grey. The first row is at the top.

    Args:
        matrices: Panels.
        columns: Largest number of panels in a line.

    Returns:
        The figure as SVG.

    Raises:
        TrichordError: A matrix is not two-dimensional, or `columns` is less than 1.
    """
    arrays = [np.asarray(panel.matrix, dtype=np.float64) for panel in matrices]
    for panel, array in zip(matrices, arrays, strict=True):
        if array.ndim != 2:
            raise TrichordError(f"{panel.title}: a similarity matrix is two-dimensional, not of shape {array.shape}")
    if columns < 1:
        raise TrichordError(f"columns={columns}: give 1 or more")
    with look():
        shown = [(panel, array) for panel, array in zip(matrices, arrays, strict=True) if array.size]
        if not shown:
            return svg_text(nothing("No similarities to show."))
        columns, across = min(columns, len(shown)), 0.14
        side = min((PAGE - 1.1 - (columns - 1) * across) / columns, 2.4)
        figure, axes = panels(
            len(shown), columns, (side, side), left=0.1, right=1.0, top=0.26, bottom=0.12, across=across
        )
        most = max((float(np.abs(finite(array)).max(initial=0)) for _, array in shown), default=0)
        limit = max(np.ceil(min(most, 1e9) * 20) / 20, 0.05)
        for ax, (panel, array) in zip(axes, shown, strict=True):
            image = _draw_matrix(ax, array, limit)
            ax.set_title(fitted(panel.title, side + across / 2, 8), fontsize=8)
        _colour_bar(figure, axes, image)
        return svg_text(figure)


def _draw_matrix(ax: Axes, matrix: np.ndarray, limit: float) -> AxesImage:
    from matplotlib import colormaps

    shades = colormaps["RdBu_r"].with_extremes(bad=GREY)
    bounded = np.clip(np.ma.masked_invalid(matrix), -limit, limit)
    image = ax.imshow(bounded, cmap=shades, vmin=-limit, vmax=limit, interpolation="none", aspect="auto")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color=LIGHT)
    return image


def _colour_bar(figure: Figure, axes: Sequence[Axes], image: AxesImage) -> None:
    """Draw the scale to the right of the first line of panels, as an image, since a bar of many rectangles shows seams."""
    box = axes[0].get_position()
    right = max(ax.get_position().x1 for ax in axes)
    width = figure.get_size_inches()[0]
    bar = figure.add_axes((right + 0.14 / width, box.y0, 0.13 / width, box.height))
    low, high = image.get_clim()
    shades = np.linspace(high, low, 256)[:, None]
    bar.imshow(shades, cmap=image.get_cmap(), extent=(0, 1, low, high), interpolation="none", aspect="auto")
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.set_ylabel("cosine")
    bar.spines[:].set_visible(False)


def joint_space(spaces: Sequence[ScatterPanel]) -> str:
    """Draw each space in a column, coloured by modality and below by cluster, with at most four columns in a line.

    Both panels of a column have the same axes, and both axes of a panel have the same scale, so that distances are preserved. If
    all spaces together have more than 800 points, the points are embedded as images.

    Args:
        spaces: Panels.

    Returns:
        The figure as SVG.

    Raises:
        TrichordError: Points and clusters do not match.
    """
    for space in spaces:
        _check_space(space)
    with look():
        shown = [space for space in spaces if any(np.asarray(c).size for c in space.coordinates.values())]
        if not shown:
            return svg_text(nothing("No points to show."))
        lines = -(-len(shown) // 4)
        columns, across = -(-len(shown) // lines), 0.3
        side = min((PAGE - 0.55 - (columns - 1) * across) / columns, 2.2)
        many = sum(len(c) for space in shown for c in space.coordinates.values()) > RASTER_ABOVE
        modalities = list(dict.fromkeys(m for space in shown for m in space.coordinates))
        figure, axes = panels(
            2 * columns * lines, columns, (side, side), left=0.45, top=0.22, bottom=0.2, across=across, head=0.26
        )
        blocks = np.array(axes, dtype=object).reshape(lines, 2, columns)
        for i, space in enumerate(shown):
            by_modality, by_cluster = blocks[i // columns, :, i % columns]
            _draw_space(by_modality, space, "modality", many)
            _draw_space(by_cluster, space, "cluster", many)
            by_modality.set_title(fitted(space.title, side))
            by_cluster.set_xlabel(f"axis 1 ({_share(space.explained, 0)})", fontsize=8, labelpad=2)
            by_modality.set_ylabel(f"by modality · axis 2 ({_share(space.explained, 1)})", fontsize=8, labelpad=2)
            by_cluster.set_ylabel(f"by cluster · axis 2 ({_share(space.explained, 1)})", fontsize=8, labelpad=2)
        for ax in blocks.transpose(0, 2, 1).reshape(-1, 2)[len(shown) :].ravel():
            ax.remove()
        legend(figure, [marker(m, modality_colour(m)) for m in modalities], 0.4)
        return svg_text(figure)


def _check_space(space: ScatterPanel) -> None:
    for modality, points in space.coordinates.items():
        shape = np.shape(points)
        if len(shape) != 2 or shape[1] != 2:
            raise TrichordError(f"{space.title}: coordinates of {modality} have the shape {shape}, not (points, 2)")
        if np.shape(space.cluster.get(modality, ())) != shape[:1]:
            raise TrichordError(f"{space.title}: give one cluster for each of the {shape[0]} points of {modality}")


def _share(explained: Sequence[float], axis: int) -> str:
    value = float(explained[axis]) if axis < len(explained) else float("nan")
    return f"{100 * value:.0f} %" if np.isfinite(value) else "share unknown"


def _draw_space(ax: Axes, space: ScatterPanel, by: str, raster: bool) -> None:
    """Draw all points as one collection, in a sequence that mixes the modalities, so that none hides the others."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba_array

    points = np.concatenate([np.asarray(c, dtype=np.float64) for c in space.coordinates.values()])
    if by == "modality":
        colours = np.concatenate([[modality_colour(m)] * len(c) for m, c in space.coordinates.items()])
    else:
        wheel = colormaps["tab20"](np.arange(CLUSTER_COLOURS))
        cluster = np.concatenate([np.asarray(space.cluster[m]) for m in space.coordinates])
        colours = wheel[cluster.astype(np.int64) % CLUSTER_COLOURS]
    mixed = np.random.default_rng(0).permutation(len(points))
    mixed = mixed[np.isfinite(points[mixed]).all(1)]
    size = 4 if len(mixed) > RASTER_ABOVE else 9
    rgba = to_rgba_array(list(colours[mixed])) if len(mixed) else np.empty((0, 4))
    ax.scatter(points[mixed, 0], points[mixed, 1], s=size, c=rgba, alpha=0.7, linewidths=0, rasterized=raster)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color=LIGHT)
    centre, half = np.zeros(2), 1.0
    if len(mixed):
        low, high = points[mixed].min(0), points[mixed].max(0)
        centre, half = (low + high) / 2, float((high - low).max()) * 0.54 or 1.0
    ax.set_xlim(centre[0] - half, centre[0] + half)
    ax.set_ylim(centre[1] - half, centre[1] + half)


def gaps(pairs: Sequence[GapPanel], colours: Mapping[Order, str] | None = None) -> str:
    """Draw a panel for each pair, with a row for each order, a dot for each seed and a line at their mean.

    All panels have the same scale, which starts at zero.

    Args:
        pairs: Panels.
        colours: Colour of each order. None uses `order_colours`.

    Returns:
        The figure as SVG.
    """
    with look():
        orders = list(dict.fromkeys(order for panel in pairs for order in panel.gaps))
        if not orders:
            return svg_text(nothing("No modality gaps to show."))
        order_colours = with_colours(orders, colours)
        figure, axes, columns = _row_panels(len(pairs), orders, {"one seed": "o", "mean": "|"}, 0.5)
        most = float(finite([v for panel in pairs for values in panel.gaps.values() for v in values]).max(initial=0))
        for i, (ax, panel) in enumerate(zip(axes, pairs, strict=True)):
            for y, order in enumerate(orders):
                _draw_row(ax, y, finite(panel.gaps.get(order, ())), np.empty(0), order_colours[order])
            ax.set_xlim(0, most * 1.06 if most > 0 else 1)
            _finish_rows(ax, fitted(_pair_label(panel.title), 2.5), orders, i % columns == 0)
            ax.set_xlabel("modality gap")
        return svg_text(figure)


def _pair_label(pair: str) -> str:
    """Return `V–T` for `VT`. Other titles are unchanged."""
    return "–".join(pair) if len(pair) == 2 and pair.isupper() else pair


def purity(rows: Sequence[PurityRow], colours: Mapping[Order, str] | None = None) -> str:
    """Draw a panel for each measure, on a scale from 0 to 1.

    It has a row for each order, a dot for each seed, a line at their mean, and a grey tick at chance (mean over seeds).
    """
    with look():
        measures = list(dict.fromkeys(name for row in rows for name in row.values))
        if not measures:
            return svg_text(nothing("No purities to show."))
        orders = [row.order for row in rows]
        order_colours = with_colours(orders, colours)
        figure, axes, columns = _row_panels(len(measures), orders, {"one seed": "o", "mean": "|", "chance": "|"}, 0.3)
        for i, (ax, measure) in enumerate(zip(axes, measures, strict=True)):
            for y, row in enumerate(rows):
                chance = finite(np.ravel(np.asarray(row.chance.get(measure), dtype=object)))
                _draw_row(ax, y, finite(row.values.get(measure, ())), chance, order_colours[row.order])
            ax.set_xlim(0, 1)
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
            _finish_rows(ax, fitted(measure, 2.5), orders, i % columns == 0)
        return svg_text(figure)


def _row_panels(
    num: int, orders: Sequence[Order], signs: Mapping[str, str], bottom: float
) -> tuple[Figure, list[Axes], int]:
    """Return a figure with a legend of `signs` (name -> marker), its axes with the orders as rows, and the panels in a line."""
    left = max(text_width(str(order), 8) for order in orders) + 0.2
    columns, across = min(num, 3), 0.35
    width = min((PAGE - left - 0.2 - (columns - 1) * across) / columns, PAGE / 2)
    size = width, 0.1 + 0.24 * len(orders)
    figure, axes = panels(
        num, columns, size, left=left, right=0.2, across=across, head=0.26, bottom=bottom, minimum=PAGE / 2
    )
    handles = [
        marker(name, GREY if name == "chance" else INK, sign, size=4 if sign == "o" else 9)
        for name, sign in signs.items()
    ]
    legend(figure, handles, left - 0.1)
    return figure, axes, columns


def _draw_row(ax: Axes, y: int, values: np.ndarray, chance: np.ndarray, colour: str) -> None:
    """Draw the values as dots, with their mean and the mean of chance. Both arrays are finite and may be empty."""
    tick: dict[str, Any] = {
        "marker": "|",
        "linestyle": "none",
        "markersize": 11,
        "markeredgewidth": 1.6,
        "clip_on": False,
    }
    if chance.size:
        ax.plot([chance.mean()], [y], color=GREY, **tick)
    if values.size:
        if len(values) > 1:
            ax.plot([values.mean()], [y], color=colour, zorder=4, **tick)
        dots = ax.scatter(values, [y] * len(values), s=14, color=colour, alpha=0.6, linewidths=0, zorder=3)
        dots.set_clip_on(False)
    else:
        note = ax.get_yaxis_transform()
        ax.text(0.02, y, "not measured", color=GREY, va="center", fontsize=8, transform=note)


def _finish_rows(ax: Axes, title: str, orders: Sequence[Order], first: bool) -> None:
    labels = [str(order) for order in orders]
    label_rows(ax, labels, [INK] * len(labels) if first else None)
    ax.set_title(title)
    ax.grid(axis="x")
