"""Reading of study folders for the report."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report_helpers import ORDERS, SKILL, captions_in, result_of, targets, write_study_folder
from trichord.errors import TrichordError
from trichord.modality import Direction, Order
from trichord.report.analysis import MAIN_RECALL, Target, analyse_study, check_comparable, interactions, untouched
from trichord.report.compare import compare_studies
from trichord.report.queries import clearest_duel
from trichord.report.reading import Study, read_study
from trichord.report.tables import order_table, sizes_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study_folder(
        tmp_path_factory.mktemp("study"), orders=[*ORDERS, "vt", "av"], benchmarks={"tiny": 60, "other": 90}
    )


@pytest.fixture(scope="module")
def studied(folder: Path) -> tuple[Study, list[Target]]:
    """The study as it is read, and its analysis."""
    study = read_study(folder)
    return study, targets(study)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_study_folder(tmp_path / "own", orders=["av>t", "vt>a"], seeds=[0, 1])


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return write_study_folder(tmp_path / "earlier", orders=["av>t", "vt>a"], seeds=[0, 1], earlier=True)


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_study_is_read_with_all_its_runs(folder: Path) -> None:
    study = read_study(folder)
    assert len(study.runs) == len(study.done) == 6 * 3 and tuple(order.code for order in study.orders) == (
        *ORDERS,
        "vt",
        "av",
    )
    assert [d.code for d in study.directions] == ["t2v", "v2a"] and [b["name"] for b in study.benchmarks] == [
        "tiny",
        "other",
    ]
    stage = next(s for s in study.stages.values() if s.order.code == "av>t")
    assert (stage.trained, stage.frozen, stage.num_steps, stage.num_clips) == (1_000_000, 2_000_000, 40, 40 * 32)
    assert stage.seconds == pytest.approx(4.0) and stage.finished
    curve = study.curves(stage)["contrast_VT"]
    assert curve.steps.tolist() == list(range(1, 41)) and curve.values[0] > curve.values[-1]
    assert captions_in(study, "tiny")[3] == "cut the 3 onions"
    assert study.geometry(study.done[0], "tiny") is not None and study.geometry(study.done[0], "none") is None


def test_recalls_are_those_of_the_runs(studied: tuple[Study, list[Target]]) -> None:
    study, analysed = studied
    for target in analysed:
        for name, figures in target.figures.items():
            rows = [result_of(run, target.benchmark, "t2v") for run in study.runs_of(target.models[name].system.order)]
            for k in (1, 5, 10):
                mean = np.mean([row[f"r{k}"] for row in rows])
                interval = figures[f"R@{k}"].interval
                assert (
                    interval is not None
                    and interval.estimate == pytest.approx(mean)
                    and interval.low <= mean <= interval.high
                )
                assert interval.num_seeds == 3


def test_pairs_alone_are_shown_but_not_compared(studied: tuple[Study, list[Target]]) -> None:
    target, whole = studied[1][0], ("AV→T", "AT→V", "VT→A", "AVT")
    assert tuple(target.figures) == (*whole, "VT") and target.compared == whole and target.beside == {"VT"}
    differences = target.comparisons[0].differences
    assert {d.a for d in differences} | {d.b for d in differences} == set(whole)


def test_the_planted_order_is_found(tmp_path: Path) -> None:
    skill = {**SKILL, "avt": 0.0, "vt>a": 3.0, "at>v": 0.0, "av>t": 0.0}
    study = read_study(write_study_folder(tmp_path / "s", seeds=range(6), benchmarks={"tiny": 400}, skill=skill))
    (bench,) = analyse_study(study, Direction.parse("t2v"))
    (comparison,) = bench.targets[0].comparisons
    assert bench.targets[0].winner == "VT→A" and comparison.verdict.startswith("VT→A beats every other order")
    duel = clearest_duel(bench)
    assert duel is not None and duel.a == "VT→A" and duel.wins > 5 * duel.losses
    assert duel.wins + duel.ties + duel.losses == 400
    ahead, behind = duel.furthest(5)
    assert (duel.value_a[ahead] < duel.value_b[ahead]).all() and (duel.value_a[behind] > duel.value_b[behind]).all()


def test_missing_clips_count_as_errors_everywhere(tmp_path: Path) -> None:
    study = read_study(write_study_folder(tmp_path / "s", benchmarks={"tiny": 80}, num_missing=20))
    (target,) = targets(study)
    (sizes,) = sizes_table([target]).rows
    assert sizes[3].text == "20, counted as errors" and (sizes[1].value, sizes[2].value) == (80, 60)
    chance = order_table([target], {"tiny": {}}, Direction.parse("t2v"), 0.95).rows[-1]
    assert chance[3].value == pytest.approx(100 * 10 / 60 * 60 / 80)
    ranks, hits, fives = (target.runs("AVT", measure) for measure in ("MedR", MAIN_RECALL, "R@5"))
    assert ranks is not None and hits is not None and fives is not None
    assert ranks.values.shape == (3, 80) and (ranks.values[:, 60:] == 80).all()
    assert hits.values[:, 60:].sum() == 0 and hits.values[:, :60].any()
    row = result_of(study.runs_of(Order.parse("avt"))[0], "tiny", "t2v")
    assert 100 * fives.values[0].mean() == pytest.approx(row["r5"])


def test_interactions_between_benchmarks(studied: tuple[Study, list[Target]]) -> None:
    (interaction,) = interactions(studied[1])
    assert (
        (interaction.first, interaction.second) == ("Tiny", "Other")
        and len(interaction.pairs) == 6
        and interaction.verdict
    )


def test_later_frozen_stages_leave_the_first_pair_untouched() -> None:
    unchanged = {code: untouched(Order.parse(code), Direction.parse("t2v")) for code in ("vt>a", "av>t", "avt")}
    assert unchanged == {"vt>a": True, "av>t": False, "avt": False}


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=r"contains no study \(there is no study.json\); give the --out folder"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text("{torn")
    with pytest.raises(TrichordError, match="study.json: cannot be read"):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "its recipe has no evaluation.directions"),
        ({"evaluation": {"directions": "t2v"}}, "its recipe has no evaluation.directions"),
        ({"evaluation": {"directions": [{"t2v": 1}]}}, "its recipe has no evaluation.directions"),
        ({"evaluation": {"directions": ["t2v"]}, "later_stages": [1]}, "later_stages of its recipe is not an object"),
    ],
)
def test_a_recipe_of_other_form_is_refused(own: Path, recipe: dict[str, Any], message: str) -> None:
    edit(own / "study.json", lambda c: c.update(recipe=recipe))
    with pytest.raises(TrichordError, match=f"study.json: {message}"):
        read_study(own)


def test_unfinished_and_diverged_runs_are_listed_and_left_out(own: Path) -> None:
    study = read_study(own)
    stages = {run.order.code: run.stages for run in study.runs if run.seed == 0}
    (own / "stages" / stages["av>t"][1] / "model.json").unlink()
    (own / "stages" / stages["vt>a"][1] / "diverged.json").write_text('{"message": "stage vt>a, step 7: the loss"}')
    study = read_study(own)
    assert [(run.order.code, run.seed, run.status) for run in study.runs] == [
        ("av>t", 0, "unfinished"),
        ("vt>a", 0, "diverged"),
        ("av>t", 1, "done"),
        ("vt>a", 1, "done"),
    ]
    assert "step 7" in study.runs[1].why and "has not been trained" in study.runs[0].why
    (target,) = targets(study)
    assert all(target.models[order].seeds == (1,) for order in target.figures)
    assert target.winner is None and "one seed" in target.comparisons[0].verdict


def test_figures_of_another_training_are_not_taken(own: Path) -> None:
    edit(own / "orders" / "av-t" / "seed-0" / "results.json", lambda c: c["identity"].update(stage="other"))
    run = read_study(own).runs[0]
    assert run.status == "unfinished" and "belong to another training" in run.why


def test_a_study_without_finished_runs_is_an_error(own: Path) -> None:
    for path in own.glob("orders/*/*/results.json"):
        path.unlink()
    with pytest.raises(TrichordError, match="no finished run to report .AV→T seed 0: unfinished .not evaluated"):
        read_study(own)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("missing", "miss", "the policy for missing clips is drop in one and miss in the other"),
        ("ties", "best", "the tie policy is expected in one and best in the other"),
        ("num_gallery", 61, "the gallery's size is 60 in one and 61 in the other"),
    ],
)
def test_runs_under_other_policies_are_refused(own: Path, key: str, value: Any, message: str) -> None:
    edit(
        own / "orders" / "vt-a" / "seed-1" / "results.json",
        lambda c: c["benchmarks"][0]["results"][0].update({key: value}),
    )
    with pytest.raises(TrichordError, match=f"AV→T seed 0 and VT→A seed 1 cannot be compared on tiny t2v: {message}"):
        check_comparable(read_study(own))


def test_runs_scored_otherwise_are_refused(own: Path) -> None:
    edit(
        own / "orders" / "vt-a" / "seed-1" / "results.json", lambda c: c["identity"]["evaluation"].update(cosine="yes")
    )
    with pytest.raises(
        TrichordError, match="evaluation.cosine is auto in one and yes in the other; run the study again"
    ):
        check_comparable(read_study(own))


def test_runs_on_other_clips_are_refused(earlier: Path) -> None:
    path = earlier / "orders" / "vt-a" / "seed-1.npz"
    arrays = dict(np.load(path))
    arrays["tiny/video_id"] = np.array(["x" if v == "v7" else v for v in arrays["tiny/video_id"]])
    np.savez_compressed(path, **arrays)
    with pytest.raises(TrichordError, match="units differ: 'v7' is only in one"):
        check_comparable(read_study(earlier))


def test_runs_on_other_times_of_the_same_videos_are_refused(own: Path) -> None:
    path = own / "orders" / "vt-a" / "seed-1" / "queries.npz"
    arrays = dict(np.load(path))
    times = arrays["tiny/end_s"].copy()
    for end, refused in ((5.0001, False), (6.0, True)):
        times[7] = end
        np.savez_compressed(path, **{**arrays, "tiny/end_s": times})
        with (
            nullcontext()
            if not refused
            else pytest.raises(
                TrichordError, match="the ends of the clips differ: number 7 is '5.0' in one and '6.0' in the other"
            )
        ):
            check_comparable(read_study(own))


@pytest.mark.parametrize(
    ("row", "arrays", "message"),
    [
        ({"num_queries": 10**300}, {}, "the ranks and the figures of tiny/t2v differ in the number of queries"),
        ({"r10": 10**390}, {}, "the r10 of a row is invalid"),
        ({"r10": 99.0}, {}, "R@10/each does not match results.json, where the R@10 of .* is 99"),
        ({"fusion": ["x"]}, {}, "the fusion of a row is invalid"),
        ({"fusion": "a, b: c"}, {}, "the fusion rule of tiny/t2v is invalid"),
        ({"missing": "lost"}, {}, "the missing of a row is neither drop nor miss"),
        ({}, {"equal": 0}, "the ranks of tiny/t2v do not fit its gallery of 60"),
        ({}, {"clip": -1}, "tiny/t2v/clip contains numbers of clips that do not exist"),
        ({"direction": "t2"}, {}, "direction 't2' is not of the form query2target.*; run the study again"),
    ],
)
def test_figures_that_do_not_fit_their_ranks_are_refused(
    earlier: Path, row: dict[str, Any], arrays: dict[str, int], message: str
) -> None:
    path = earlier / "orders" / "vt-a" / "seed-1.json"
    edit(path, lambda c: c["results"][0].update(row))
    kept = dict(np.load(path.with_suffix(".npz")))
    kept |= {f"tiny/t2v/{part}": np.full_like(kept[f"tiny/t2v/{part}"], value) for part, value in arrays.items()}
    np.savez_compressed(path.with_suffix(".npz"), **kept)
    with pytest.raises(TrichordError, match=f"seed-1.*{message}"):
        check_comparable(read_study(earlier))


def test_an_unknown_direction_lists_the_known_ones(own: Path) -> None:
    with pytest.raises(TrichordError, match="no run was scored in direction 'a2t'; choose one of t2v, v2a"):
        targets(own, "a2t")


def test_two_studies_are_compared_query_by_query(tmp_path: Path) -> None:
    better = {order: skill + 1.5 for order, skill in SKILL.items()}
    a = read_study(write_study_folder(tmp_path / "a", seeds=range(4), benchmarks={"tiny": 300}))
    b = read_study(write_study_folder(tmp_path / "b", seeds=range(4), benchmarks={"tiny": 300}, skill=better))
    b.content["recipe"]["training"]["learning_rate"] = 0.5
    b.content["versions"]["torch"] = "9"
    document = compare_studies(a, b)
    settings, versions, figures = document.tables()
    assert [[cell.text for cell in row] for row in settings.rows] == [["training.learning_rate", "0.001", "0.5"]]
    assert [[cell.text for cell in row] for row in versions.rows] == [["torch", "2.13.0", "9"]]
    assert any("AV→T: R@10 is" in line and "higher in B" in line for line in document.summary)
    assert "Both were trained on the same data" in " ".join(document.summary)
    for row in figures.rows:
        value = row[4].value
        assert isinstance(value, float) and row[3].value - row[2].value == pytest.approx(value)  # type: ignore[operator]
    same = compare_studies(a, a)
    assert "no difference at R@10 is significant" in " ".join(same.summary) and "No setting differs." in same.summary


def test_studies_on_other_galleries_are_refused(tmp_path: Path) -> None:
    def study_on(name: str, benchmarks: dict[str, int]) -> Study:
        orders, seeds = ["av>t", "avt"], [0, 1]
        return read_study(write_study_folder(tmp_path / name, orders=orders, seeds=seeds, benchmarks=benchmarks))

    a, b = study_on("a", {"tiny": 60}), study_on("b", {"tiny": 61})
    with pytest.raises(
        TrichordError, match="cannot be compared: Tiny is not compared, since the gallery's size is 60 in A"
    ):
        compare_studies(a, b)
    c = study_on("c", {"fresh": 60})
    with pytest.raises(TrichordError, match="they have no benchmark in common"):
        compare_studies(a, c)
    d, e = study_on("d", {"tiny": 60, "fresh": 60}), study_on("e", {"tiny": 61, "fresh": 60})
    summary = " ".join(compare_studies(d, e).summary)
    assert "Tiny is not compared, since" in summary and "Fresh: no difference" in summary


def test_one_query_alone_has_figures_without_intervals(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["av>t", "vt>a"], benchmarks={"tiny": 60}, earlier=True)
    for path in folder.glob("orders/*/*.npz"):
        arrays = dict(np.load(path))
        for part in ("clip", "greater", "equal"):
            arrays[f"tiny/t2v/{part}"] = arrays[f"tiny/t2v/{part}"][:1] * 0 + (part == "equal")
        np.savez_compressed(path, **arrays)
        whole = {"num_queries": 1, "r1": 100.0, "r5": 100.0, "r10": 100.0, "medr": 1.0}
        edit(path.with_suffix(".json"), lambda c, whole=whole: c["results"][0].update(whole))
    (bench,) = analyse_study(read_study(folder), Direction.parse("t2v"))
    figures = bench.targets[0].figures["VT→A"]
    assert figures["R@10"].text == "100.0" and figures["R@10"].interval is None and not bench.targets[0].comparisons
    assert bench.apart == [f"{order} is not compared: only one unit counts" for order in ("AV→T", "VT→A")]
