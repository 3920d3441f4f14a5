"""Study folders that were damaged, interrupted or continued otherwise: repairs by a second run, and messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report_helpers import captions_in, result_of, write_study_folder
from trichord.errors import Diverged, TrichordError
from trichord.logs import passing_messages
from trichord.modality import Direction, Order
from trichord.recipes import Recipe, load_recipe
from trichord.report.analysis import analyse_study
from trichord.report.reading import Study, read_study
from trichord.study import factories, folder, run
from trichord.study.files import is_there, read_arrays
from trichord.tasks.subject import ClipSet, Subject

pytestmark = pytest.mark.usefixtures("without_chart")

NPZ = "orders/vt/seed-0/queries.npz"
ROWS = "orders/vt/seed-0/results.json"


def quick(**training: Any) -> Recipe:
    return load_recipe(
        "debug",
        training={"tensorboard": False, "max_steps": 1, "device": "cpu", **training},
        evaluation={"directions": ["t2v"]},
    )


def go_on(store: Path, out: Path, orders: list[str] | None = None, **options: Any) -> Any:
    return run.run_study(store, out, orders or ["vt"], [0], quick(), **options)


def read_all(path: Path) -> Study:
    """Read everything that a report reads."""
    study = read_study(path)
    for one in study.done:
        study.scores(one).loaded()
        for row in one.results:
            study.geometry(one, row["benchmark"])
    for stage in study.stages.values():
        study.curves(stage)
    return study


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "vt"
    go_on(tiny_store, out)
    return out


@pytest.fixture
def own(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "own"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    content.pop("sha256", None)  # as older versions wrote it
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(100, len(content) - 3000, 40):
        content[at] ^= 255
    path.write_bytes(bytes(content))


def without(path: Path, name: str) -> None:
    arrays = {key: array for key, array in np.load(path).items() if key != name}
    np.savez_compressed(path, **arrays)


def old_stages(content: dict[str, Any]) -> None:
    for entry in content["orders"]:
        entry["stages"] = [stage["folder"] for stage in entry["stages"]]


MENDED: dict[str, Callable[[Path], Any]] = {
    "torn figures": lambda p: (p / ROWS).write_text('{"identity": {'),
    "figures are a list": lambda p: (p / ROWS).write_text("[]"),
    "a row without its figure": lambda p: edit(p / ROWS, lambda c: c["benchmarks"][0]["results"][0].pop("r5") and None),
    "no labels": lambda p: edit(p / ROWS, lambda c: c["benchmarks"][0].update(labels=[])),
    "no benchmarks": lambda p: edit(p / ROWS, lambda c: c.update(benchmarks=3)),
    "cut arrays": lambda p: (p / NPZ).write_bytes((p / NPZ).read_bytes()[:3000]),
    "empty arrays": lambda p: (p / NPZ).write_bytes(b""),
    "text for arrays": lambda p: (p / NPZ).write_bytes(b"hello" * 100),
    "flipped arrays": lambda p: flip(p / NPZ),
    "no ranks": lambda p: without(p / NPZ, "tiny/t2v/greater"),
    "no spans": lambda p: without(p / NPZ, "tiny/start_s"),
    "no part of the geometry": lambda p: without(p / NPZ, "tiny/geometry/num_clusters"),
    "torn plan": lambda p: (p / "study.json").write_text('{"orders"'),
    "no plan": lambda p: (p / "study.json").write_text("null"),
    "a plan as it was": lambda p: edit(p / "study.json", old_stages),
    "a plan without a part": lambda p: edit(p / "study.json", lambda c: c.update(benchmarks={})),
    "benchmarks without names": lambda p: edit(p / "study.json", lambda c: c.update(benchmarks=[{}])),
}


@pytest.mark.parametrize("name", MENDED)
def test_the_report_lists_damage_that_a_second_run_repairs(name: str, study: Path, own: Path, tiny_store: Path) -> None:
    MENDED[name](own)
    with pytest.raises(TrichordError) as caught:
        read_all(own)
    message = str(caught.value)
    assert str(own) in message and "run the study again" in message and "which trains nothing twice" in message
    assert "\n" not in message and "pickle" not in message
    lines: list[str] = []
    with passing_messages(lines.append):
        go_on(tiny_store, own)
    read_all(own)
    for path in study.rglob("*.json"):
        assert json.loads((own / path.relative_to(study)).read_text()) == json.loads(path.read_text())
    before, after = read_arrays(study / NPZ), read_arrays(own / NPZ)
    assert before.keys() == after.keys() and all(np.array_equal(before[key], after[key]) for key in before)
    assert any(str(own) in line for line in lines), "it is said that something was made anew"


LASTING: dict[str, tuple[str, str, str]] = {
    "torn description": ("model.json", "{", "delete the folder {stage} and run the same command again"),
    "description is a list": ("model.json", "[]", "delete the folder {stage} and run the same command again"),
    "parameters of no kind": (
        "model.json",
        '{"parameters": 3}',
        "delete the folder {stage} and run the same command again",
    ),
    "torn line": ("metrics.jsonl", '{"step": 0, "lo\n{"step": 1, "loss": 1.0}\n', "delete this file"),
    "torn last line": ("metrics.jsonl", '{"step": 0, "lo\n', "delete this file"),
    "torn clips": ("metrics.jsonl", '{"step": 0, "clips": x, "loss": 1}\n{"step": 1}\n', "delete this file"),
    "no step": ("metrics.jsonl", '{"loss": 1.0}\n', "delete this file"),
    "no number": ("metrics.jsonl", '{"step": 0, "loss": "high"}\n', "delete this file"),
    "not a line": ("metrics.jsonl", "7\n", "delete this file"),
}


@pytest.mark.parametrize("name", LASTING)
def test_errors_name_files_to_delete(name: str, own: Path) -> None:
    file, content, mend = LASTING[name]
    (stage,) = own.glob("stages/*")
    (stage / file).write_text(content)
    with pytest.raises(TrichordError) as caught:
        read_all(own)
    message = str(caught.value)
    assert message.startswith(f"{stage / file}: cannot be read (") and mend.format(stage=stage) in message
    if file == "metrics.jsonl":
        (stage / file).unlink()
        assert read_all(own).curves(next(iter(read_study(own).stages.values()))) == {}


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
def test_a_damaged_model_is_trained_again_once_its_folder_is_deleted(own: Path, tiny_store: Path, file: str) -> None:
    (stage,) = own.glob("stages/*")
    (stage / file).write_bytes((stage / file).read_bytes()[:10])
    (own / NPZ).unlink()
    with pytest.raises(TrichordError, match=f"{file}.*delete the folder {stage} and run the same command again"):
        go_on(tiny_store, own)
    shutil.rmtree(stage)
    go_on(tiny_store, own)
    assert read_all(own).done


@pytest.mark.parametrize("content", ["", "settings: [", "3", "fingerprint: x\n"])
def test_torn_settings_of_a_folder(own: Path, tiny_store: Path, content: str) -> None:
    (own / "run.yaml").write_text(content)
    with pytest.raises(
        TrichordError,
        match=r"run.yaml: cannot be read .*delete this file and run the command again; otherwise, give another",
    ):
        go_on(tiny_store, own)
    (own / "run.yaml").unlink()
    go_on(tiny_store, own)
    assert "settings:" in (own / "run.yaml").read_text()


def test_a_new_plan_is_reported_once(own: Path, tiny_store: Path) -> None:
    (own / "study.json").write_text("{")
    lines: list[str] = []
    with passing_messages(lines.append):
        go_on(tiny_store, own)
    messages = [line for line in lines if "study.json" in line]
    assert (
        len(messages) == 1
        and "rebuilt from this call; give the orders, seeds and benchmarks of earlier calls" in messages[0]
    )


def test_an_impossible_path_counts_as_missing() -> None:
    name = Path("n" * 5000)
    assert not is_there(name / "x")
    with pytest.raises(TrichordError, match="contains no study"):
        read_study(name)


def test_a_folder_without_permissions_is_not_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Path.is_file` raises for a folder that may not be searched; the superuser may search all folders."""
    path = write_study_folder(tmp_path / "s", orders=["av>t"], seeds=[0])

    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert read_all(path).done


# ---- other benchmarks


def test_benchmarks_with_similar_names_have_arrays_of_their_own(tmp_path: Path) -> None:
    path = write_study_folder(tmp_path / "s", orders=["vt"], seeds=[0], benchmarks={"a/b": 30, "a-b": 40, "a": 50})
    assert [len(captions_in(read_all(path), name)) for name in ("a/b", "a-b", "a")] == [30, 40, 50]


def test_another_benchmark_joins_the_earlier_ones(
    study: Path, own: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    embed = Subject.text_rows

    def counted(subject: Subject, clip_set: ClipSet, modalities: tuple[str, ...]) -> Any:
        scored.append(clip_set.address)
        return embed(subject, clip_set, modalities)

    monkeypatch.setattr(Subject, "text_rows", counted)
    table = go_on(tiny_store, own, benchmarks=["tiny/train"])
    assert scored == ["tiny/train"] and table.benchmarks == ("tiny/train",)
    assert "tiny R@1" not in (own / "table.md").read_text()
    content = json.loads((own / "study.json").read_text())
    assert [b["name"] for b in content["benchmarks"]] == ["tiny", "tiny/train"]
    assert [(row["benchmark"], row["order"]) for row in content["results"]] == [("tiny", "vt"), ("tiny/train", "vt")]
    both = read_all(own)
    assert [b["name"] for b in both.benchmarks] == ["tiny", "tiny/train"]
    assert [row["benchmark"] for row in both.done[0].results] == ["tiny", "tiny/train"]
    assert len(captions_in(both, "tiny/train")) > len(captions_in(both, "tiny")) > 0
    assert result_of(both.done[0], "tiny", "t2v") == result_of(read_study(study).done[0], "tiny", "t2v")
    before, after = read_arrays(study / NPZ), read_arrays(own / NPZ)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    table = go_on(tiny_store, own)
    assert scored == ["tiny/train"] and table.benchmarks == ("tiny",), "nothing is evaluated twice"
    assert len(json.loads((own / "study.json").read_text())["results"]) == 2
    without(own / NPZ, "tiny/train/t2v/clip")
    go_on(tiny_store, own, benchmarks=["tiny/train", "tiny"])
    assert scored == ["tiny/train", "tiny/train", "tiny/test"], (
        "of a file that is not the one that was written, everything"
    )
    assert sorted(row["benchmark"] for row in read_all(own).done[0].results) == ["tiny", "tiny/train"]
    (own / NPZ).write_bytes(b"")
    table = go_on(tiny_store, own)
    assert scored[3:] == ["tiny/test", "tiny/train"], "also what another call had evaluated"
    assert table.benchmarks == ("tiny",) and set(read_all(own).done[0].results[1]) >= {"r1"}
    after = read_arrays(own / NPZ)
    assert all(np.array_equal(before[key], after[key]) for key in before) and "tiny/train/t2v/clip" in after


def test_figures_with_other_settings_are_not_mixed_with_new_ones(own: Path, tiny_store: Path) -> None:
    recipe = quick()
    recipe.evaluation.cosine = "yes"
    run.run_study(tiny_store, own, ["vt"], [0], recipe, benchmarks=["tiny/train"])
    assert [row["benchmark"] for row in read_all(own).done[0].results] == ["tiny/train"]
    assert [row["benchmark"] for row in json.loads((own / "study.json").read_text())["results"]] == ["tiny/train"]


# ---- what diverged


def test_training_one_order_notes_divergence_and_tries_again(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, out, lines = factories.build_loss, tmp_path / "out", []

    def poisoned(recipe: Recipe, stage: Any, seed: int) -> Any:
        loss = build(recipe, stage, seed)
        loss.contrast_weight = float("nan")
        return loss

    monkeypatch.setattr(factories, "build_loss", poisoned)
    with pytest.raises(Diverged):
        run.train_order(tiny_store, out, "vt", 0, quick())
    (stage,) = out.glob("stages/*")
    assert "step 1: the loss is not finite" in str(folder.divergence_of(stage))
    monkeypatch.setattr(factories, "build_loss", build)
    with passing_messages(lines.append):
        summary = run.train_order(tiny_store, out, "vt", 0, quick(), resume=True)
    assert summary.num_steps == 1 and folder.divergence_of(stage) is None and not (stage / "diverged.json").exists()
    assert any(
        line.startswith(f"stage {stage.name} diverged in an earlier call (") and "trained again" in line
        for line in lines
    )


def test_a_note_of_divergence_is_removed_with_the_finished_stage(own: Path, tiny_store: Path) -> None:
    (stage,) = own.glob("stages/*")
    for content in ('{"message": "of another time"}', "", "[]"):
        (stage / "diverged.json").write_text(content)
        assert folder.divergence_of(stage)
        assert go_on(tiny_store, own).orders == (Order.parse("vt"),)
        assert not (stage / "diverged.json").exists()


def test_a_truncated_note_of_divergence_still_counts(own: Path, tiny_store: Path) -> None:
    (stage,) = own.glob("stages/*")
    (stage / "model.json").unlink()
    (stage / "diverged.json").write_text("")
    with pytest.raises(
        TrichordError, match=r"every run diverged .*diverged.json does not contain the reason.* another --out"
    ):
        read_study(own)
    with pytest.raises(Diverged, match="every order diverged"):
        go_on(tiny_store, own)


def test_when_every_run_diverged_going_on_is_not_the_advice(tmp_path: Path) -> None:
    path = write_study_folder(tmp_path / "s", orders=["avt"], seeds=[0, 1])
    for stage in path.glob("stages/*"):
        (stage / "diverged.json").write_text('{"message": "step 7: the loss"}')
    with pytest.raises(TrichordError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "every run diverged" in message and "step 7" in message and "go on" not in message
    assert message.endswith("run the study in another --out with a lower training.learning_rate")


# ---- what the study says of itself


def test_the_call_and_the_machine_are_kept(tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run.run_study(tiny_store, out, ["vt>a", "vt"], [0, 1], quick(), first_stage_seed=7)
    run.run_study(tiny_store, out, ["avt"], [0, 1], quick())
    content = json.loads((out / "study.json").read_text())
    given = {(entry["order"], entry["seed"]): entry["first_stage_seed"] for entry in content["orders"]}
    assert given == {
        ("vt>a", 0): 7, ("vt>a", 1): 7, ("vt", 0): None, ("vt", 1): None, ("avt", 0): None, ("avt", 1): None,
    }  # fmt: skip
    assert content["machine"].pop("processor").split()
    assert content["machine"] == {"threads": 1, "device": "cpu", "processes": 1}
    assert {"scipy", "scikit-learn"} <= set(content["versions"])
    reread = read_all(out)
    (bench,) = analyse_study(reread, Direction.parse("t2v"))
    firsts = {order: models.first_stages for order, models in bench.models.items()}
    assert firsts == {"VT→A": (7, 7), "VT": (0, 1), "AVT": (0, 1)}
    assert reread.content["machine"]["threads"] == 1
