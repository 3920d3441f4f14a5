"""`trichord evaluate` on a study folder: every order and seed as if evaluated alone, saved results, and tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from process_helpers import free_port, join_gloo, start_processes
from tiny import write_tiny_store
from trichord.cli import main
from trichord.errors import Diverged, TrichordError
from trichord.evaluation.statistics import mean_interval, median_rank_interval
from trichord.logs import passing_messages
from trichord.recipes import load_recipe
from trichord.store import Store
from trichord.store.annotations import StepSpan, write_annotations
from trichord.study import evaluate_orders as module
from trichord.study.evaluate import evaluate
from trichord.study.evaluate_orders import evaluate_orders
from trichord.study.evaluation import write_evaluation
from trichord.study.evaluation_tables import order_caption
from trichord.study.figures import ScoredRun, order_figures
from trichord.study.run import run_study
from trichord.study.scores import read_scores
from trichord.study.trained_runs import chosen_runs, holds_several, trained_runs
from trichord.tasks.protocol import Options
from trichord.training.seals import sealed

pytestmark = pytest.mark.usefixtures("without_chart")

ORDERS, SEEDS = ["av>t", "vt>a"], [0, 1]
BENCHMARKS = ["tiny", "zero-shot-classification"]


def recipe() -> Any:
    training = {"tensorboard": False, "max_steps": 2, "device": "cpu"}
    return load_recipe("debug", training=training, evaluation={"directions": ["t2v", "t2va", "a2v"]})


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two orders with two seeds."""
    out = tmp_path_factory.mktemp("orders") / "study"
    run_study(tiny_store, out, ORDERS, SEEDS, recipe())
    return out


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class for each test video."""
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_text("id,class\n" + "".join(f"video{i:03d},word{'ab'[i % 2]}\n" for i in range(12, 16)))
    return path


def options(labels: Path, **more: Any) -> Options:
    return Options(labels=str(labels), **more)


@pytest.fixture(scope="module")
def kept(study: Path, tiny_store: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of all orders."""
    out = tmp_path_factory.mktemp("kept") / "out"
    evaluate_orders(study, str(tiny_store), BENCHMARKS, out=out, options=options(labels))
    return out


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are evaluated during a test."""
    stages: list[str] = []

    def counting(run: Path, *arguments: Any, **more: Any) -> Any:
        stages.append(run.name)
        return evaluate(run, *arguments, **more)

    monkeypatch.setattr(module, "evaluate", counting)
    return stages


def content_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


# ---- figures and files


def test_each_order_writes_the_files_of_its_stage_evaluated_alone(
    study: Path, kept: Path, tiny_store: Path, labels: Path, tmp_path: Path
) -> None:
    content = content_of(kept)
    assert content["study"] == str(study) and content["left_out"] == []
    assert content["store"] == {"path": str(tiny_store), "fingerprint": Store(tiny_store).fingerprint}
    listed = [(m["order"], m["seed"], m["folder"], m["note"]) for m in content["models"]]
    assert sorted(listed) == [(o, s, f"{o.replace('>', '-')}/seed-{s}", "") for o in ORDERS for s in SEEDS]
    for model in content["models"]:
        alone = evaluate(study / "stages" / model["stage"], str(tiny_store), BENCHMARKS, options=options(labels))
        write_evaluation(alone, tmp_path / model["folder"])
        for name in ("results.json", "queries.npz"):
            assert (kept / model["folder"] / name).read_bytes() == (tmp_path / model["folder"] / name).read_bytes()


def test_plain_retrieval_equals_the_figures_of_the_study(study: Path, kept: Path) -> None:
    by_study = study_content(study)["results"]
    assert len(by_study) == 4 * 3
    for row in by_study:
        mine = content_of(kept / row["order"].replace(">", "-") / f"seed-{row['seed']}")["benchmarks"][0]["results"]
        (same,) = [r for r in mine if r["direction"] == row["direction"]]
        assert same == {k: v for k, v in row.items() if k not in ("order", "seed")}


def study_content(study: Path) -> dict[str, Any]:
    return json.loads((study / "study.json").read_text())


def test_figures_are_means_over_seeds_with_their_intervals(study: Path, kept: Path) -> None:
    runs = [ScoredRun(run, read_scores(kept / run.folder)) for run in trained_runs(study)]
    figures = order_figures(runs)
    for figure in figures:
        files = [kept / figure.order.slug / f"seed-{seed}" for seed in SEEDS]
        rows = [
            row
            for file in files
            for b in content_of(file)["benchmarks"]
            if b["name"] == figure.benchmark
            for row in b["rows"]
            if (row["of"], row["measure"]) == (figure.of, figure.measure)
        ]
        assert len(rows) == 2 == figure.num_seeds
        if figure.measure == "MeanR":
            assert figure.interval is None and figure.estimate == pytest.approx(mean(row["value"] for row in rows))
            continue
        each = np.stack([np.load(file / "queries.npz")[row["each"]] for file, row in zip(files, rows, strict=True)])
        each = each[:, ~np.isnan(each[0])]
        expected = median_rank_interval(each) if figure.measure == "MedR" else mean_interval(each)
        assert figure.interval == expected and figure.interval.num_queries == figure.num
        if figure.measure == "MedR":
            assert figure.estimate == np.median(each)
        else:
            assert figure.estimate == pytest.approx(mean(row["value"] for row in rows))
            assert figure.estimate == pytest.approx(expected.estimate)
    recalls = {(f.benchmark, f.of, f.measure, f.order.code): f for f in figures}
    assert recalls["tiny", "t2va, sum", "R@10", "vt>a"].chance == pytest.approx(100 * 10 / 32)
    assert ("zero-shot-classification", "video+audio, class", "top-1", "av>t") in recalls


# ---- going on, and computing again


def test_saved_results_are_reused(
    study: Path, kept: Path, tiny_store: Path, labels: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = shutil.copytree(kept, tmp_path / "out")
    said: list[str] = []
    with passing_messages(said.append):
        again = evaluate_orders(study, str(tiny_store), BENCHMARKS, out=out, options=options(labels))
    assert counted == [] and len(said) == 4 and all("already evaluated" in line for line in said)
    assert (out / "results.json").read_bytes() == (kept / "results.json").read_bytes()
    anew = evaluate_orders(study, str(tiny_store), BENCHMARKS, options=options(labels))
    assert len(counted) == 4 and order_figures(again.runs) == order_figures(anew.runs)
    assert again.notes() == anew.notes()


def test_another_choice_another_store_and_other_weights_are_computed_again(
    study: Path, kept: Path, tiny_store: Path, labels: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = shutil.copytree(kept, tmp_path / "out")

    def call(mine: Path = study, store: Path = tiny_store, **more: Any) -> int:
        before = len(counted)
        given = {"names": BENCHMARKS, "options": options(labels), "seeds": [0], **more}
        evaluate_orders(mine, str(store), out=out, **given)
        return len(counted) - before

    assert call() == 0
    assert call(options=options(labels, fusion="mean_normalized")) == 2
    assert {b["options"]["fusion"] for b in content_of(out / "av-t" / "seed-0")["benchmarks"]} == {"mean_normalized"}
    assert call() == 2, "the figures of the other choice took its place"
    assert call(names=["tiny"], options=Options()) == 2
    assert call(names=["tiny"], options=Options(), directions="t2v") == 2
    labels2 = tmp_path / "labels.csv"
    labels2.write_text(labels.read_text())
    assert call(options=options(labels2)) == 2
    labels2.write_text(labels.read_text().replace("wordb", "wordc"))
    assert call(options=options(labels2)) == 2, "the same file with other labels"
    assert call(options=options(labels2)) == 0
    copied = shutil.copytree(study, tmp_path / "study")
    assert call(copied, options=options(labels2)) == 0, "a study that was moved"
    model = copied / "stages" / content_of(out)["models"][0]["stage"] / "model.json"
    content = json.loads(model.read_text())
    content.pop("sha256")
    model.write_text(json.dumps(sealed({**content, "calls": []})))
    assert call(copied, options=options(labels2)) == 1, "a stage that was trained again"
    moved = shutil.copytree(tiny_store, tmp_path / "store")
    assert call(store=moved) == 2 and call() == 0, "a store that was moved"
    write_annotations(moved, "tiny", [StepSpan("video012", "task", 0, "worda", 0.0, 2.0)])
    assert call(store=moved) == 2, "other annotations"
    assert call(store=write_tiny_store(tmp_path / "other", num_test=3)) == 2, "other clips"


def test_an_interrupted_call_continues(
    study: Path, kept: Path, tiny_store: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = tmp_path / "out", []

    def stopping(run: Path, *arguments: Any, **more: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(run.name)
        return evaluate(run, *arguments, **more)

    monkeypatch.setattr(module, "evaluate", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_orders(study, str(tiny_store), BENCHMARKS, out=out, options=options(labels))
    assert [m["stage"] for m in content_of(out)["models"]] == done
    begun, done = done, []
    evaluate_orders(study, str(tiny_store), BENCHMARKS, out=out, options=options(labels))
    assert len(done) == 2 and not set(done) & set(begun)
    assert (out / "results.json").read_bytes() == (kept / "results.json").read_bytes()


@pytest.mark.parametrize("damage", ["rows", "queries", "index", "form", "gone"])
def test_damaged_results_are_computed_again(
    damage: str, study: Path, kept: Path, tiny_store: Path, labels: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = shutil.copytree(kept, tmp_path / "out")
    said: list[str] = []
    if damage == "rows":
        path = out / "av-t" / "seed-1" / "results.json"
        path.write_text(path.read_text().replace("R@1", "R@2", 1))
    elif damage == "queries":
        (out / "av-t" / "seed-1" / "queries.npz").write_bytes(b"torn")
    elif damage == "gone":
        shutil.rmtree(out / "av-t" / "seed-1")
    elif damage == "index":
        (out / "results.json").write_text((out / "results.json").read_text().replace("seed-0", "seed-9", 1))
    else:
        content = content_of(out)
        content.pop("sha256")
        (out / "results.json").write_text(json.dumps(sealed({**content, "models": [3, {"folder": []}, {}]})))
    with passing_messages(said.append):
        evaluate_orders(study, str(tiny_store), BENCHMARKS, out=out, options=options(labels))
    assert len(counted) == (4 if damage in ("index", "form") else 1)
    assert damage == "form" or any("it is computed again" in line for line in said)
    assert (out / "results.json").read_bytes() == (kept / "results.json").read_bytes()


def test_models_of_earlier_calls_stay_if_their_settings_are_equal(
    study: Path, tiny_store: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = tmp_path / "out"
    first = evaluate_orders(study, str(tiny_store), ["tiny"], out=out, orders=["VT→A"])
    assert [str(done.run) for done in first.runs] == ["VT→A seed 0", "VT→A seed 1"]
    second = evaluate_orders(study, str(tiny_store), ["tiny"], out=out, orders=["va>t"], seeds=[1])
    assert [str(done.run) for done in second.runs] == ["AV→T seed 1"] and len(counted) == 3
    models = [(m["order"], m["seed"]) for m in content_of(out)["models"]]
    assert models == [("vt>a", 0), ("av>t", 1), ("vt>a", 1)], "as the study plans them"
    evaluate_orders(study, str(tiny_store), ["tiny"], out=out, seeds=[0], directions="t2v")
    assert [(m["order"], m["seed"]) for m in content_of(out)["models"]] == [("av>t", 0), ("vt>a", 0)]


# ---- what is left out


def test_unfinished_and_diverged_runs_are_noted(study: Path, tiny_store: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(study, tmp_path / "study")
    stages = {(run.order.code, run.seed): run.stage for run in trained_runs(study)}
    (broken / "stages" / stages["av>t", 1] / "model.json").unlink()
    (broken / "stages" / stages["vt>a", 0] / "model.json").unlink()
    (broken / "stages" / stages["vt>a", 0] / "diverged.json").write_text('{"message": "loss is not finite"}')
    evaluation = evaluate_orders(broken, str(tiny_store), ["tiny"], out=tmp_path / "out")
    assert [str(done.run) for done in evaluation.runs] == ["AV→T seed 0", "VT→A seed 1"]
    notes = " | ".join(evaluation.notes())
    assert f"AV→T seed 1 was left out: unfinished (stage {stages['av>t', 1]} has not been trained)" in notes
    assert "VT→A seed 0 was left out: diverged (loss is not finite)" in notes
    content = content_of(tmp_path / "out")
    assert [(m["order"], m["seed"]) for m in content["models"]] == [("av>t", 0), ("vt>a", 1)]
    assert {(m["order"], m["seed"]): m["note"] for m in content["left_out"]}[
        "vt>a", 0
    ] == "diverged (loss is not finite)"
    figures = order_figures(evaluation.runs)
    assert {f.num_seeds for f in figures} == {1} and "One seed" in order_caption(figures)
    with pytest.raises(
        TrichordError, match="no finished run to evaluate .AV→T seed 1: unfinished .*; continue the study"
    ):
        evaluate_orders(broken, str(tiny_store), ["tiny"], orders=["av>t"], seeds=[1])


def test_a_model_whose_embeddings_are_not_finite_is_noted(
    study: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(run: Path, *arguments: Any, **more: Any) -> Any:
        if "seed1" in run.name:
            raise Diverged("gives embeddings that are not finite")
        return evaluate(run, *arguments, **more)

    monkeypatch.setattr(module, "evaluate", diverging)
    evaluation = evaluate_orders(study, str(tiny_store), ["tiny"], out=tmp_path / "out")
    assert [done.run.seed for done in evaluation.runs] == [0, 0]
    assert "AV→T seed 1 was left out: gives embeddings that are not finite" in evaluation.notes()
    assert [m["seed"] for m in content_of(tmp_path / "out")["left_out"]] == [1, 1]


@pytest.fixture(scope="module")
def pairs(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two pairs and an order that continues one of them, so that the stage of the pair is also a parent."""
    out = tmp_path_factory.mktemp("pairs") / "study"
    run_study(tiny_store, out, ["av", "vt", "vt>a"], [0], recipe())
    return out


def test_directions_without_their_modalities_are_left_out_with_a_note(
    pairs: Path, tiny_store: Path, labels: Path
) -> None:
    asked = ["tiny", "zero-shot-classification", "full-video"]
    evaluation = evaluate_orders(
        pairs, str(tiny_store), asked, directions=["t2va", "a2v", "t2v"], options=options(labels)
    )
    have = {
        done.run.order.code: {b.name: {r.of.split(",")[0] for r in b.rows} for b in done.scores.benchmarks}
        for done in evaluation.runs
    }
    assert have["av"] == {"tiny": {"a2v"}}
    assert have["vt"] == {"tiny": {"t2v"}, "zero-shot-classification": {"video"}, "full-video": {"t2v"}}
    assert have["vt>a"]["tiny"] == {"t2va", "a2v", "t2v"} and have["vt>a"]["full-video"] == {"t2va", "t2v"}
    notes = evaluation.notes()
    assert "AV seed 0: directions t2va, t2v were left out: the model embeds only video, audio" in [
        n.replace("audio, video", "video, audio") for n in notes
    ]
    for name in ("zero-shot-classification", "full-video"):
        lacking = f"benchmark {name} needs text, which this model was not trained on"
        assert any(
            n.startswith(f"AV seed 0: benchmark {name} was left out ({lacking}; available modalities: ") for n in notes
        )
    assert any(n.startswith("VT seed 0: directions t2va, a2v were left out") for n in notes)
    one = evaluate_orders(pairs, str(tiny_store), ["tiny"], directions="t2v")
    assert [done.run.order.code for done in one.runs] == ["vt", "vt>a"]
    assert one.notes()[-1].startswith("AV seed 0 was left out: directions t2v were left out: ")
    assert one.notes()[-1].endswith("; benchmark tiny was left out (the model supports none of the directions)")
    by_pair = evaluate_orders(pairs, str(tiny_store), ["full-video"], orders=["av", "vt"])
    assert [[b.name for b in done.scores.benchmarks] for done in by_pair.runs] == [["full-video"]] and len(
        by_pair.left_out
    ) == 1


def test_a_benchmark_without_any_possible_order_is_an_error(pairs: Path, tiny_store: Path, labels: Path) -> None:
    with pytest.raises(
        TrichordError, match=r"direction t2a: none of the finished orders \(av, vt\) was trained on all its modalities"
    ):
        evaluate_orders(pairs, str(tiny_store), ["tiny"], orders=["av", "vt"], directions="t2v,t2a")
    with pytest.raises(TrichordError, match=r"benchmark zero-shot-classification: no order can be scored on it .*text"):
        evaluate_orders(pairs, str(tiny_store), BENCHMARKS, orders=["av"], options=options(labels))
    with pytest.raises(TrichordError, match="needs audio, which this model was not trained on"):
        (stage,) = [run.stage for run in trained_runs(pairs) if run.order.code == "vt"]
        evaluate(pairs / "stages" / stage, str(tiny_store), ["tiny"], directions="t2va")


# ---- choosing


def test_mistakes_are_errors_of_one_line(study: Path, kept: Path, tiny_store: Path, tmp_path: Path) -> None:
    store = str(tiny_store)
    for arguments, why in (
        ({"study": tmp_path}, "contains no study"),
        ({"orders": ["at>v"]}, "has no order at>v; it has av>t, vt>a"),
        ({"orders": ["xx"]}, "names X twice"),
        ({"seeds": [0, 7]}, "has no seed 7 of these orders; it has 0, 1"),
        ({"names": ["nope"]}, "contains no clips of benchmark 'nope'"),
        ({"directions": "t2x"}, "unknown letter 'x'"),
        ({"options": Options(labels="labels.csv")}, "--labels has no effect on tiny"),
        ({"window_s": 3.0}, "have no effect without --windows"),
        ({"out": tmp_path / "rows.json"}, "give --out a name without .json"),
        ({"out": kept / "av-t" / "seed-0"}, "contains the evaluation of a single model; give another --out"),
    ):
        given = {"study": study, "names": ["tiny"], **arguments}
        with pytest.raises(TrichordError, match=why):
            evaluate_orders(given.pop("study"), store, given.pop("names"), **given)
    damaged = shutil.copytree(study, tmp_path / "damaged")
    content = study_content(study)
    for orders in (None, [{"order": "av>t"}]):
        (damaged / "study.json").write_text(json.dumps({"recipe": content["recipe"], "orders": orders}))
        with pytest.raises(TrichordError, match="does not list the stages of its orders; run the study again"):
            evaluate_orders(damaged, store)
    (damaged / "study.json").write_text(json.dumps({"orders": content["orders"]}))
    with pytest.raises(TrichordError, match="has no 'recipe'"):
        evaluate_orders(damaged, store)


def test_which_folders_hold_several_models(study: Path, pairs: Path, tiny_store: Path, tmp_path: Path) -> None:
    assert holds_several(study) and holds_several(pairs)
    assert not holds_several(tmp_path) and not holds_several(study / "stages" / trained_runs(study)[0].stage)
    assert [run.order.code for run in chosen_runs(study, ["vt>a", "av>t"])] == ["vt>a", "vt>a", "av>t", "av>t"]
    broken = shutil.copytree(study, tmp_path / "study")
    (broken / "study.json").write_text("{")
    with pytest.raises(TrichordError, match=r"study.json: cannot be read"):
        holds_several(broken)


@pytest.fixture(scope="module")
def single(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single") / "study"
    run_study(tiny_store, out, ["avt"], [3], recipe())
    return out


def test_a_study_of_one_model_is_evaluated_as_before(
    single: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(single), "--store", str(tiny_store), "--benchmark", "tiny", "--out"]
    assert main([*words, str(tmp_path / "alone")]) == 0
    assert sorted(p.name for p in (tmp_path / "alone").iterdir()) == ["queries.npz", "results.json"]
    assert main([*words, str(tmp_path / "chosen"), "--orders", "[TVA]", "--seeds", "[3]"]) == 0
    assert (tmp_path / "chosen" / "avt" / "seed-3" / "queries.npz").is_file()
    one, other = content_of(tmp_path / "alone"), content_of(tmp_path / "chosen" / "avt" / "seed-3")
    assert one["benchmarks"] == other["benchmarks"]
    (single / "study.json").rename(tmp_path / "study.json")
    assert main([*words, str(tmp_path / "run")]) == 0, "the folder of a training has no plan"
    (single / "study.json").write_text("{")
    assert main([*words, str(tmp_path / "damaged")]) == 0, "one model is there, whatever the plan says"
    (tmp_path / "study.json").replace(single / "study.json")
    capsys.readouterr()


# ---- the command


def test_the_command_prints_a_table_for_each_figure(
    study: Path, tiny_store: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(study), "--store", str(tiny_store), "--benchmark", *BENCHMARKS, "--labels", str(labels)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 120 for line in printed.splitlines() if not line.startswith("results written to"))
    assert "AV→T seed 0: evaluated (1 of 4)" in printed and "VT→A seed 1: evaluated (4 of 4)" in printed
    for title in (
        "tiny: t2v, sum, n = 32",
        "tiny: t2va, sum, n = 32",
        "zero-shot-classification: video+audio, class, n = 32",
    ):
        assert title in printed
    table = printed[printed.index("tiny: t2va, sum") :]
    figures = order_figures(evaluate_orders(study, str(tiny_store), ["tiny"], directions="t2va").runs)
    lines = {
        order: next(x for x in table.splitlines() if x.startswith(f"│ {order}")) for order in ("AV→T", "VT→A", "chance")
    }
    for figure in figures:
        label = str(figure.order)
        interval = figure.interval
        if interval is None:
            shown = f"{figure.estimate:.1f}"
        elif figure.unit == "rank":
            shown = f"{figure.estimate:g} [{interval.low:g}, {interval.high:g}]"
        else:
            digits = 1 if max(figure.estimate, interval.high) >= 10 else 2
            shown = f"{figure.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
        assert f" {shown} " in lines[label]
    assert "31.25" in lines["chance"] and lines["AV→T"].rstrip("│ ").endswith(" 2")
    assert "95 % intervals over units" in printed and "Two seeds: the interval is wide" in printed
    assert main([*words, "--save-embeddings", str(tmp_path / "e.npz")]) == 2
    assert "a file of embeddings cannot contain several models; give the folder of one stage" in capsys.readouterr().err
    for more in (["--embeddings", "e.npz"], []):
        assert main(["evaluate", *more, "--orders", "[av>t]"]) == 2
        assert "--orders and --seeds select runs of a study" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--store", str(tiny_store), "--seeds", "[0]"]) == 2
    assert "contains no study" in capsys.readouterr().err


# ---- several processes


def evaluate_in_launch(rank: int, world: int, port: int, study: Path, store: Path, labels: Path, out: Path) -> None:
    join_gloo(rank, world, port)
    for _ in range(2):  # the second reads back what the first left
        evaluation = evaluate_orders(study, str(store), BENCHMARKS, out=out / "several", options=options(labels))
    (out / f"{rank}.json").write_text(json.dumps([repr(f) for f in order_figures(evaluation.runs)]))
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_launch_evaluates_as_one_process(
    study: Path, kept: Path, tiny_store: Path, labels: Path, tmp_path: Path
) -> None:
    start_processes(2, evaluate_in_launch, 2, free_port(), study, tiny_store, labels, tmp_path)
    runs = [ScoredRun(run, read_scores(kept / run.folder)) for run in trained_runs(study)]
    expected = [repr(f) for f in order_figures(runs)]
    assert all(sorted(json.loads((tmp_path / f"{rank}.json").read_text())) == sorted(expected) for rank in range(2))
    for model in content_of(kept)["models"]:
        for name in ("results.json", "queries.npz"):
            assert (kept / model["folder"] / name).read_bytes() == (
                tmp_path / "several" / model["folder"] / name
            ).read_bytes()
