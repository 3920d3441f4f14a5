"""A stage folder that holds the intact, sealed model of another stage is refused by all readers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trichord.embedder.export import export_model
from trichord.errors import TrichordError
from trichord.recipes import Recipe, load_recipe
from trichord.report.write import write_report
from trichord.study.evaluate import evaluate
from trichord.study.evaluate_orders import evaluate_orders
from trichord.study.freeze import freeze
from trichord.study.loading import find_model
from trichord.study.places import check_described, check_stage
from trichord.study.reproduce import reproduce
from trichord.study.run import run_study, train_order

pytestmark = pytest.mark.usefixtures("without_chart")

ORDERS = ["vt", "av>t", "at"]


def quick() -> Recipe:
    quick = {"max_steps": 1, "device": "cpu", "tensorboard": False, "checkpoint_every_steps": 1, "keep_best": 1}
    return load_recipe("debug", training=quick)


@pytest.fixture(scope="module")
def study(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("places") / "study"
    run_study(tiny_store, out, ORDERS, [0], quick())
    return out


def stage_of(study: Path, chain: str) -> Path:
    (folder,) = study.glob(f"stages/{chain}.seed0.*")
    return folder


def copy_over(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


@pytest.fixture
def swapped(study: Path, tmp_path: Path) -> Path:
    """A study whose stage AV→T holds the model of AT, and whose stage AV holds that of VT."""
    own = tmp_path / "study"
    shutil.copytree(study, own)
    copy_over(stage_of(own, "at"), stage_of(own, "av-t"))
    copy_over(stage_of(own, "vt"), stage_of(own, "av"))
    return own


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "study": lambda own, store: run_study(store, own, ORDERS, [0], quick()),
    "train": lambda own, store: train_order(store, own, "av>t", 0, quick(), resume=True),
    "evaluate STUDY": lambda own, store: evaluate_orders(own, store, ["tiny"]),
    "evaluate STAGE": lambda own, store: evaluate(stage_of(own, "av-t"), store, ["tiny"]),
    "evaluate CHECKPOINT": lambda own, store: evaluate(
        next(stage_of(own, "av-t").glob("checkpoints/step-*")), store, ["tiny"]
    ),
    "evaluate CHECKPOINTS": lambda own, store: evaluate(stage_of(own, "av-t") / "checkpoints", store, ["tiny"]),
    "report": lambda own, store: write_report(own, own / "report"),
    "freeze": lambda own, store: freeze(own, store),
    "freeze STAGE": lambda own, store: freeze(stage_of(own, "av"), store),
    "export-model": lambda own, store: export_model(stage_of(own, "av-t"), own / "model", store=store),
    "find": lambda own, store: find_model(own),
    "find FILE": lambda own, store: find_model(stage_of(own, "av-t") / "model.safetensors"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_model_of_another_stage_is_refused(name: str, swapped: Path, tiny_store: Path) -> None:
    with pytest.raises(
        TrichordError, match=r"seed0\.[0-9a-f]{8}: contains a model of stage (at|vt), seed 0, key "
    ) as caught:
        READERS[name](swapped, tiny_store)
    message = str(caught.value)
    assert "\n" not in message and ("stage av>t, seed 0, key" in message or "stage av, seed 0, key" in message)
    assert "move the folder away, and run" in message


def test_the_folder_itself_is_right(study: Path, tiny_store: Path) -> None:
    for folder in study.glob("stages/*"):
        check_stage(folder)
    run_study(tiny_store, study, ORDERS, [0], quick())


@pytest.mark.parametrize(
    ("part", "value"), [("stage", "at>v"), ("seed", 1), ("key", "0" * 64), ("stage", ["x"]), ("key", None)]
)
def test_every_part_counts(part: str, value: object, study: Path) -> None:
    folder = stage_of(study, "av-t")
    described = json.loads((folder / "model.json").read_text())
    check_described(folder, described)
    with pytest.raises(TrichordError, match="instead of stage av>t, seed 0, key"):
        check_described(folder, {**described, part: value})


def test_fields_that_earlier_versions_lack_are_not_compared(study: Path, tmp_path: Path) -> None:
    folder = stage_of(study, "av-t")
    check_described(folder, {"format": 1, "trained": ["video"]})
    check_described(tmp_path / "renamed", json.loads((folder / "model.json").read_text()))


def test_a_dump_of_another_stage_is_refused(tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = quick()
    recipe.training.learning_rate = 1e6
    recipe.training.max_steps = 20
    out = tmp_path / "study"
    with pytest.raises(TrichordError):
        run_study(tiny_store, out, ["vt"], [0], recipe)
    (dump,) = out.glob("stages/*/divergence")
    reproduce(dump)
    other = dump.parent.with_name("at.seed0.00000000")
    dump.parent.rename(other)
    with pytest.raises(TrichordError, match="contains a model of stage vt"):
        reproduce(other)
