"""The runs of a study are evaluation folders, and those of earlier versions are read with the same figures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report_helpers import as_earlier, captions_in, write_study_folder
from tiny import VIDEO_DIM, word_vectors
from trichord.captions import Captions
from trichord.embedder.results import figures_of_study
from trichord.errors import TrichordError
from trichord.logs import passing_messages
from trichord.recipes import Recipe, load_recipe
from trichord.report.analysis import analyse, check_comparable
from trichord.report.contents import build_study
from trichord.report.reading import read_study
from trichord.report.systems import read_systems
from trichord.store import Item, StoreWriter
from trichord.study import run
from trichord.study.evaluate import evaluate
from trichord.study.evaluate_orders import evaluate_orders
from trichord.study.evaluation import write_evaluation
from trichord.study.files import read_arrays
from trichord.study.scores import Scored, read_scores
from trichord.tasks.subject import ClipSet, Subject

pytestmark = pytest.mark.usefixtures("without_chart", "undrawn")

ORDERS = ["vt", "vt>a"]


def quick(*directions: str) -> Recipe:
    training = {"tensorboard": False, "max_steps": 1, "device": "cpu"}
    return load_recipe("debug", training=training, evaluation={"directions": list(directions or ("t2v", "v2t"))})


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "study"
    run.run_study(tiny_store, out, ORDERS, [0, 1], quick())
    return out


@pytest.fixture
def own(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "own"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the clips that are scored. Training is an error."""
    addresses: list[str] = []
    embed = Subject.text_rows

    def listed(subject: Subject, clip_set: ClipSet, modalities: tuple[str, ...]) -> Any:
        addresses.append(f"{subject.name} {clip_set.address}")
        return embed(subject, clip_set, modalities)

    def never(*_: Any, **__: Any) -> int:
        raise AssertionError("a stage was trained")

    monkeypatch.setattr(Subject, "text_rows", listed)
    monkeypatch.setattr(run, "train_stage", never)
    return addresses


def runs_of(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("orders/*/*/results.json"))


def content_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def tables_of(folder: Path) -> dict[str, list[list[tuple[str, Any]]]]:
    read = read_study(folder)
    check_comparable(read)
    document = build_study(read)
    return {t.name: [[(cell.text, cell.value) for cell in row] for row in t.rows] for t in document.tables()}


def same(*benchmarks: tuple[Scored, ...]) -> bool:
    """Compare everything except what earlier versions did not save: intervals, and options at their defaults."""
    one, two = (
        [
            replace(scored, options={}, rows=tuple(replace(row, low=None, high=None) for row in scored.rows))
            for scored in own
        ]
        for own in benchmarks
    )
    return one == two != []


# ---- one format


def test_a_run_is_the_evaluation_of_its_model(study: Path, tiny_store: Path, tmp_path: Path) -> None:
    folder = study / "orders" / "vt-a" / "seed-1"
    content = content_of(folder)
    assert content["subject"] == "VT→A seed 1" and content["identity"]["stage"] and content["arrays_sha256"]
    assert not list(study.rglob("seed-*.*")) and not (study / "queries").exists()
    (stage,) = study.glob("stages/vt-a.seed1.*")
    write_evaluation(evaluate(stage, tiny_store, ["tiny"], directions=["t2v", "v2t"]), tmp_path / "alone")
    alone, arrays = content_of(tmp_path / "alone"), read_arrays(tmp_path / "alone" / "queries.npz")
    for part in ("rows", "results"):
        assert content["benchmarks"][0][part] == alone["benchmarks"][0][part]
    mine = read_arrays(folder / "queries.npz")
    assert all(np.array_equal(mine[key], array, equal_nan=array.dtype.kind == "f") for key, array in arrays.items())
    assert {key.split("/")[1] for key in mine.keys() - arrays.keys()} == {"geometry"}


def test_runs_are_reported_like_evaluations(study: Path, tmp_path: Path) -> None:
    folders = [study / "orders" / order / "seed-0" for order in ("vt", "vt-a")]
    alone = Path(shutil.copytree(folders[0], tmp_path / "alone"))
    content = {key: value for key, value in content_of(alone).items() if key not in ("identity", "sha256")}
    (alone / "results.json").write_text(json.dumps({**content, "subject": "/models/alone"}))
    (bench,) = analyse(read_systems([*folders, alone]))
    assert list(bench.models) == ["VT seed 0", "VT→A seed 0", "alone"] and not bench.apart
    assert {target.name: set(target.compared) for target in bench.targets} == dict.fromkeys(
        ("t2v", "v2t"), set(bench.models)
    )
    own = read_study(study)
    for target in bench.targets:
        for system, one in zip(("VT seed 0", "VT→A seed 0"), own.runs[:2], strict=True):
            (row,) = [row for row in one.results if row["direction"] == target.name]
            assert target.figures[system]["R@5"].estimate == pytest.approx(row["r5"])


@pytest.mark.parametrize("name", ["results.json", "queries.npz"])
def test_a_changed_run_is_found_by_both_reports(name: str, own: Path) -> None:
    folder = own / "orders" / "vt" / "seed-0"
    if name == "results.json":
        (folder / name).write_text((folder / name).read_text().replace('"drop"', '"miss"'))
    else:
        arrays = dict(np.load(folder / name))
        np.savez_compressed(folder / name, **{**arrays, "tiny/t2v/greater": arrays["tiny/t2v/greater"] * 0})
    for read in (lambda: tables_of(own), lambda: analyse(read_systems([folder]))):
        with pytest.raises(
            TrichordError, match=f"{folder / name}: cannot be read .it has changed since it was written"
        ):
            read()


def test_an_evaluation_does_not_replace_a_run(own: Path, tiny_store: Path) -> None:
    folder, before = own / "orders" / "vt" / "seed-0", content_of(own / "orders" / "vt" / "seed-0")
    (stage,) = own.glob("stages/vt.seed0.*")
    evaluation = evaluate(stage, tiny_store, ["tiny"], directions=["t2v"])
    for out in (folder, folder / "results.json"):
        with pytest.raises(TrichordError, match="belongs to a run of a study and is not replaced; give another --out"):
            write_evaluation(evaluation, out)
    with pytest.raises(TrichordError, match="belongs to a run of a study and is not replaced; give another --out"):
        evaluate_orders(own, tiny_store, ["tiny"], out=own / "orders", directions=["t2v"])
    assert content_of(folder) == before and not (own / "orders" / "results.json").exists()


def test_an_order_without_a_direction_has_a_run_without_figures(own: Path, tiny_store: Path, scored: list[str]) -> None:
    for _ in range(2):
        table = run.run_study(tiny_store, own, ["vt", "vt>a"], [0], quick("v2a"))
    assert {row["order"] for row in table.results} == {"vt>a"}
    assert scored == ["VT seed 0 tiny/test", "VT→A seed 0 tiny/test"], "the run without figures is kept as well"
    assert content_of(own / "orders" / "vt" / "seed-0")["benchmarks"][0]["rows"] == []
    assert next(r.results for r in read_study(own).done if str(r) == "VT seed 0") == []


@pytest.mark.parametrize("benchmarks", [3, ["tiny"], [{"name": "tiny"}, {"name": "tiny"}]])
def test_invalid_benchmarks_of_a_run(benchmarks: Any, own: Path) -> None:
    path = own / "orders" / "vt" / "seed-0" / "results.json"
    content = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
    path.write_text(json.dumps({**content, "benchmarks": benchmarks}))
    with pytest.raises(TrichordError, match="its benchmarks are not a list of objects with different names.; run the"):
        read_study(own)


# ---- runs of earlier versions


def test_an_earlier_study_has_the_same_report(tmp_path: Path) -> None:
    options: dict[str, Any] = {"orders": ["av>t", "avt"], "seeds": [0, 1], "num_missing": 5}
    folders = [tmp_path / name / "study" for name in ("now", "earlier")]
    for folder, earlier in zip(folders, (False, True), strict=True):
        write_study_folder(folder, benchmarks={"tiny": 60, "a/b": 40}, earlier=earlier, **options)
    assert not runs_of(folders[1]) and len(list(folders[1].glob("orders/*/seed-*.npz"))) == 4
    now, earlier = map(tables_of, folders)
    assert now == earlier and len(now) > 8
    for one, two in zip(*(read_study(folder).done for folder in folders), strict=True):
        assert one.scores is not None and two.scores is not None
        assert same(one.scores.benchmarks, two.scores.benchmarks)


def test_earlier_runs_are_compared_with_new_ones(own: Path, tiny_store: Path, scored: list[str]) -> None:
    whole = tables_of(own)
    for folder in runs_of(own)[1:]:
        as_earlier(folder)
    assert tables_of(own) == whole
    files = {path: path.read_bytes() for path in own.glob("orders/*/seed-*.*")}
    run.run_study(tiny_store, own, ORDERS, [0, 1], quick())
    assert scored == [] and files == {path: path.read_bytes() for path in own.glob("orders/*/seed-*.*")} and files
    assert tables_of(own) == whole


def test_a_model_of_an_earlier_study_is_exported_with_the_same_figures(own: Path) -> None:
    (stage,) = own.glob("stages/vt-a.seed1.*")
    figures = figures_of_study(stage)
    assert len(figures) == 2 * 4 and all(figure["low"] is not None for figure in figures)
    assert {figure["clips"] for figure in figures} == {"tiny/test"}
    as_earlier(own / "orders" / "vt-a" / "seed-1")
    assert figures_of_study(stage) == figures


def test_a_benchmark_joins_those_of_an_earlier_run(own: Path, tiny_store: Path, scored: list[str]) -> None:
    folder = own / "orders" / "vt" / "seed-0"
    before, arrays = content_of(folder)["benchmarks"], read_arrays(folder / "queries.npz")
    as_earlier(folder)
    run.run_study(tiny_store, own, ["vt"], [0], quick(), benchmarks=["tiny/train"])
    assert scored == ["VT seed 0 tiny/train"]
    assert not list(folder.parent.glob("seed-0.*")), "the folder has taken their place"
    kept, other = content_of(folder)["benchmarks"]
    for part in ("name", "protocol", "title", "kind", "paragraph", "clips", "rows", "results", "notes", "labels"):
        assert kept[part] == before[0][part], part
    assert other["name"] == "tiny/train"
    after = read_arrays(folder / "queries.npz")
    assert all(np.array_equal(after[key], array, equal_nan=array.dtype.kind == "f") for key, array in arrays.items())


def test_an_earlier_run_without_captions_is_scored_again(own: Path, tiny_store: Path, scored: list[str]) -> None:
    captions = captions_in(read_study(own), "tiny")
    as_earlier(own / "orders" / "vt" / "seed-0")
    (own / "queries" / "tiny.json").unlink()
    assert "tiny/caption" not in read_study(own).runs[0].scores.arrays  # type: ignore[union-attr]
    messages: list[str] = []
    with passing_messages(messages.append):
        run.run_study(tiny_store, own, ["vt"], [0], quick())
    assert scored == ["VT seed 0 tiny/test"] and any("tiny/caption is missing" in line for line in messages)
    assert captions_in(read_study(own), "tiny") == captions


@pytest.mark.parametrize("content", ['[{"cap', '[{"caption": "x"}]', "[1, 2]"])
def test_damaged_captions_of_an_earlier_study(content: str, own: Path, tiny_store: Path, scored: list[str]) -> None:
    as_earlier(own / "orders" / "vt" / "seed-0")
    (own / "queries" / "tiny.json").write_text(content)
    with pytest.raises(TrichordError, match=r"queries/tiny.json: cannot be read .*run the study again on tiny, which"):
        read_study(own)
    run.run_study(tiny_store, own, ["vt"], [0], quick())
    assert scored == ["VT seed 0 tiny/test"] and read_study(own).done


def test_a_damaged_benchmark_is_scored_again_without_the_others(own: Path, tiny_store: Path, scored: list[str]) -> None:
    folder = own / "orders" / "vt" / "seed-0"
    run.run_study(tiny_store, own, ["vt"], [0], quick(), benchmarks=["tiny/train"])
    content = {k: v for k, v in content_of(folder).items() if k not in ("sha256", "arrays_sha256")}
    (folder / "results.json").write_text(json.dumps(content))
    for name in (
        "tiny/train/t2v/clip",
        "tiny/train/v2t/greater",
        "tiny/train/caption",
        "tiny/train/geometry/explained",
    ):
        arrays = dict(np.load(folder / "queries.npz"))
        removed = arrays.pop(name)
        np.savez_compressed(folder / "queries.npz", **arrays)
        (folder / "results.json").write_text(json.dumps(content))
        scored.clear()
        run.run_study(tiny_store, own, ["vt"], [0], quick())
        assert scored == ["VT seed 0 tiny/train"], name
        assert np.array_equal(read_arrays(folder / "queries.npz")[name], removed)


def test_several_captions_of_a_clip_in_an_earlier_study(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", word_vectors()) as writer:
        for index in range(12):
            rows = np.random.default_rng([3, index]).random((9, VIDEO_DIM)).astype(np.float32)
            texts = ("worda", "wordb", "wordc")[: 1 + index % 3]
            said = Captions(np.zeros(len(texts)), np.full(len(texts), 9.0), texts)
            if index == 10:  # two clips with the same times
                said = Captions(np.full(2, 2.0), np.full(2, 7.0), ("wordd", "worde"))
            split = "train" if index < 6 else "test"
            writer.add(Item(f"v{index}", "mine", split, 9.0, {"visual_2d": rows}, {"visual_2d": 1.0}, said))
    out = tmp_path / "study"
    run.run_study(tmp_path / "store", out, ["vt"], [0, 1], quick("t2v", "v2t"))
    whole, first = tables_of(out), read_scores(runs_of(out)[0])
    assert first.arrays["mine/text_id"].tolist().count("v8") == 3
    assert first.arrays["mine/id"].tolist() == ["v6", "v7", "v8", "v9", "v10@2.00-7.00", "v10@2.00-7.00#2", "v11"]
    as_earlier(runs_of(out)[0])
    earlier = read_study(out).runs[0].scores
    assert earlier is not None and same(earlier.benchmarks, first.benchmarks)
    assert all(np.array_equal(earlier.arrays[key], a, equal_nan=a.dtype.kind == "f") for key, a in first.arrays.items())
    assert tables_of(out) == whole
