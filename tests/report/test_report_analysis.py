"""Which orders are compared, over which seeds, and the conditions for a winner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report_helpers import ORDERS, SKILL, targets, write_study_folder
from trichord.errors import TrichordError
from trichord.evaluation.comparison import compare_on_benchmarks, compare_orders
from trichord.evaluation.statistics import holm, paired_difference
from trichord.modality import Direction
from trichord.recipes import load_recipe
from trichord.report.analysis import MAIN_RECALL, analyse_study, check_comparable, interactions, notes_on_orders
from trichord.report.compare import compare_studies
from trichord.report.reading import read_study
from trichord.study.earlier_runs import queries_path


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def lose(folder: Path, *runs: str) -> None:
    for run in runs:
        (folder / "orders" / run / "results.json").unlink()


def share_first_stages(folder: Path, order: str) -> None:
    """Change a study to what `--first_stage_seed 0` would write."""

    def change(content: Any) -> None:
        entries = [entry for entry in content["orders"] if entry["order"] == order]
        for entry in entries:
            entry["stages"][0] = entries[0]["stages"][0]

    edit(folder / "study.json", change)


def test_runs_of_one_first_stage_are_one_seed(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", seeds=range(4), benchmarks={"tiny": 300}, skill={**SKILL, "vt>a": 4.0})
    whole = targets(folder)[0]
    assert whole.winner == "VT→A"
    share_first_stages(folder, "vt>a")
    study = read_study(folder)
    (bench,) = analyse_study(study, Direction.parse("t2v"))
    target = bench.targets[0]
    hits = target.runs("VT→A", MAIN_RECALL)
    assert hits is not None and hits.seeds == (0, 1, 2, 3) and set(hits.first_stages) == {0}
    figure = target.figures["VT→A"][MAIN_RECALL]
    assert figure.estimate == pytest.approx(whole.figures["VT→A"][MAIN_RECALL].estimate) and figure.num_seeds == 1
    assert "VT→A" not in target.compared and target.winner != "VT→A"
    notes = notes_on_orders(study, target, Direction.parse("t2v"))["VT→A"]
    assert "4 runs share 1 first stage: the interval is for this first stage only" in notes
    assert bench.apart == ["VT→A is not compared: it has one seed, and other orders have more"]


def test_seeds_are_paired_by_their_number(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["av>t", "at>v"], seeds=range(4), benchmarks={"tiny": 100})
    lose(folder, "av-t/seed-0", "at-v/seed-3")
    (target,) = targets(folder)
    (difference,) = target.comparisons[0].differences
    hits = [runs for order in ("AV→T", "AT→V") if (runs := target.runs(order, MAIN_RECALL)) is not None]
    a, b = hits[0].values[:2], hits[1].values[1:]
    expected = paired_difference(a, b, names=("AV→T", "AT→V"))
    assert hits[0].labels == (1, 2, 3) and hits[1].labels == (0, 1, 2)
    assert (
        difference.paired_seeds
        and difference.num_seeds == 2
        and difference.estimate == pytest.approx(expected.estimate)
    )
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert "needs" in target.comparisons[0].verdict, "what it would take is said although a run is lost"


def test_seeds_without_a_common_one_are_not_paired(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["av>t", "at>v"], seeds=range(4), benchmarks={"tiny": 100})
    lose(folder, "av-t/seed-0", "av-t/seed-1", "at-v/seed-2", "at-v/seed-3")
    (difference,) = targets(folder)[0].comparisons[0].differences
    assert not difference.paired_seeds and difference.num_seeds == 2


def test_an_order_with_one_seed_does_not_block_the_others(tmp_path: Path) -> None:
    skill = {**SKILL, "vt>a": 4.0, "avt": 0.0, "at>v": 0.0}
    folder = write_study_folder(tmp_path / "s", seeds=range(6), benchmarks={"tiny": 300}, skill=skill)
    lose(folder, *(f"av-t/seed-{n}" for n in range(1, 6)))
    (bench,) = analyse_study(read_study(folder), Direction.parse("t2v"))
    target = bench.targets[0]
    assert target.compared == ("AT→V", "VT→A", "AVT") and target.winner == "VT→A"
    assert bench.apart == ["AV→T is not compared: it has one seed, and other orders have more"]


def test_thawed_stages_touch_every_direction(tmp_path: Path) -> None:
    recipe = load_recipe("debug", later_stages={"thaw": 0.1})
    plain = read_study(write_study_folder(tmp_path / "p", seeds=[0]))
    thawed = read_study(write_study_folder(tmp_path / "t", seeds=[0], recipe=recipe))
    notes = [notes_on_orders(study, targets(study)[0], Direction.parse("t2v")) for study in (plain, thawed)]
    assert any("do not change" in note for note in notes[0]["VT→A"]) and not notes[1]["VT→A"]
    assert not notes[0]["AVT"] and not notes[0]["AV→T"]


def test_every_direction_is_checked_against_the_first_run_that_has_it(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["av", "av>t", "at>v", "vt>a"], seeds=[0, 1])

    def other(content: Any) -> None:
        results = content["benchmarks"][0]["results"]
        next(row for row in results if row["direction"] == "t2v")["ties"] = "best"

    edit(folder / "orders" / "at-v" / "seed-0" / "results.json", other)
    with pytest.raises(
        TrichordError, match="AV→T seed 0 and AT→V seed 0 cannot be compared on tiny t2v: the tie policy"
    ):
        check_comparable(read_study(folder))


def test_other_clips_that_were_scored_are_refused(tmp_path: Path) -> None:
    folder = write_study_folder(tmp_path / "s", orders=["av>t", "at>v"], seeds=[0], earlier=True)
    queries_path(folder, "tiny").unlink()
    for order in ("av-t", "at-v"):  # of 61 clips, each lacks another one
        path = folder / "orders" / order / "seed-0.npz"
        arrays = dict(np.load(path))
        for part, last in (("video_id", "v60"), ("start_s", 0.0), ("end_s", 5.0)):
            arrays[f"tiny/{part}"] = np.append(arrays[f"tiny/{part}"], last)
        arrays["tiny/t2v/clip"] = arrays["tiny/t2v/clip"] + (order == "at-v")
        np.savez_compressed(path, **arrays)
    with pytest.raises(TrichordError, match="tiny t2v: unit 'v0' counts only in one"):
        check_comparable(read_study(folder))


def test_the_family_is_all_benchmarks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hits = {
        benchmark: {order: (rng.random((4, 80)) < 0.3 + 0.02 * i).astype(float) for i, order in enumerate(ORDERS)}
        for benchmark in ("one", "two", "three")
    }
    comparisons = compare_on_benchmarks(hits, explain=False)
    pairs = [pair for comparison in comparisons.values() for pair in comparison.differences]
    assert len(pairs) == 18 and [p.p_adjusted for p in pairs] == pytest.approx(list(holm([p.p for p in pairs])))
    alone = compare_orders(hits["one"], explain=False)
    assert [p.p for p in alone.differences] == [p.p for p in comparisons["one"].differences]
    assert [p.p_adjusted for p in alone.differences] == pytest.approx(list(holm([p.p for p in alone.differences])))


@pytest.mark.parametrize("num_studies", [80, pytest.param(300, marks=pytest.mark.slow)])
def test_equal_orders_on_three_benchmarks_seldom_have_a_winner_anywhere(num_studies: int) -> None:
    rng, winners = np.random.default_rng(3), 0
    for _ in range(num_studies):
        hits = {}
        for benchmark in ("one", "two", "three"):
            ease = rng.normal(size=131)
            hits[benchmark] = {
                order: (ease + rng.normal(size=(5, 131)) + 0.1 * rng.normal(size=(5, 1)) > 0).astype(float)
                for order in ("a", "b")
            }
        comparisons = compare_on_benchmarks(hits, explain=False)
        winners += any(comparison.winner for comparison in comparisons.values())
    assert winners <= num_studies * 0.05 + 3 * np.sqrt(num_studies * 0.05 * 0.95)


def test_only_the_main_recall_names_a_winner(tmp_path: Path) -> None:
    skill = {**SKILL, "avt": 0.0, "vt>a": 3.0, "at>v": 0.0, "av>t": 0.0}
    folder = write_study_folder(tmp_path / "s", seeds=range(6), benchmarks={"tiny": 400}, skill=skill)
    (target,) = targets(folder)
    assert target.winner == "VT→A" and [c.winner for c in target.further.values()] == [None, None]
    against = [d for d in target.further["R@1"].differences if "VT→A" in (d.a, d.b)]
    assert max(d.p_adjusted for d in against) < 0.01


def test_interactions_use_common_seeds(tmp_path: Path) -> None:
    folder = write_study_folder(
        tmp_path / "s", orders=["av>t", "avt"], seeds=range(4), benchmarks={"tiny": 60, "other": 90}
    )
    lose(folder, "avt/seed-1")
    (interaction,) = interactions(targets(folder))
    assert all(min(pair.first.num_seeds, pair.second.num_seeds) == 3 for pair in interaction.pairs)


def test_comparisons_of_studies_refuse_other_captions_and_protocols(tmp_path: Path) -> None:
    a = read_study(write_study_folder(tmp_path / "a"))
    b = read_study(write_study_folder(tmp_path / "b", caption="stir {n} eggs"))
    with pytest.raises(
        TrichordError, match=r"captions differ: number 0 is 'cut the 0 onions' in A and 'stir 0 eggs' in B"
    ):
        compare_studies(a, b)
    folder = write_study_folder(tmp_path / "c")
    edit(folder / "study.json", lambda c: c["benchmarks"][0].update(audio_frames=77))
    with pytest.raises(TrichordError, match="the benchmark's audio_frames is 0 in A and 77 in B"):
        compare_studies(a, read_study(folder))
    other = read_study(write_study_folder(tmp_path / "d", orders=["vt"]))
    with pytest.raises(TrichordError, match="there is no common order: A has AV→T, AT→V, VT→A, AVT, B has VT"):
        compare_studies(a, other)


def test_comparisons_state_the_settings_of_the_call(tmp_path: Path) -> None:
    a = write_study_folder(tmp_path / "a", seeds=[0])
    b = write_study_folder(tmp_path / "b", seeds=[0])
    edit(b / "study.json", lambda c: [entry.update(first_stage_seed=5) for entry in c["orders"]])
    document = compare_studies(read_study(a), read_study(b), level=0.8)
    text = " ".join(document.summary)
    assert (
        "1 setting differs: first_stage_seed." in text
        and "with one seed, the comparison is between trained models, not between settings" in text
    )
    assert "80 % intervals" in document.tables()[-1].caption
    assert str(tmp_path) not in document.subtitle, "the page does not depend on where the studies lie"
