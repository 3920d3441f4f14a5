"""Stores, studies, models, checkpoints and evaluations of an earlier version are read with the same figures.

`tests/fixtures/earlier.tar.xz` was written by `make_earlier.py` with version 0.1.0 as of commit 9eaa247.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paths import FIXTURES
from trichord import Embedder
from trichord.cli import main
from trichord.evaluation.embedded import Embedded
from trichord.logs import passing_messages
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store
from trichord.store.inspect import verify
from trichord.study import run
from trichord.training.models import load_model

DATA = FIXTURES / "earlier.tar.xz"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(DATA) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def figures(earlier: Path) -> dict[str, Any]:
    return json.loads((earlier / "figures.json").read_text())


@pytest.fixture
def recipe(earlier: Path) -> Recipe:
    return load_recipe(earlier / "recipe.yaml")


def same(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare the entries that the earlier version wrote; later versions may add more."""
    for row, other in zip(rows, expected, strict=True):
        for key, value in other.items():
            assert row[key] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), key


def test_the_store_is_sound_and_the_same(earlier: Path) -> None:
    store = Store(earlier / "store")
    assert verify(earlier / "store") == [] and len(store) == 8
    assert store.fingerprint == "593ab0bc3fccc83ecb49be66e9db2bd1b6c13b8d662b126230e0e9f23f4655b7"
    assert store.caption_text(0, 0) and store.rows("visual_2d", 7).shape == (6, 24)


@pytest.mark.usefixtures("without_chart")
def test_a_finished_study_is_not_trained_again(
    earlier: Path, figures: dict[str, Any], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = shutil.copytree(earlier / "study", tmp_path / "study")

    def trained(*arguments: object, **options: object) -> None:
        raise AssertionError("a stage was trained again")

    monkeypatch.setattr(run, "train_stage", trained)
    for scored_again in (False, True):
        if scored_again:
            shutil.rmtree(study / "orders")
        run.run_study(earlier / "store", study, ["av>t", "avt"], [0], recipe)
        same(json.loads((study / "study.json").read_text())["results"], figures["study"])
        assert (study / "table.csv").read_text() == figures["table"]
    assert sorted(path.name for path in (study / "stages").iterdir()) == figures["keys"]


def test_a_new_study_has_the_same_keys(earlier: Path, figures: dict[str, Any], recipe: Recipe) -> None:
    from trichord.modality import Order
    from trichord.study.plan import distinct_stages, plan_study

    orders = [Order.parse("av>t"), Order.parse("avt")]
    plan = plan_study(orders, [0], recipe, Store(earlier / "store").fingerprint, None)
    assert sorted(stage.folder for stage in distinct_stages(plan)) == figures["keys"]


def test_an_interrupted_stage_continues(earlier: Path, recipe: Recipe, tmp_path: Path) -> None:
    out = shutil.copytree(earlier / "stopped", tmp_path / "stopped")
    metrics = next((out / "stages").iterdir()) / "metrics.jsonl"
    before = metrics.read_text().splitlines()
    lines: list[str] = []
    with passing_messages(lines.append):
        summary = run.train_order(earlier / "store", out, "vt", 0, recipe, resume=True)
    after = metrics.read_text().splitlines()
    assert summary.num_steps == 2 and len(after) == 4 and after[:2] == before[:2]
    assert not [line for line in lines if "cannot be used" in line]
    load_model(summary.model_folder)


def test_a_checkpoint_can_be_scored(earlier: Path) -> None:
    folder = next((earlier / "stopped" / "stages").glob("*/checkpoints/step-00000002"))
    assert load_model(folder).trained == ("video", "text")


def test_an_exported_model_computes_the_same_embeddings(earlier: Path) -> None:
    model = Embedder.from_pretrained(earlier / "model")
    saved, store = Embedded.load(earlier / "embeddings.npz"), Store(earlier / "store")
    item = next(i for i in range(len(store)) if store.video_id(i) == "video4")
    captions = [store.caption_text(item, c) for c in range(store.num_captions(item))]
    text = model.encode_text([" ".join(captions)])[0]
    own = saved.embeddings["text"][0]
    assert np.allclose(text / np.linalg.norm(text), own / np.linalg.norm(own), atol=1e-5)


def test_evaluations_are_the_same(earlier: Path, figures: dict[str, Any], tmp_path: Path) -> None:
    stage = next((earlier / "study" / "stages").glob("avt.*"))
    ways = {
        "stage": [str(stage), "--store", str(earlier / "store"), "--benchmark", "small/test"],
        "embeddings": ["--embeddings", str(earlier / "embeddings.npz"), "--benchmark", "retrieval"],
    }
    for name, words in ways.items():
        assert main(["evaluate", *words, "--directions", "t2v,v2t", "--out", str(tmp_path / name)]) == 0
        own = json.loads((tmp_path / name / "results.json").read_text())["benchmarks"][0]["rows"]
        if name == "stage":
            same(own, figures["evaluation"])
        assert [(row["of"], row["measure"], row["value"]) for row in own] == [
            (row["of"], row["measure"], row["value"]) for row in figures["evaluation"]
        ]


def test_reports_read_studies_and_evaluations(earlier: Path, tmp_path: Path) -> None:
    assert main(["report", str(earlier / "study"), "--out", str(tmp_path / "study")]) == 0
    assert main(["report", str(earlier / "evaluation"), "--out", str(tmp_path / "evaluation")]) == 0
    page = (tmp_path / "study" / "report.html").read_text()
    assert "AV→T" in page and "AVT" in page
