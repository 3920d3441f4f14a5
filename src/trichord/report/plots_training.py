"""Plots of the training of a study as SVG text: loss curves, frozen and trained parameters, costs.

Import the plots from `plots`, which also describes `colours`.
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
    finite,
    fitted,
    fitted_all,
    label_rows,
    legend,
    look,
    marker,
    nothing,
    svg_text,
    text_width,
    with_colours,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE_POINTS = 400  # largest number of points of a curve
FIGURE_POINTS = (
    35_000  # approximate number of points of a figure with many curves; each curve has at least FEWEST_POINTS
)
FEWEST_POINTS = 40
TERM_COLUMNS = 7
SEED, MEDIAN, STOP, LOST = "#56b4e9", "#0072b2", "#d55e00", "#606060"
DASHES = (0, (5, 2.5))  # in line widths

Curve = tuple[Any, Any]  # steps (n,) and values (n,)


@dataclass(frozen=True)
class StageCurves:
    """The losses of a stage.

    Attributes:
        title: The title, such as "AV→T".
        terms: Steps and values of every seed by loss term. Steps increase, and may differ between seeds.
        lost: The same for seeds whose stage is unfinished or has diverged. They are dashed and do not count for the median.
    """

    title: str
    terms: Mapping[str, Sequence[Curve]]
    lost: Mapping[str, Sequence[Curve]] = field(default_factory=dict)

    def by_term(self) -> dict[str, tuple[Sequence[Curve], Sequence[Curve]]]:
        """Return the curves of finished seeds and of lost seeds by loss term."""
        names = dict.fromkeys([*self.terms, *self.lost])
        return {name: (self.terms.get(name, ()), self.lost.get(name, ())) for name in names}


@dataclass(frozen=True)
class ParameterRow:
    """The parameters of a stage.

    Attributes:
        order: The order, or the order up to a stage: `av` is the first stage of `av>t`.
        frozen: Number of frozen parameters.
        trained: Number of trained parameters.
        stage: Text after the order, if the order alone does not identify the stage.
    """

    order: Order
    frozen: int
    trained: int
    stage: str = ""


@dataclass(frozen=True)
class CostRow:
    """The cost of an order or a stage. Values that were not recorded are None.

    Attributes:
        order: The order, or the order up to a stage.
        seconds: Wall-clock time.
        steps: Optimizer steps.
        clips: Clips seen, including repetitions.
        stage: Text after the order, if the order alone does not identify the stage: "total", "stage 2".
    """

    order: Order
    seconds: float | None
    steps: float | None
    clips: float | None
    stage: str = ""


def block_means(steps: Sequence[float], values: Sequence[float], edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thin a curve: return the mean step and the mean value of the finite points of each block.

    Args:
        steps: Steps (n,).
        values: Values (n,).
        edges: Increasing edges (blocks + 1,). Block i contains edges[i] <= step < edges[i + 1], and the last block includes its
            end.

    Returns:
        Mean steps and mean values, (blocks,) each. NaN for blocks without a finite value.
    """
    at, value = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    keep = np.isfinite(value) & (at >= edges[0]) & (at <= edges[-1])
    num = len(edges) - 1
    block = np.clip(np.searchsorted(edges, at[keep], side="right") - 1, 0, num - 1)
    count = np.bincount(block, minlength=num)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        share = 1 / count[block]  # dividing before adding keeps the mean of huge values finite
        mean_step = np.bincount(block, at[keep] * share, num)
        mean_value = np.bincount(block, value[keep] * share, num)
    empty = count == 0
    return np.where(empty, np.nan, mean_step), np.where(empty, np.nan, mean_value)


def block_edges(curves: Sequence[Curve], num_points: int) -> np.ndarray:
    """Return the edges of at most `num_points` blocks of equal width over all steps. Few steps have a block each."""
    steps = np.unique(np.concatenate([np.asarray(s, dtype=np.float64) for s, _ in curves]))
    if len(steps) <= num_points:
        return np.append(steps, steps[-1] + 1)
    return np.linspace(steps[0], steps[-1], num_points + 1)


def learning_curves(stages: Sequence[StageCurves]) -> str:
    """Draw a small panel for every term of every stage, each with its own scale, since terms differ greatly in size.

    Thin lines are seeds, the thick line is the median of the finished ones, and dashed lines are lost seeds. Long runs are
    thinned to at most 400 points by block means, or to fewer points if there are many curves. A cross ends the line of a seed
    whose loss is not finite afterwards. If few values are far outside, the panel is cut, and a text states their range.

    Args:
        stages: Stages with their curves.

    Returns:
        The figure as SVG.

    Raises:
        TrichordError: A curve has different numbers of steps and values.
    """
    num_curves = 0
    for stage in stages:
        for term, (curves, lost) in stage.by_term().items():
            every = [*curves, *lost]
            num_curves += len(every) + 1
            if wrong := [(len(s), len(v)) for s, v in every if len(s) != len(v)]:
                raise TrichordError(
                    f"{stage.title}: {term} has {wrong[0][0]} steps and {wrong[0][1]} values; give equal numbers"
                )
    with look():
        shown = [stage for stage in stages if stage.by_term()]
        if not shown:
            return svg_text(nothing("No losses were recorded."))
        num_points = int(np.clip(FIGURE_POINTS // max(num_curves, 1), FEWEST_POINTS, CURVE_POINTS))
        figure, axes = _curve_panels(shown)
        for stage, own in zip(shown, axes, strict=True):
            for ax, (term, (curves, lost)) in zip(own, stage.by_term().items(), strict=True):
                _draw_curves(ax, curves, num_points, lost)
                ax.set_title(fitted(term, ax.get_position().width * PAGE + 0.2, 8), fontsize=8, pad=3)
        handles = [_line("one seed", SEED, 0.8), _line("median", MEDIAN, 1.6)]
        if any(stage.lost for stage in shown):
            handles.append(_line("not finished or diverged: not in the median", LOST, 0.8, DASHES))
        parts = [curves for stage in shown for both in stage.by_term().values() for curves in both]
        if any(_stops(values) for curves in parts for _, values in curves):
            handles.append(marker("no longer finite from here", STOP, "x"))
        legend(figure, handles, 0.1)
        return svg_text(figure)


def _line(label: str, colour: str, width: float, style: Any = "-") -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=width, linestyle=style, label=label)


def _curve_panels(stages: Sequence[StageCurves]) -> tuple[Any, list[list[Any]]]:
    """Return the figure and the axes of the terms of each stage. If there are few, a term has the same column in all stages."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(term for stage in stages for term in stage.by_term()))
    columns = min(len(names), TERM_COLUMNS)
    aligned = len(names) == columns
    places = [[names.index(t) if aligned else i for i, t in enumerate(stage.by_term())] for stage in stages]
    left, across, high, title, below = 0.45, 0.42, 0.8, 0.42, 0.28
    heights = [title + (max(place) // columns + 1) * (high + below) + max(place) // columns * 0.2 for place in places]
    wide = min((PAGE - left - 0.12 - (columns - 1) * across) / columns, 2.4)
    total = 0.25 + sum(heights)
    figure = Figure(figsize=(PAGE, total))
    top, axes = 0.25, []
    for stage, place, height in zip(stages, places, heights, strict=True):
        name = fitted(stage.title, PAGE - 0.3)
        figure.text(0.12 / PAGE, 1 - (top + 0.12) / total, name, weight="bold", va="center")
        own = []
        for spot in place:
            x = left + spot % columns * (wide + across)
            y = total - top - title - spot // columns * (high + below + 0.2) - high
            own.append(figure.add_axes((x / PAGE, y / total, wide / PAGE, high / total)))
        axes.append(own)
        top += height
    return figure, axes


def _draw_curves(ax: Axes, finished: Sequence[Curve], num_points: int, lost: Sequence[Curve] = ()) -> None:
    """Draw the seeds of a term, and the median of the finished ones if there are two or more."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    kept = [(s, v) for s, v in finished if len(s)]
    curves = [*kept, *((s, v) for s, v in lost if len(s))]
    ax.xaxis.set_major_locator(MaxNLocator(2, integer=True, min_n_ticks=2))
    ax.yaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    ax.tick_params(labelsize=7, length=2, pad=2)
    thinned = []
    if curves:
        edges = block_edges(curves, num_points)
        thinned = [block_means(s, v, edges) for s, v in curves]
    values = finite(np.concatenate([v for _, v in thinned])) if thinned else np.empty(0)
    if not values.size:
        ax.text(0.5, 0.5, "no finite value", transform=ax.transAxes, color=GREY, ha="center", va="center", fontsize=8)
        ax.set(xticks=[], yticks=[])
        return
    low, high = _limits(values)
    for number, ((own_steps, own_values), (steps, means)) in enumerate(zip(curves, thinned, strict=True)):
        _draw_seed(ax, steps, np.clip(means, 2 * low - high, 2 * high - low), number >= len(kept))
        if _stops(own_values):
            raw = np.asarray(own_values, dtype=np.float64)
            last = int(np.flatnonzero(np.isfinite(raw))[-1])
            y = np.clip(raw[last], low, high)
            ax.plot([own_steps[last]], [y], marker="x", color=STOP, markersize=4.5, clip_on=False, zorder=4)
    if len(kept) > 1:
        steps, means = (_median([both[i] for both in thinned[: len(kept)]]) for i in (0, 1))
        keep = np.isfinite(means)
        ax.plot(
            steps[keep], np.clip(means[keep], 2 * low - high, 2 * high - low), color=MEDIAN, linewidth=1.3, zorder=3
        )
    ends = [float(end) for own, _ in curves for end in (own[0], own[-1])]
    margin = 0.03 * (max(ends) - min(ends)) or 0.5
    ax.set_xlim(min(ends) - margin, max(ends) + margin)
    ax.set_ylim(low, high)
    if values.min() < low or values.max() > high:
        raw = finite(np.concatenate([np.asarray(v, dtype=np.float64) for _, v in curves]))
        note = "reaches " + " and ".join(f"{v:.2g}" for v in (raw.min(), raw.max()) if not low <= v <= high)
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1}
        ax.text(1, 0.97, note, transform=ax.transAxes, ha="right", va="top", fontsize=7, color=INK, bbox=box, zorder=5)


def _stops(values: Sequence[float]) -> bool:
    """Return whether a finite value is followed by values that are not finite up to the end."""
    return (
        len(values) > 0
        and not np.isfinite(values[-1])
        and bool(np.isfinite(np.asarray(values, dtype=np.float64)).any())
    )


def _draw_seed(ax: Axes, steps: np.ndarray, means: np.ndarray, lost: bool) -> None:
    """Draw the finite points of a seed as a line, dashed if the seed is lost, or a single point as a dot."""
    keep = np.isfinite(means)
    dot = "o" if keep.sum() == 1 else None
    colour, style = (LOST, DASHES) if lost else (SEED, "-")
    ax.plot(steps[keep], means[keep], color=colour, linewidth=0.6, linestyle=style, marker=dot, markersize=3)


def _median(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the median (blocks,) over the seeds with a value in each block. NaN for blocks without a value."""
    table = np.stack(rows)
    out = np.full(table.shape[1], np.nan)
    known = np.isfinite(table).any(0)
    out[known] = np.nanmedian(table[:, known], axis=0)
    return out


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return the limits of the axis: those of all values, or narrower ones if the outermost 2 % would take up most of the axis."""
    values = np.clip(values, -1e300, 1e300)
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(v) for v in np.quantile(values, [0.02, 0.98], method="nearest"))
    inner = inner_high - inner_low
    if inner > 0:
        low = low if inner_low - low <= 5 * inner else inner_low - inner
        high = high if high - inner_high <= 5 * inner else inner_high + inner
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def parameters(rows: Sequence[ParameterRow], colours: Mapping[Order, str] | None = None) -> str:
    """Draw a bar for each stage, with trained parameters in the colour of the order, frozen ones in grey, and both numbers.

    Args:
        rows: Stages.
        colours: Colour of each order. None uses `order_colours`.

    Returns:
        The figure as SVG.
    """
    with look():
        if not rows:
            return svg_text(nothing("No parameters to show."))
        order_colours = with_colours([row.order for row in rows], colours)
        labels, left = fitted_all([f"{row.order}  {row.stage}".strip() for row in rows], 2.4)
        numbers = [
            f"{_count(row.trained)} trained" + (f" + {_count(row.frozen)} frozen" if row.frozen else "") for row in rows
        ]
        figure, (ax,) = _bars(1, len(rows), left, max(text_width(n, 8) for n in numbers))
        _draw_parameters(ax, rows, numbers, order_colours)
        label_rows(ax, labels, [INK] * len(rows))
        ax.set_title("parameters")
        return svg_text(figure)


def _bars(num: int, rows: int, left: float, note: float) -> tuple[Any, list[Any]]:
    """Return a figure with panels of horizontal bars, which have `note` inches of space for a number to their right."""
    from trichord.report.plots_look import panels

    left, across = left + 0.2, note + 0.2
    width = (PAGE - left - num * across) / num
    return panels(num, num, (width, 0.1 + 0.22 * rows), left=left, right=across, across=across, bottom=0.3)


def _draw_parameters(
    ax: Axes, rows: Sequence[ParameterRow], numbers: Sequence[str], colours: Mapping[Order, str]
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for y, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        ax.barh(y, row.trained, height=0.62, color=colours[row.order])
        ax.barh(y, row.frozen, left=row.trained, height=0.62, color=LIGHT, edgecolor=GREY, linewidth=0.4, hatch="////")
        _beside(ax, row.trained + row.frozen, y, number)
    ax.set_xlim(0, max(max(row.trained + row.frozen for row in rows), 1))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))


def _beside(ax: Axes, x: float, y: float, text: str, colour: str = INK) -> None:
    """Write a text 4 points to the right of the end of a bar."""
    ax.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=colour,
        annotation_clip=False,
    )


def _count(value: float) -> str:
    """Return a rounded number, such as `44.7 M` for 44700000."""
    if value >= 999.5e6:
        return f"{value / 1e6:,.0f} M"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    """Return a rounded duration, such as `1 h 30 min` for 5400."""
    if seconds < 59.5:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        rest = round(seconds - 60 * (seconds // 60))
        return f"{int(seconds // 60)} min {rest:02d} s" if rest < 60 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} days"


def costs(rows: Sequence[CostRow], colours: Mapping[Order, str] | None = None, *, rules: Sequence[int] = ()) -> str:
    """Draw panels of bars with time, steps and clips seen of every row. A thin line precedes the rows with the indices `rules`."""
    with look():
        if not rows:
            return svg_text(nothing("No costs were recorded."))
        order_colours = with_colours([row.order for row in rows], colours)
        labels, left = fitted_all([f"{row.order}  {row.stage}".strip() for row in rows], 2.0)
        figure, axes = _bars(3, len(rows), left, text_width("not recorded", 8))
        for i, (ax, title, name) in enumerate(
            zip(axes, ("time", "optimizer steps", "clips seen"), ("seconds", "steps", "clips"), strict=True)
        ):
            written = _duration if name == "seconds" else _count
            values = [getattr(row, name) for row in rows]
            _draw_costs(ax, values, [order_colours[row.order] for row in rows], written)
            for rule in rules:
                ax.axhline(rule - 0.5, color=GREY, linewidth=0.6)
            label_rows(ax, labels, None if i else [INK] * len(rows))
            ax.set_title(title)
        return svg_text(figure)


def _draw_costs(ax: Axes, values: Sequence[float | None], colours: Sequence[str], written: Any) -> None:
    known = [v if v is not None and np.isfinite(v) else None for v in values]
    for y, (value, colour) in enumerate(zip(known, colours, strict=True)):
        if value is None:
            _beside(ax, 0, y, "not recorded", GREY)
        else:
            ax.barh(y, value, height=0.62, color=colour)
            _beside(ax, value, y, written(value))
    ax.set_xlim(0, max([v for v in known if v is not None], default=0) or 1)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
