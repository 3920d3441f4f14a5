"""Figures of orders and their tables, from artificial runs."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report_helpers import write_study_folder
from table_helpers import scores_of_rows
from trichord.evaluation.statistics import mean_interval
from trichord.modality import Order
from trichord.study.evaluate_orders import OrdersEvaluation
from trichord.study.evaluation_tables import order_tables
from trichord.study.figures import ScoredRun, notes_of_seeds, order_figures
from trichord.study.plan import first_stage_label
from trichord.study.scores import read_scores
from trichord.study.trained_runs import TrainedRun
from trichord.tasks.protocol import Row


def evaluated(seed: int, made: Row, first: str = "", units: str = "abcd") -> ScoredRun:
    run = TrainedRun(Order.parse("av>t"), seed, f"stage{seed}", first or f"first{seed}")
    return ScoredRun(run, scores_of_rows({"b": [made]}, {"b/id": np.array(list(units))}))


def row(each: list[float], **more: Any) -> Row:
    values = np.array(each)
    return Row("b", "t2v", "R@1", 100 * float(np.nanmean(values)), int((~np.isnan(values)).sum()), 1.0, **more).over(
        values, "b/id"
    )


def test_runs_that_share_a_first_stage_are_one_seed() -> None:
    same, other = [1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]
    (own,) = order_figures([evaluated(0, row(same)), evaluated(1, row(other))])
    assert (own.num_seeds, own.seeds) == (2, "2") and own.interval == mean_interval(np.array([same, other]))
    (shared,) = order_figures([evaluated(0, row(same), "av"), evaluated(1, row(other), "av")])
    assert (shared.num_seeds, shared.seeds, shared.estimate) == (1, "1 (2 runs)", pytest.approx(62.5))
    assert shared.interval is not None and shared.interval.low == own.interval.low, "conditional: over the later seeds"
    assert notes_of_seeds([shared]) == ["2 runs share 1 first stage: the interval is for this first stage only."]
    runs = [evaluated(0, row(same), "av"), evaluated(1, row(same), "av"), evaluated(2, row(other), "av2")]
    (nested,) = order_figures(runs)
    assert nested.num_seeds == 2 and nested.estimate == pytest.approx(62.5), "each first stage weighs the same"


def test_the_seed_of_a_first_stage_is_in_the_name_of_its_folder() -> None:
    assert first_stage_label("av.seed7.0a1b2c3d", 2) == 7 and first_stage_label("av", 2) == "av"
    assert first_stage_label("", 2) == 2, "not known: its own"


def test_seeds_over_other_units_have_a_mean_and_no_interval() -> None:
    same, fewer = [1.0, 0.0, 1.0, 1.0], [1.0, 0.0, np.nan, 1.0]
    for second in (evaluated(1, row(same), units="abce"), evaluated(1, row(fewer))):
        (figure,) = order_figures([evaluated(0, row(same)), second])
        assert figure.interval is None and figure.num_seeds == 2
    assert figure.estimate == pytest.approx((75 + 200 / 3) / 2) and figure.num == 3
    (one,) = order_figures([evaluated(0, row(fewer))])
    assert one.interval == mean_interval(np.array([1.0, 0.0, 1.0]))


def test_measures_that_do_not_fit_have_a_table_of_their_own() -> None:
    from rich.console import Console

    def made(order: str) -> ScoredRun:
        rows = [
            Row("b", "t2va, sum", f"recall number {i}, mean over videos", 200 / 3, 3, 50.0).over(
                np.array([1.0, 0.0, 1.0]), "b/id"
            )
            for i in range(9)
        ]
        return ScoredRun(
            TrainedRun(Order.parse(order), 0, "s", "f"), scores_of_rows({"b": rows}, {"b/id": np.array(list("abc"))})
        )

    figures = order_figures([made("av>t"), made("vt")])
    tables = order_tables(figures, [Order.parse(code) for code in ("av>t", "vt", "av")])
    assert len(tables) == 2
    console = Console(width=120, file=io.StringIO())
    for table in tables:
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    shown = [line for line in text.splitlines() if line.startswith("│ AV→T")]
    assert len(shown) == 2 and sum(line.count("[") for line in shown) == 9, "no cell is broken into lines"
    assert [line for line in text.splitlines() if line.startswith("│ AV ")][0].count("-") >= 4


def test_notes_are_printed_once() -> None:
    def made(order: str, seed: int, *notes: str) -> ScoredRun:
        return ScoredRun(
            TrainedRun(Order.parse(order), seed, "s", "f"), scores_of_rows({}, notes=["of all", *notes, *notes])
        )

    runs = [made("av>t", 0, "of some"), made("av>t", 1, "of some"), made("avt", 0), made("avt", 4, "of some")]
    assert OrdersEvaluation(Path("study"), runs).notes() == ["of all", "AV→T seeds 0, 1; AVT seed 4: of some"]


def test_seeds_make_one_figure() -> None:
    def made(seed: int, *ofs: str) -> ScoredRun:
        rows = [Row("clustering", target, "NMI", 10.0 * (seed + 1), 4, 5.0) for target in ofs]
        return ScoredRun(TrainedRun(Order.parse("av>t"), seed, "s", f"f{seed}"), scores_of_rows({"clustering": rows}))

    figures = order_figures([made(seed, "video, tool", "video, tool, own centroids") for seed in (0, 1)])
    assert [f.of for f in figures] == ["video, tool", "video, tool, own centroids"]
    assert all(f.estimate == 15 and f.num_seeds == 2 and f.interval is None for f in figures)


def test_the_scores_of_a_run_reach_the_other_processes_of_a_launch(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["avt"], seeds=[0])
    path = folder / "orders" / "avt" / "seed-0"
    run = ScoredRun(TrainedRun(Order.parse("avt"), 0, "s", "f"), read_scores(path).loaded())
    (path / "queries.npz").unlink()
    received = pickle.loads(pickle.dumps(run))
    assert order_figures([received]) == order_figures([run]) and len(order_figures([run])) == 2 * 5
