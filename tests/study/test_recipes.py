"""Recipes: inheritance, settings, bounds and errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import docstring_parser
import pytest

from trichord.errors import TrichordError
from trichord.recipes import Recipe, load_recipe, merge, recipe_dict, recipe_names
from trichord.settings import descriptions_of


def test_the_paper_recipe_is_the_studys() -> None:
    recipe = load_recipe("paper")
    assert recipe.training.learning_rate == 1e-4 and recipe.training.epochs == 30
    assert (recipe.data.videos_per_batch, recipe.data.clips_per_video) == (128, 32)
    assert recipe.data.min_clip_s == 10.0 and recipe.data.audio_frames == 1000
    assert recipe.model.visual_3d == "no" and recipe.model.audio_channels == [128, 256, 512, 1024]


def test_the_mcn_recipe_switches_every_published_quirk_on() -> None:
    recipe = load_recipe("mcn")
    assert not recipe.model.mask_padding and not recipe.loss.reconstruction_detach and not recipe.loss.cluster_cosine
    assert recipe.loss.cluster_empty == "zero" and recipe.loss.cluster_reset_every_epoch
    assert recipe.loss.cluster_store == "first_half" and recipe.loss.cluster_wait_until_full
    assert recipe.data.clip_sampling == recipe.data.word_order == "published" and recipe.data.audio_pad_db == 0.0
    assert recipe.training.warmup_steps == 5000 and recipe.training.schedule == "cosine"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads(name: str) -> None:
    load_recipe(name)


def test_a_file_extends_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: debug\ntraining: {epochs: 3}\n")
    (tmp_path / "more.yaml").write_text("extends: mine\ndata: {max_words: 7}\n")
    recipe = load_recipe(tmp_path / "more.yaml")
    debug = load_recipe("debug")
    assert (recipe.training.epochs, recipe.data.max_words, recipe.model) == (3, 7, debug.model)


def test_a_file_with_the_name_of_a_recipe(tmp_path: Path) -> None:
    """A file may extend the recipe of its own name, but another file does not silently extend one of the two."""
    own = tmp_path / "debug.yaml"
    own.write_text("extends: debug\ntraining: {epochs: 3}\n")
    assert load_recipe(own).training.epochs == 3
    (tmp_path / "more.yaml").write_text("extends: debug\n")
    with pytest.raises(
        TrichordError, match=r"names 'debug', which is both a recipe of trichord and the file .*; rename the file"
    ):
        load_recipe(tmp_path / "more.yaml")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [({"training": {"epoch": 3}}, "training.epoch"), ({"trainin": {"epochs": 3}}, "trainin"),
     ({"training": {"epochs": "many"}}, "training.epochs"), ({"loss": {"contrast": "clip"}}, "contrast"),
     ({"loss": {"temperature": 0.5}}, "no effect with loss.contrast mms"),
     ({"loss": {"contrast_weight": 0, "cluster_weight": 0, "reconstruction_weight": 0}}, "nothing would be trained"),
     ({"model": {"reconstruction_dim": 0}}, "requires reconstruction heads"), ({"training": {"epochs": 0}}, "at least 1"),
     ({"loss": {"cluster_rows": 4}}, "must be at least loss.num_clusters")],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(values: dict[str, dict[str, object]], complaint: str) -> None:
    with pytest.raises(TrichordError, match=complaint) as caught:
        load_recipe("debug", **values)
    assert "\n" not in str(caught.value)


def test_unknown_cyclic_and_broken_recipes(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match="unknown recipe 'nope'; expected one of .*debug"):
        load_recipe("nope")
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text("extends: b\n")
    b.write_text("extends: a\n")
    with pytest.raises(TrichordError, match="extends itself"):
        recipe_dict(a)
    a.write_text("training: [")
    with pytest.raises(TrichordError, match="the file is not valid YAML"):
        recipe_dict(a)
    a.write_text("!!python/object/apply:os.system ['touch hacked']")
    with pytest.raises(TrichordError, match="the file is not valid YAML"):
        recipe_dict(a)


def test_merge_changes_neither_side() -> None:
    base, change = {"a": {"b": 1, "c": [1]}}, {"a": {"b": 2}}
    assert merge(base, change) == {"a": {"b": 2, "c": [1]}}
    assert base == {"a": {"b": 1, "c": [1]}} and change == {"a": {"b": 2}}


def test_recipes_need_no_torch() -> None:
    code = (
        "import sys; from trichord.recipes import load_recipe; load_recipe('paper'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("section", [entry.name for entry in fields(Recipe)])
def test_the_help_describes_every_setting_completely(section: str) -> None:
    """The command line drops the descriptions of a section silently when the parser of docstrings rejects it."""
    settings = type(getattr(load_recipe("debug"), section))
    parsed = docstring_parser.parse(settings.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    shown = {entry.arg_name: " ".join((entry.description or "").split()) for entry in parsed.params}
    assert shown == descriptions_of(settings)
    assert set(shown) == {entry.name for entry in fields(settings)}
    assert all(text.endswith(".") for text in shown.values())


def test_changing_a_recipe_leaves_later_ones_alone() -> None:
    expected = load_recipe("debug").to_dict()
    changed = load_recipe("debug")
    changed.training.epochs = 99
    changed.evaluation.directions.append("v2t")
    changed.model.audio_channels[0] = 1
    assert load_recipe("debug").to_dict() == expected != changed.to_dict()
    assert load_recipe("debug", training={"epochs": 99}).to_dict()["evaluation"] == expected["evaluation"]


def test_equal_numbers_of_different_types_are_different_recipes() -> None:
    assert load_recipe("debug", training={"tensorboard": False}).training.tensorboard is False
    with pytest.raises(TrichordError, match="training.tensorboard"):
        load_recipe("debug", training={"tensorboard": 0})
