"""The settings that identify a trained stage and a scored run. A new setting at its default changes no identity."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from paths import FIXTURES
from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.recipes import EvaluationSettings, Recipe, load_recipe, recipe_from_dict
from trichord.recipes.identity import ALWAYS, NEVER, TOGETHER, evaluation_settings, training_settings
from trichord.study import run
from trichord.study.plan import plan_study
from trichord.tasks.subject import Subject

ORDERS = [Order.parse(order) for order in ("av>t", "at>v", "vt>a", "avt")]
GOLDEN = json.loads((FIXTURES / "golden_keys.json").read_text())  # written at commit 9eaa247
CHANGES: dict[str, dict[str, Any]] = {
    "mil": {"loss": {"contrast": "mil_nce", "temperature": 0.5}},
    "nce": {"loss": {"contrast": "info_nce", "cosine": True, "temperature": 0.1}},
    "chunk": {"training": {"chunk_clips": 7}},
    "running": {"training": {"chunk_clips": 7, "chunk_norm": "running"}},
    "thaw": {"later_stages": {"thaw": 0.1, "replay": True}, "training": {"max_steps": 0}},
    "audio": {"model": {"audio": "embeddings"}},
    "bn": {"training": {"batch_norm": "process"}},
    "slow": {"training": {"fast": False}},
    "cache": {"data": {"cache_gb": 3.0}},
    "margin": {"loss": {"margin": 0.5}},
}
SECTIONS = [entry.name for entry in fields(Recipe)]


def recipe_of(name: str) -> Recipe:
    """Return the recipe `NAME`, or `debug+CHANGE`."""
    recipe, _, change = name.partition("+")
    return load_recipe(recipe, **CHANGES[change]) if change else load_recipe(recipe)


def keys_of(recipe: Recipe) -> dict[str, str]:
    plan = plan_study(ORDERS, [0], recipe, "store")
    return {f"{planned.order.code}/{stage.stage.chain}": stage.key for planned in plan for stage in planned.stages}


def with_new_setting(recipe: Recipe, section: str, value: int) -> Recipe:
    """Return `recipe` as a later version would have it, with a setting `new` whose default is 3."""
    settings = getattr(recipe, section)
    later = make_dataclass("Later", [("new", int, field(default=3))], bases=(type(settings),))
    values = {entry.name: getattr(settings, entry.name) for entry in fields(settings)}
    return replace(recipe, **{section: later(**values, new=value)})


@pytest.mark.parametrize("name", GOLDEN)
def test_stages_have_the_keys_that_they_have_always_had(name: str) -> None:
    assert keys_of(recipe_of(name)) == GOLDEN[name]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_new_setting_at_its_default_changes_no_identity_and_at_another_value_it_does(section: str) -> None:
    recipe = load_recipe("debug", **CHANGES["chunk"])
    same, other = (with_new_setting(recipe, section, value) for value in (3, 4))
    assert training_settings(same) == training_settings(recipe) and keys_of(same) == keys_of(recipe)
    assert evaluation_settings(same) == evaluation_settings(recipe)
    identity = evaluation_settings if section == "evaluation" else training_settings
    assert identity(other) != identity(recipe)
    assert (keys_of(other) != keys_of(recipe)) == (section != "evaluation")


def test_every_setting_that_is_listed_exists() -> None:
    known = {(section, name) for section in SECTIONS for name in asdict(getattr(Recipe(), section))}
    for listed in (ALWAYS, TOGETHER, NEVER):
        assert {(section, name) for section, names in listed.items() for name in names} <= known


def test_an_earlier_study_continues_with_the_default_of_a_new_setting(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"tensorboard": False, "max_steps": 1, "device": "cpu"}
    recipe = load_recipe("debug", training=quick, evaluation={"directions": ["t2v"]})
    run.run_study(tiny_store, tmp_path / "study", ["vt"], [0], recipe)
    study = json.loads((tmp_path / "study" / "study.json").read_text())
    later = recipe
    for section in SECTIONS:
        later = with_new_setting(later, section, 3)

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("something was trained or scored again")

    monkeypatch.setattr(run, "train_stage", never)
    monkeypatch.setattr(Subject, "text_rows", never)
    again = shutil.copytree(tmp_path / "study", tmp_path / "again")
    run.run_study(tiny_store, again, ["vt"], [0], later)
    assert json.loads((again / "study.json").read_text())["results"] == study["results"]
    with pytest.raises(TrichordError, match="other settings \\(loss.new was the default and is now 4\\)"):
        run.run_study(tiny_store, again, ["vt"], [0], with_new_setting(recipe, "loss", 4))


def test_results_are_kept_when_the_evaluation_gains_a_setting(tiny_store: Path, tmp_path: Path) -> None:
    quick = {"tensorboard": False, "max_steps": 1, "device": "cpu"}
    recipe = load_recipe("debug", training=quick, evaluation={"directions": ["t2v"]})
    out = tmp_path / "study"
    run.run_study(tiny_store, out, ["vt"], [0], recipe)
    content = json.loads((out / "study.json").read_text())
    evaluation = content["recipe"]["evaluation"]
    assert evaluation.pop("block") == EvaluationSettings().block  # as if that setting did not exist yet
    del content["sha256"]
    content["results"].append({**content["results"][0], "benchmark": "another"})
    (out / "study.json").write_text(json.dumps(content))
    run.run_study(tiny_store, out, ["vt"], [0], recipe)
    names = [row["benchmark"] for row in json.loads((out / "study.json").read_text())["results"]]
    assert sorted(names) == sorted({row["benchmark"] for row in content["results"]})


def test_settings_that_lack_the_newer_ones_are_read_with_their_defaults() -> None:
    values = load_recipe("debug").to_dict()
    for section, names in values.items():
        for name in [name for name in names if name not in ALWAYS.get(section, ())]:
            del values[section][name]
    assert asdict(recipe_from_dict(values)) == asdict(load_recipe("debug")) | {
        "training": asdict(load_recipe("debug"))["training"] | {"log_every_steps": 20}
    }
