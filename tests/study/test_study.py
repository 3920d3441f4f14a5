"""`trichord study`: keys of stages, resuming, tables, and evaluation of its stages."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring_helpers import read_ranks, retrieval_results
from study_helpers import quick
from table_helpers import table_of_rows
from tiny import write_tiny_store
from trichord.errors import Diverged, TrichordError
from trichord.evaluation.geometry import Geometry
from trichord.evaluation.ranks import RankCounts, metrics_from_counts
from trichord.logs import passing_messages
from trichord.modality import Order
from trichord.recipes import Recipe
from trichord.store import Store
from trichord.study import factories, folder, run
from trichord.study.evaluate import evaluate
from trichord.study.plan import distinct_stages, plan_study
from trichord.study.table import to_csv, to_latex, to_markdown
from trichord.tasks import subject
from trichord.tasks.subject import Subject
from trichord.training.loop import train_stage
from trichord.training.seals import sealed

ORDERS = ["av>t", "at>v", "vt>a", "avt"]

pytestmark = pytest.mark.usefixtures("study", "without_chart")  # the chart of `study` is drawn


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    run.run_study(tiny_store, out, ORDERS, [0, 1], quick())
    return out


def test_a_stage_that_orders_or_seeds_share_is_planned_once() -> None:
    parsed = [Order.parse(o) for o in ("av>t", "va>t", "avt")]
    plan = plan_study(parsed, [0, 1], quick(), "store")
    assert len(plan) == 4 and len(distinct_stages(plan)) == 6  # va>t is av>t
    shared = plan_study([Order.parse("av>t")], [0, 1, 2], quick(), "store", first_stage_seed=7)
    stages = distinct_stages(shared)
    assert [(s.stage.chain, s.seed) for s in stages] == [("av", 7), ("av>t", 0), ("av>t", 1), ("av>t", 2)]
    assert all(s.parent is None or s.parent.key == stages[0].key for s in stages)


def test_keys_depend_only_on_what_changes_the_weights() -> None:
    def key(recipe: Recipe, store: str = "store", seed: int = 0) -> str:
        return plan_study([Order.parse("av>t")], [seed], recipe, store)[0].stages[-1].key

    base = key(quick())
    assert key(quick(log_every_steps=1, checkpoint_every_steps=1)) == base
    others = [key(quick(learning_rate=0.5)), key(quick(), store="other"), key(quick(), seed=1)]
    assert len({base, *others}) == 4


def test_the_study_writes_the_table_in_all_its_forms(study: Path) -> None:
    content = json.loads((study / "study.json").read_text())
    assert len(content["results"]) == 4 * 2 * 4 and len(content["orders"]) == 8
    assert content["versions"]["torch"] and content["store"]["fingerprint"] and content["recipe"]["training"]["epochs"]
    markdown = (study / "table.md").read_text()
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert rows[0] == "| order | tiny R@1 | tiny R@5 | tiny R@10 |"
    assert [row.split("|")[1].strip() for row in rows[2:7]] == ["AV→T", "AT→V", "VT→A", "AVT", "chance"]
    assert rows[6] == "| chance | 3.12 | 15.62 | 31.25 |"
    assert re.match(r"\| AV→T \| [\d.]+ \[[\d.]+, [\d.]+\] \|", rows[2])
    assert "seeds: 2." in markdown and "(t2va)" in markdown
    lines = (study / "table.csv").read_text().splitlines()
    assert lines[0].startswith("order,seed,benchmark,direction,r1") and len(lines) == 1 + 32
    latex = (study / "table.tex").read_text()
    assert r"AV$\rightarrow$T" in latex and r"\bottomrule" in latex
    assert (study / "orders.png").stat().st_size > 5000


def test_a_second_run_trains_and_evaluates_nothing(
    study: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.stat().st_mtime_ns for p in study.glob("stages/*/model.safetensors")}
    table = (study / "table.md").read_text()

    def never(*_: Any, **__: Any) -> int:
        raise AssertionError("trained or evaluated again")

    monkeypatch.setattr(run, "train_stage", never)
    monkeypatch.setattr(Subject, "text_rows", never)
    run.run_study(tiny_store, study, ORDERS, [0, 1], quick())
    assert {p: p.stat().st_mtime_ns for p in study.glob("stages/*/model.safetensors")} == before
    assert (study / "table.md").read_text() == table


def test_an_interrupted_study_continues_with_the_same_table(
    study: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, trained = shutil.copytree(study, tmp_path / "cut"), list[str]()
    for order, stages in (("vt-a", ("vt.", "vt-a.")), ("avt", ("avt.",))):
        (cut / "orders" / order / "seed-1" / "results.json").unlink()
        for stage in stages:
            shutil.rmtree(next(cut.glob(f"stages/{stage}seed1.*")))
    for name in ("study.json", "table.csv"):
        (cut / name).unlink()

    def limited(*arguments: Any, **options: Any) -> int:
        trained.append(options["folder"].name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train_stage(*arguments, **options)

    monkeypatch.setattr(run, "train_stage", limited)
    with pytest.raises(KeyboardInterrupt):
        run.run_study(tiny_store, cut, ORDERS, [0, 1], quick())
    run.run_study(tiny_store, cut, ORDERS, [0, 1], quick())
    assert len(trained) == 4 and len(set(trained)) == 3, "only the interrupted stage was begun twice"
    assert (cut / "table.csv").read_text() == (study / "table.csv").read_text()


def test_a_diverged_order_is_left_out_with_a_note(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lines, tried = tmp_path / "out", [], []
    build = factories.build_loss

    def poisoned(recipe: Recipe, stage: Any, seed: int) -> Any:
        loss = build(recipe, stage, seed)
        if stage.chain == "av>t":
            tried.append(seed)
            loss.contrast_weight = float("nan")
        return loss

    monkeypatch.setattr(factories, "build_loss", poisoned)
    for _ in range(2):
        with passing_messages(lines.append):
            table = run.run_study(tiny_store, out, ["av>t", "vt>a"], [0], quick())
    assert table.orders == (Order.parse("vt>a"),)
    assert tried == [0], "a stage that diverged is not trained a second time"
    assert sum("AV→T seed 0  is left out, since it diverged: stage av>t, step 1" in line for line in lines) == 2
    (stage,) = out.glob("stages/av-t.*")
    assert "not finite" in folder.divergence_of(stage)
    assert any(f"delete {stage / 'diverged.json'} to train it again" in line for line in lines)
    plan = json.loads((out / "study.json").read_text())["orders"]
    assert [entry["order"] for entry in plan] == ["av>t", "vt>a"]
    monkeypatch.setattr(factories, "build_loss", build)
    (stage / "diverged.json").unlink()
    assert run.run_study(tiny_store, out, ["av>t"], [0], quick()).orders == (Order.parse("av>t"),)


def test_a_model_whose_embeddings_are_not_finite_is_left_out_as_evaluate_refuses_it(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, lines = subject.embed_clips, []

    def overflowing(model: Any, store: Any, clips: Any, modalities: tuple[str, ...], *rest: Any) -> Any:
        embeddings, valid = embed(model, store, clips, modalities, *rest)
        if modalities == ("video", "audio"):
            embeddings["audio"][0] = float("inf")
        return embeddings, valid

    monkeypatch.setattr(subject, "embed_clips", overflowing)
    with passing_messages(lines.append):
        table = run.run_study(tiny_store, tmp_path, ["av", "vt"], [0], quick())
    assert table.orders == (Order.parse("vt"),)
    (line,) = (line for line in lines if "left out" in line)
    assert line.startswith("AV seed 0  is left out: ") and "audio embeddings of tiny/test are not finite" in line
    (stage,) = tmp_path.glob("stages/av.*")
    with pytest.raises(Diverged, match="audio embeddings of tiny/test are not finite"):
        evaluate(stage, tiny_store, names=["tiny"], directions=["v2a"])


def test_when_all_diverge_it_is_an_error(tiny_store: Path, tmp_path: Path) -> None:
    recipe = quick()
    recipe.training.learning_rate = 1e6
    recipe.training.schedule = "constant"
    with pytest.raises(Diverged, match="every order diverged; lower training.learning_rate"):
        run.run_study(tiny_store, tmp_path / "out", ["vt"], [0], recipe)


def test_a_pair_alone_is_an_order_too(study: Path, tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    shutil.copytree(study, out)
    count = len(list(out.glob("stages/*")))
    table = run.run_study(tiny_store, out, ["vt", "av"], [0], quick())
    assert len(list(out.glob("stages/*"))) == count, "the first stages of the orders are the pairs"
    assert [(order.code, benchmark) for order, benchmark in table.cells] == [("vt", "tiny")]
    assert {r["direction"] for r in table.results if r["order"] == "av"} == {"a2v", "v2a"}
    kept = [(entry["order"], entry["seed"]) for entry in json.loads((out / "study.json").read_text())["orders"]]
    assert len(kept) == len(ORDERS) * 2 + 2 and kept[-2:] == [("vt", 0), ("av", 0)]


def test_an_order_that_no_direction_scores_is_named(study: Path, tiny_store: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "pairs", list[str]()
    shutil.copytree(study, out)
    recipe = quick()
    recipe.evaluation.directions = ["t2v", "v2t"]
    with passing_messages(said.append):
        run.run_study(tiny_store, out, ["vt", "av"], [0], recipe)
    (line,) = [line for line in said if "not scored" in line]
    assert "order AV is trained but not scored" in line and "such as a2v" in line


def test_results_needed_by_a_report_are_saved(study: Path) -> None:
    arrays = np.load(study / "orders" / "av-t" / "seed-0" / "queries.npz")
    geometry = Geometry.from_arrays(arrays, "tiny/geometry")
    assert geometry is not None and set(geometry.gap) == {"VA", "VT", "AT"}
    assert len(arrays["tiny/caption"]) == len(arrays["tiny/video_id"]) and all(arrays["tiny/caption"])
    for path in study.glob("stages/*/model.json"):
        described = json.loads(path.read_text())
        frozen = described["parameters"]["frozen"]
        assert described["parameters"]["trained"] > 0 and (frozen > 0) == (described["parent"] is not None)


def test_seeds_can_be_added_later(study: Path, tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "more"
    shutil.copytree(study, out)
    count = len(list(out.glob("stages/*")))
    run.run_study(tiny_store, out, ["av>t"], [0, 1, 2], quick())
    assert len(list(out.glob("stages/*"))) == count + 2


def test_a_store_without_held_out_clips_gives_advice(tmp_path: Path) -> None:
    store = write_tiny_store(tmp_path / "s", num_train=3, num_test=0)
    with pytest.raises(TrichordError, match="all videos are in split train.*--benchmarks COLLECTION/train"):
        run.run_study(store, tmp_path / "out", ORDERS, [0], quick())


def test_an_order_with_a_missing_modality(tmp_path: Path) -> None:
    store = write_tiny_store(tmp_path / "s", num_train=9, num_test=2, audio=False)
    with pytest.raises(TrichordError, match="needs audio, which the store lacks; it has video, text"):
        run.run_study(store, tmp_path / "out", ["av>t"], [0], quick())


def test_evaluating_a_stage_folder_reproduces_the_study(study: Path, tiny_store: Path) -> None:
    content = json.loads((study / "study.json").read_text())
    row = next(r for r in content["results"] if r["order"] == "vt>a" and r["seed"] == 1 and r["direction"] == "t2v")
    stage = next(o for o in content["orders"] if o["order"] == "vt>a" and o["seed"] == 1)["stages"][-1]["folder"]
    results = retrieval_results(study / "stages" / stage, tiny_store, directions=["t2v"])
    assert results[0].to_dict() == {k: v for k, v in row.items() if k not in ("order", "seed")}


def test_evaluating_refuses_impossible_requests(study: Path, tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="contains 8 models; give one of them"):
        retrieval_results(study, tiny_store)
    with pytest.raises(TrichordError, match="contains no trained model"):
        retrieval_results(tmp_path, tiny_store)
    first = next(study.glob("stages/av.seed0*"))
    with pytest.raises(TrichordError, match="direction t2v needs text, which this model was not trained on"):
        retrieval_results(first, tiny_store, directions=["t2v"])
    broken = tmp_path / "broken"
    shutil.copytree(first, broken)
    described = json.loads((broken / "model.json").read_text())
    described["arguments"]["video_dim"] += 1
    (broken / "model.json").write_text(json.dumps(described))
    with pytest.raises(TrichordError, match="model.json: has changed since it was written; train the stage again"):
        retrieval_results(broken, tiny_store)
    (broken / "model.json").write_text(json.dumps(sealed({k: v for k, v in described.items() if k != "sha256"})))
    with pytest.raises(TrichordError, match="the weights do not fit the model"):
        retrieval_results(broken, tiny_store)
    assert Store(tiny_store).streams["visual_2d"].dim == 24


def rows(order: str, seed: int, benchmark: str, value: float) -> dict[str, Any]:
    base = {"r1": value, "r5": value + 1, "r10": value + 2, "chance_r1": 0.1, "chance_r5": 0.5, "chance_r10": 1.0}
    return {
        "order": order,
        "seed": seed,
        "benchmark": benchmark,
        "direction": "t2v",
        "num_queries": 9,
        "num_gallery": 8,
        **base,
    }


def test_cells_are_means_over_seeds() -> None:
    results = [
        rows("av>t", 0, "a", 10.0),
        rows("av>t", 1, "a", 14.0),
        rows("avt", 0, "a", 3.0),
        rows("av>t", 0, "b", 1.0),
    ]
    table = table_of_rows(results, ["A & B", "b"], ["a", "b"])
    assert table.lines()[0] == ["AV→T", "12.0", "13.0", "14.0", "1.00", "2.00", "3.00"]
    assert table.lines()[1] == ["AVT", "3.00", "4.00", "5.00", "-", "-", "-"]
    assert table.lines()[-1][:4] == ["chance", "0.10", "0.50", "1.00"]
    assert r"A \& B" in to_latex(table) and "| AVT | 3.00 |" in to_markdown(table)
    assert to_csv(table).count("\n") == 5


def test_every_figure_follows_from_the_ranks_that_are_kept(study: Path, tiny_store: Path) -> None:
    paths = sorted((study / "orders").rglob("seed-*/results.json"))
    assert paths
    for path in paths:
        for row in json.loads(path.read_text())["benchmarks"][0]["results"]:
            ranks = read_ranks(path.with_name("queries.npz"), row["benchmark"], row["direction"])
            counts = RankCounts(ranks.greater, ranks.equal, ranks.num_gallery)
            metrics = metrics_from_counts(counts)
            assert (metrics.r1, metrics.r5, metrics.r10, metrics.medr) == (
                row["r1"],
                row["r5"],
                row["r10"],
                row["medr"],
            )
            assert len(ranks.clip) == row["num_queries"] == len(np.unique(ranks.clip))
    with np.load(path.with_name("queries.npz")) as arrays:
        videos = set(arrays[f"{row['benchmark']}/video_id"])
        assert ranks.clip.max() < len(arrays[f"{row['benchmark']}/start_s"])
    opened = Store(tiny_store)
    assert videos <= {opened.video_id(i) for i in range(len(opened))}


def test_a_study_without_its_ranks_is_evaluated_again(study: Path, tiny_store: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "again")
    kept = {p: p.read_bytes() for p in study.rglob("queries.npz")}
    for path in (tmp_path / "again").rglob("queries.npz"):
        path.unlink()
    run.run_study(tiny_store, tmp_path / "again", ORDERS, [0, 1], quick())
    for path in kept:
        with np.load(path) as before, np.load(tmp_path / "again" / path.relative_to(study)) as after:
            assert before.files == after.files and all(np.array_equal(before[k], after[k]) for k in before.files)
    assert kept
