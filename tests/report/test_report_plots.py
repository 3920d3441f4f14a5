"""Plots of the report: equal data gives equal SVG, values are drawn at their place, extreme inputs work."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.report import plots, plots_look, plots_space, plots_training
from trichord.report.plots_points import draw_points

SVG = "{http://www.w3.org/2000/svg}"
ORDERS = tuple(map(Order.parse, ("av>t", "at>v", "vt>a", "avt", "av>t>x", "ax>v>t")))
AV_T, AVT = ORDERS[0], ORDERS[3]
PAIR = ("AV→T", "AVT")
COLOURS = {"AV→T": plots_look.BLUE, "AVT": plots_look.PURPLE}
HOSTILE = "<script>alert('$x_1$ & \"\x00\n')</script> 音声 " + "very long " * 30


@contextmanager
def one_axes() -> Iterator[Any]:
    """Return axes with the common style."""
    from matplotlib.figure import Figure

    with plots_look.look():
        yield Figure(figsize=(3, 3)).subplots()


def texts(svg: str) -> list[str]:
    """Return all texts of a valid SVG."""
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def images(svg: str) -> list[Image.Image]:
    """Return the pictures in an SVG."""
    encoded = re.findall(r'xlink:href="data:image/png;base64,([^"]*)"', svg)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded]


def offsets(ax: Any) -> np.ndarray:
    """Return (n, 2) positions of all points of scatter plots."""
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


RECALLS = ("R@1", "R@5", "R@10")


def recall_panel(title: str = "YouCook2", orders: tuple[Order, ...] = ORDERS[:2]) -> plots.PointPanel:
    points = [
        [plots.Point(k + i + 5.0, k + i + 3.0, k + i + 8.0, k / 2) for k in (1, 5, 10)] for i in range(len(orders))
    ]
    rows = [plots.PointRow(str(o), own) for o, own in zip(orders, points, strict=True)]
    return plots.PointPanel(title, rows)


def difference_panel(title: str, *rows: tuple[str, float, float, float, bool]) -> plots.PointPanel:
    return plots.PointPanel(
        title, [plots.PointRow(label, [plots.Point(*ends, filled=apart)]) for label, *ends, apart in rows]
    )


def curves(seeds: int = 2, steps: int = 50) -> plots.StageCurves:
    rng = np.random.default_rng(0)
    at = np.arange(steps)
    sizes = {"loss": 9.0, "contrast_VT": 5.0, "reconstruction": 0.3}
    shapes = {t: [1 + np.exp(-at / 9) + 0.1 * rng.random(steps) for _ in range(seeds)] for t in sizes}
    return plots.StageCurves("AV→T", {t: [(at, sizes[t] * shape) for shape in series] for t, series in shapes.items()})


def scatter_panel(n: int, title: str = "AV→T") -> plots.ScatterPanel:
    rng = np.random.default_rng(n)
    names = ("video", "audio", "text")
    points = {m: rng.normal(size=(n, 2)).astype(np.float32) for m in names}
    return plots.ScatterPanel(title, points, {m: rng.integers(0, 32, n) for m in names}, np.array([0.31, 0.12]))


def every_plot(title: str, orders: tuple[Order, ...], seeds: int, queries: int = 30) -> dict[str, str]:
    """Return all ten plots of an artificial study."""
    rng = np.random.default_rng(0)
    ranks = [1 + rng.integers(0, 100, queries) for _ in range(2)]
    rows = [(title, float(d), d - 1.0, d + 1.0, True) for d in range(len(orders))]
    levels = {o: rng.random(seeds).tolist() for o in orders}
    return {
        "recalls": plots.intervals([recall_panel(title, orders)] * 3, "recall (%)", RECALLS),
        "differences": plots.differences([difference_panel(title, *rows)]),
        "curves": plots.learning_curves([plots.StageCurves(title, curves(seeds).terms)]),
        "wins": plots.wins_and_losses(
            plots.RankPanel(title, str(orders[0]), str(orders[-1]), *ranks),
            {str(order): colour for order, colour in plots.order_colours(orders).items()},
        ),
        "similarity": plots.similarity_matrices([plots.SimilarityPanel(title, rng.normal(size=(5, 5)))] * 2),
        "joint": plots.joint_space([scatter_panel(queries, title) for _ in orders]),
        "gaps": plots.gaps([plots.GapPanel(title, levels)]),
        "purity": plots.purity([plots.PurityRow(o, {title: levels[o]}, {title: 0.2}) for o in orders]),
        "parameters": plots.parameters([plots.ParameterRow(o, 0, 44_700_000, title) for o in orders]),
        "costs": plots.costs([plots.CostRow(o, 61.0, 270_000, None, title) for o in orders]),
    }


def test_equal_data_gives_equal_text_for_any_user_settings() -> None:
    first = every_plot("YouCook2", ORDERS[:3], 2, queries=300)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        again = every_plot("YouCook2", ORDERS[:3], 2, queries=300)
        assert dict(matplotlib.rcParams) == before
    assert again == first
    for name, svg in first.items():
        assert not re.search(r"<dc:date>|matplotlib\.org", svg), name


@pytest.mark.parametrize(("orders", "seeds"), [(ORDERS[:1], 1), (ORDERS, 10)])
def test_every_plot_is_text_that_fits_the_page(orders: tuple[Order, ...], seeds: int) -> None:
    for name, svg in every_plot("MSR-VTT", orders, seeds).items():
        root = ElementTree.fromstring(svg)
        assert float(root.attrib["width"].removesuffix("pt")) <= 675.01, name
        assert "MSR-VTT" in " ".join(texts(svg)), name
    assert "AV→T" in texts(plots.intervals([recall_panel(orders=orders)], "recall (%)", RECALLS))


def test_hostile_titles_are_one_short_line() -> None:
    for name, svg in every_plot(HOSTILE, (AV_T, AVT), 1).items():
        root = ElementTree.fromstring(svg)
        assert not list(root.iter(f"{SVG}script")), name
        shown = [t for t in texts(svg) if t.startswith("<scr") or "<scr" in t]
        assert shown and all(t.endswith("…") and len(t) < 150 for t in shown), (name, shown)


def test_empty_plots_say_so() -> None:
    assert any(t.startswith("No ") for t in texts(plots.intervals([], "recall (%)")))
    for draw in (plots.differences, plots.similarity_matrices, plots.joint_space):
        assert any(t.startswith("No ") for t in texts(draw([])))  # type: ignore[operator]
    for draw in (plots.learning_curves, plots.gaps, plots.purity, plots.parameters, plots.costs):
        assert any(t.startswith("No ") for t in texts(draw([])))  # type: ignore[operator]
    assert "No ranks to compare." in texts(plots.wins_and_losses(plots.RankPanel("x", *PAIR, [], []), COLOURS))
    assert "No joint" not in plots.joint_space([scatter_panel(0)])
    assert plots.learning_curves([plots.StageCurves("x", {})]) == plots.learning_curves([])
    assert "no finite value" in texts(plots.learning_curves([plots.StageCurves("x", {"loss": [], "b": [([], [])]})]))


def test_orders_have_one_colour_in_all_studies() -> None:
    some = plots.order_colours([AVT, ORDERS[1]])
    every = plots.order_colours(ORDERS)
    assert some == {order: every[order] for order in some}
    assert len(set(every.values())) == len(ORDERS)
    pair = AV_T.up_to(0)
    assert plots.order_colours([pair])[pair] == every[AV_T]
    assert not set(every.values()) & {plots_look.GREY, plots_look.LIGHT}


def test_given_colours_win() -> None:
    svg = plots.parameters([plots.ParameterRow(AV_T, 0, 5)], {AV_T: "#123456"})
    assert "#123456" in svg
    assert "#123456" not in plots.parameters([plots.ParameterRow(AVT, 0, 5)], {AV_T: "#123456"})


def test_recalls_are_drawn_at_their_values() -> None:
    points = [plots.Point(10.0, 8.0, 13.0, 0.5), plots.Point(30.0, float("nan"), 40.0, 2.5)]
    panel = plots.PointPanel("x", [plots.PointRow("AV→T", points), plots.PointRow("AVT", [None, None])])
    with one_axes() as ax:
        draw_points(ax, panel, 2)
        lines = [np.asarray(line.get_xydata()) for line in ax.lines]
        drawn = {round(float(xy[0, 0]), 3): float(xy[0, 1]) for xy in lines if len(xy) == 1}
        bars = [tuple(xy[:, 0]) for xy in lines if len(xy) == 2 and xy[0, 1] == xy[1, 1] and xy[1, 0] > 1]
        assert set(drawn) == {10.0, 30.0, 0.5, 2.5} and bars == [(8.0, 13.0)]
        assert drawn[10.0] == drawn[0.5] < drawn[30.0] == drawn[2.5]  # chance stands in its recall's row
        assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 30
        assert [t.get_text() for t in ax.texts] == ["not scored"]


def test_significant_differences_are_filled() -> None:
    rows = [("a", 1.0, 0.5, 1.5, True), ("b", 0.2, -0.5, 0.9, False), ("c", -3.0, -4.0, -2.0, False)]
    with one_axes() as ax:
        draw_points(ax, difference_panel("x", *rows), zero_line=True)
        points = [line for line in ax.lines if len(line.get_xdata()) == 1]
        assert [float(line.get_xdata()[0]) for line in points] == [1.0, 0.2, -3.0]
        assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, False]
        assert ax.get_xlim()[0] < -4 and ax.get_xlim()[1] > 1.5
    with one_axes() as ax:
        draw_points(ax, difference_panel("x", ("a", 5.0, 4.0, 6.0, True)), zero_line=True)
        assert ax.get_xlim()[0] < 0  # zero is always there


def test_panels_that_differ_in_rows_have_their_own_labels() -> None:
    one, two = (difference_panel(t, (f"{t} row", 1.0, 0.0, 2.0, False)) for t in ("one", "two"))
    assert {"one row", "two row"} <= set(texts(plots.differences([one, two])))
    assert texts(plots.differences([one, one])).count("one row") == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=60), st.integers(1, 20))
def test_thinning_keeps_the_mean(values: list[float], num: int) -> None:
    steps = np.arange(len(values))
    edges = plots_training.block_edges([(steps, values)], num)
    assert len(edges) <= num + 1
    at, means = plots.block_means(steps, values, edges)
    count = np.histogram(steps, edges)[0]
    assert count.sum() == len(values)  # no step is lost
    for i in np.flatnonzero(count):
        inside = (steps >= edges[i]) & ((steps < edges[i + 1]) | (i == len(count) - 1))
        scale = float(np.abs(np.asarray(values)[inside]).max())
        assert abs(means[i] - (np.asarray(values)[inside] / inside.sum()).sum()) <= 1e-9 * scale
        assert at[i] == pytest.approx(steps[inside].mean())
    assert np.isnan(means[count == 0]).all()


def test_thinning_removes_values_that_are_not_finite() -> None:
    values = [1.0, np.nan, np.inf, 5.0, np.nan, -np.inf]
    at, means = plots.block_means(range(6), values, np.array([0, 2, 4, 5]))
    np.testing.assert_array_equal(at, [0, 3, np.nan])
    np.testing.assert_array_equal(means, [1, 5, np.nan])


def test_long_runs_become_few_points_and_short_ones_stay() -> None:
    steps = np.arange(270_000)
    with one_axes() as ax:
        plots_training._draw_curves(ax, [(steps, 5 - steps / 1e5)] * 3, 400)
        assert [len(line.get_xdata()) for line in ax.lines] == [400] * 4
        np.testing.assert_allclose(ax.lines[-1].get_ydata(), 5 - np.asarray(ax.lines[-1].get_xdata()) / 1e5)
    with one_axes() as ax:
        values = np.random.default_rng(0).random(300)
        plots_training._draw_curves(ax, [(np.arange(300), values)], 400)
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), values)
        assert len(ax.lines) == 1  # the median of one seed is the seed


def test_median_over_seeds_of_different_length() -> None:
    seeds = [(range(4), [1.0, 2.0, 3.0, 4.0]), (range(4), [3.0, 2.0, 9.0, 6.0]), (range(2), [8.0, 8.0])]
    with one_axes() as ax:
        plots_training._draw_curves(ax, seeds, 400)
        np.testing.assert_array_equal(ax.lines[-1].get_ydata(), [3, 2, 6, 5])
        assert ax.lines[-1].get_linewidth() > ax.lines[0].get_linewidth()


def test_lost_seeds_are_dashed_and_not_in_the_median() -> None:
    seeds = [(range(4), [1.0, 2.0, 3.0, 4.0]), (range(4), [3.0, 4.0, 5.0, 6.0])]
    with one_axes() as ax:
        plots_training._draw_curves(ax, seeds, 400, [(range(2), [90.0, 95.0])])
        assert [line.get_linestyle() for line in ax.lines] == ["-", "-", "--", "-"]
        np.testing.assert_array_equal(ax.lines[2].get_ydata(), [90, 95])
        np.testing.assert_array_equal(ax.lines[-1].get_ydata(), [2, 3, 4, 5])
    with one_axes() as ax:
        plots_training._draw_curves(ax, seeds[:1], 400, [(range(2), [90.0, 95.0])] * 3)
        assert len(ax.lines) == 4, "the median of one finished seed is the seed"
    note = "not finished or diverged: not in the median"
    assert note in texts(plots.learning_curves([plots.StageCurves("x", {"loss": seeds}, {"loss": seeds[:1]})]))
    assert "loss" in texts(plots.learning_curves([plots.StageCurves("x", {}, {"loss": seeds})]))
    assert note not in texts(plots.learning_curves([curves()]))
    with pytest.raises(TrichordError, match="loss has 2 steps and 1 values"):
        plots.learning_curves([plots.StageCurves("x", {}, {"loss": [([1, 2], [1.0])]})])


def test_a_diverged_seed_ends_in_a_cross() -> None:
    values = np.linspace(5, 3, 100)
    stopped = np.where(np.arange(100) < 40, values, np.nan)
    with one_axes() as ax:
        plots_training._draw_curves(ax, [(np.arange(100), values), (np.arange(100), stopped)], 400)
        (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
        assert cross.get_xdata()[0] == 39 and cross.get_ydata()[0] == values[39]
        assert ax.get_xlim()[1] > 99
    stage = plots.StageCurves("x", {"loss": [(range(100), stopped)]})
    assert "no longer finite from here" in texts(plots.learning_curves([stage]))
    assert "no longer finite from here" not in texts(plots.learning_curves([curves()]))


def test_a_few_huge_values_do_not_flatten_the_curve() -> None:
    values = np.linspace(5, 3, 200)
    values[7] = 1e300
    with one_axes() as ax:
        plots_training._draw_curves(ax, [(np.arange(200), values), (np.arange(200), values)], 400)
        low, high = ax.get_ylim()
        assert low <= 3 and 5 <= high < 10
        assert [t.get_text() for t in ax.texts] == ["reaches 1e+300"]
    ElementTree.fromstring(plots.learning_curves([plots.StageCurves("x", {"loss": [(range(200), values)]})]))


def test_terms_of_different_size_fill_their_own_panels() -> None:
    for term, seeds in curves().terms.items():
        with one_axes() as ax:
            plots_training._draw_curves(ax, seeds, 400)
            low, high = ax.get_ylim()
            values = np.concatenate([v for _, v in seeds])
            assert (values.max() - values.min()) / (high - low) > 0.85, term
    with pytest.raises(TrichordError, match="loss has 2 steps and 1 values"):
        plots.learning_curves([plots.StageCurves("x", {"loss": [([1, 2], [1.0])]})])


def test_wins_and_losses_are_the_ranks_and_their_shares() -> None:
    a, b = np.array([2, 5, 8, 2]), np.array([5, 5, 1, 2.5])
    panel = plots.RankPanel("x", *PAIR, a, b)
    shown = texts(plots.wins_and_losses(panel, COLOURS))
    assert {"AV→T ranks better: 50.0 %", "AVT ranks better: 25.0 %", "equal: 25.0 %"} <= set(shown)
    with one_axes() as ax:
        plots._draw_ranks(ax, panel, a, b, COLOURS)
        np.testing.assert_array_equal(offsets(ax), [[2, 5], [5, 5], [8, 1], [2, 2.5]])
        faces = [matplotlib.colors.to_hex(c) for c in ax.collections[0].get_facecolors()]
        assert faces == [COLOURS["AV→T"], plots_look.GREY, COLOURS["AVT"], COLOURS["AV→T"]]
        assert ax.get_xscale() == ax.get_yscale() == "log" and ax.get_xlim() == ax.get_ylim()


def test_ranks_that_do_not_fit_or_are_missing() -> None:
    with pytest.raises(TrichordError, match="AV→T has ranks of 3 queries and AVT of 2"):
        plots.wins_and_losses(plots.RankPanel("x", *PAIR, [1, 2, 3], [1, 2]), COLOURS)
    svg = plots.wins_and_losses(plots.RankPanel("x", *PAIR, [1, 2, np.inf], [1, np.nan, 3]), COLOURS)
    assert {"2 queries without a rank are left out", "equal: 100.0 %"} <= set(texts(svg))


@pytest.mark.parametrize(("num", "rasters"), [(800, 0), (801, 1)])
def test_many_points_become_a_picture(num: int, rasters: int) -> None:
    ranks = 1 + np.random.default_rng(0).integers(0, 1000, (2, num))
    svg = plots.wins_and_losses(plots.RankPanel("x", *PAIR, ranks[0], ranks[1]), COLOURS)
    assert len(images(svg)) == rasters
    if rasters:
        assert len(svg) < 150_000
        assert np.asarray(images(svg)[0].convert("RGBA"))[..., 3].any()


def test_matrices_keep_their_values_on_one_scale() -> None:
    matrices = [np.array([[1.0, 0.0], [-0.5, np.nan]]), np.array([[0.25, 0.25]], np.float16)]
    svg = plots.similarity_matrices([plots.SimilarityPanel(f"m{i}", m) for i, m in enumerate(matrices)])
    first, second, _ = (np.asarray(image.convert("RGB")).astype(int) for image in images(svg))
    assert first.shape == (2, 2, 3) and second.shape == (1, 2, 3)  # one pixel a cosine
    shades = matplotlib.colormaps["RdBu_r"]
    for pixel, cosine in ((first[0, 0], 1.0), (first[0, 1], 0.0), (first[1, 0], -0.5), (second[0, 0], 0.25)):
        np.testing.assert_allclose(pixel, np.array(shades((cosine + 1) / 2)[:3]) * 255, atol=3)
    np.testing.assert_array_equal(first[1, 1], [128] * 3)
    with pytest.raises(TrichordError, match="not of shape"):
        plots.similarity_matrices([plots.SimilarityPanel("x", np.zeros(3))])


def test_joint_space_shows_the_same_points_twice() -> None:
    panel = scatter_panel(20)
    drawn = []
    for by in ("modality", "cluster"):
        with one_axes() as ax:
            plots_space._draw_space(ax, panel, by, False)
            faces = [matplotlib.colors.to_hex(c) for c in ax.collections[0].get_facecolors()]
            drawn.append(dict(zip(map(tuple, offsets(ax).astype(np.float32)), faces, strict=True)))
            assert np.diff(ax.get_xlim()) == pytest.approx(np.diff(ax.get_ylim()))
    by_modality, by_cluster = drawn
    assert by_modality.keys() == by_cluster.keys() and len(by_modality) == 60
    for modality, points in panel.coordinates.items():
        assert {by_modality[tuple(p)] for p in points} == {plots_look.modality_colour(modality)}
        for point, cluster in zip(points, panel.cluster[modality], strict=True):
            colour = matplotlib.colormaps["tab20"](int(cluster) % 20)
            assert by_cluster[tuple(point)] == matplotlib.colors.to_hex(colour)


def test_joint_spaces_of_many_points_or_odd_ones() -> None:
    svg = plots.joint_space([scatter_panel(300)])
    assert len(images(svg)) == 2 and {"video", "audio", "text", "axis 1 (31 %)"} <= set(texts(svg))
    points = {"video": np.array([[np.nan, 1.0], [np.inf, 0.0]]), "sound": np.zeros((1, 2))}
    odd = plots.ScatterPanel("x", points, {"video": [0, 1], "sound": [0]}, [])
    assert "axis 1 (share unknown)" in texts(plots.joint_space([odd] * 5))
    with pytest.raises(TrichordError, match="one cluster for each of the 2 points of video"):
        plots.joint_space([plots.ScatterPanel("x", points, {}, [])])
    with pytest.raises(TrichordError, match="coordinates of text have the shape"):
        plots.joint_space([plots.ScatterPanel("x", {"text": np.zeros((2, 3))}, {"text": [0, 0]}, [])])


def test_rows_have_a_dot_a_seed_their_mean_and_chance() -> None:
    with one_axes() as ax:
        plots_space._draw_row(ax, 2, np.array([0.2, 0.6]), np.array([0.1, 0.3]), "#0072b2")
        np.testing.assert_allclose(offsets(ax), [[0.2, 2], [0.6, 2]])
        ticks = {line.get_color(): float(line.get_xdata()[0]) for line in ax.lines}
        assert ticks == pytest.approx({plots_look.GREY: 0.2, "#0072b2": 0.4})
    row = plots.PurityRow(AV_T, {"label": [None, float("nan")], "modalities": [0.5]}, {"label": None})
    shown = texts(plots.purity([row]))
    assert {"label", "modalities", "AV→T", "not measured"} <= set(shown)
    shown = texts(plots.gaps([plots.GapPanel("VT", {AV_T: [0.3, None]}), plots.GapPanel("VA", {AVT: [np.inf]})]))
    assert {"V–T", "V–A", "AV→T", "AVT"} <= set(shown) and shown.count("not measured") == 3


def test_parameters_are_stacked_and_written() -> None:
    rows = [
        plots.ParameterRow(AV_T.up_to(0), 0, 31_200_000),
        plots.ParameterRow(AV_T, 31_200_000, 44_700_000, "stage 2"),
    ]
    shown = set(texts(plots.parameters(rows)))
    assert {"31.2 M trained", "44.7 M trained + 31.2 M frozen", "AV", "AV→T stage 2"} <= shown
    with one_axes() as ax:
        plots_training._draw_parameters(ax, rows, ["", ""], plots.order_colours([row.order for row in rows]))
        bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
        assert bars[2:] == [(0, 44_700_000), (44_700_000, 31_200_000)]
        assert ax.get_xlim() == (0, 75_900_000)
    assert "0 trained" in texts(plots.parameters([plots.ParameterRow(AVT, 0, 0)]))


def test_costs_are_shown_or_reported_as_missing() -> None:
    rows = [plots.CostRow(AV_T, 4_920.0, 270_000, 1_100_000_000), plots.CostRow(AVT, None, None, float("nan"))]
    shown = texts(plots.costs(rows))
    assert {"1 h 22 min", "270 k", "1,100 M"} <= set(shown) and shown.count("not recorded") == 3
    assert len(plots.costs(rows, rules=[1])) > len(plots.costs(rows))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.25, "0.25 s"), (59.4, "59.4 s"), (59.7, "1 min"), (90, "1 min 30 s"), (119.8, "2 min"),
     (3599.8, "1 h 00 min"), (5400, "1 h 30 min"), (2 * 86400, "2.0 days")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert plots_training._duration(seconds) == text


def test_counts() -> None:
    for value, text in ((0, "0"), (0.5, "0.5"), (999, "999"), (999.6, "1 k"), (44.7e6, "44.7 M"), (999.6e6, "1,000 M")):
        assert plots_training._count(value) == text
