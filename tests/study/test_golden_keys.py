"""The keys of stages are those of version 0.1.0: if a key changes, every existing study is trained again.

`tests/fixtures/golden_stage_keys.json` holds the first 16 digits of the key of each stage, first to last. It was written by
`PYTHONPATH=tests/helpers python tests/study/test_golden_keys.py`, which is run again only when `study.plan.FORMAT` is raised.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields
from itertools import product
from typing import Any

import pytest

from paths import FIXTURES
from trichord.modality import Order
from trichord.recipes import Recipe, load_recipe, recipe_names
from trichord.study.plan import PlannedOrder, plan_order

GOLDEN = FIXTURES / "golden_stage_keys.json"
FINGERPRINT = "0123456789abcdef" * 4
ORDERS = ("av>t", "at>v", "vt>a", "avt")
SEEDS = (0, 7)
FIRST_STAGE_SEEDS = (None, 3)

# Settings away from their defaults, each of which enters the key in a way of its own.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "chunks": {"training": {"chunk_clips": 64, "chunk_norm": "running"}},
    "batch norm of each process": {"training": {"batch_norm": "process"}},
    "plain paths": {"training": {"fast": False}},
    "embeddings": {"model": {"audio": "embeddings", "text": "embeddings"}},
    "words and spectrograms by name": {"model": {"audio": "spectrogram", "text": "words"}},
    "thawed": {"later_stages": {"thaw": 0.1, "replay": True}},
    "longer later stages": {"training": {"max_steps": 0}, "later_stages": {"epochs": 40}},
    "clipping": {"training": {"clip_grad_norm": 1.0}},
    "InfoNCE": {"loss": {"contrast": "info_nce", "temperature": 0.07, "cosine": True}},
    "MIL-NCE": {"loss": {"contrast": "mil_nce", "temperature": 0.5}},
    "one collection": {"data": {"collection": "youcook2", "train_split": "val"}},
}
# Settings that change no weights, and so no key.
WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "training": {
        "device": "cpu", "frozen_cache": "off", "frozen_cache_gb": 1.0, "tensorboard": False, "log_every_steps": 3,
        "keep_best": 2, "keep_checkpoints": 5, "checkpoint_every_steps": 7, "process_timeout_s": 60, "shard": "full",
        "loader_timeout_s": 5.0,
    },
    "data": {"cache_gb": 3.0},
    "evaluation": {"directions": ["v2t"], "cosine": "yes", "missing": "miss", "audio_frames": 3072, "block": 7},
}  # fmt: skip


def keys_of(planned: PlannedOrder) -> list[str]:
    return [stage.key[:16] for stage in planned.stages]


def keys(recipe: Recipe) -> dict[str, list[str]]:
    return {
        f"{order} seed {seed} first stage {first}": keys_of(
            plan_order(Order.parse(order), seed, recipe, FINGERPRINT, first)
        )
        for order, seed, first in product(ORDERS, SEEDS, FIRST_STAGE_SEEDS)
    }


def variant_keys(settings: dict[str, dict[str, Any]]) -> list[str]:
    return keys_of(plan_order(Order.parse("av>t"), 0, load_recipe("debug", **settings), FINGERPRINT))


def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", golden()["recipes"] if GOLDEN.exists() else ())
def test_keys_of_the_recipes(name: str) -> None:
    assert keys(load_recipe(name)) == golden()["recipes"][name]


def test_every_recipe_is_pinned() -> None:
    """Recipes of later versions are added to the file by hand; existing entries remain."""
    assert set(recipe_names()) == set(golden()["recipes"])


@pytest.mark.parametrize("name", VARIANTS)
def test_keys_of_settings_away_from_their_defaults(name: str) -> None:
    assert variant_keys(VARIANTS[name]) == golden()["variants"][name]
    assert golden()["variants"][name] != golden()["recipes"]["debug"]["av>t seed 0 first stage None"]


@pytest.mark.parametrize("name", golden()["recipes"] if GOLDEN.exists() else ())
def test_settings_that_are_written_out_at_their_defaults_change_no_key(name: str) -> None:
    assert keys(load_recipe(name, **load_recipe(name).to_dict())) == golden()["recipes"][name]


@pytest.mark.parametrize("section", [field.name for field in fields(Recipe)])
def test_a_section_that_is_written_out_at_its_defaults_changes_no_key(section: str) -> None:
    written_out = {section: load_recipe("debug").to_dict()[section]}
    assert variant_keys(written_out) == golden()["recipes"]["debug"]["av>t seed 0 first stage None"]


@pytest.mark.parametrize(
    ("section", "setting"), [(section, setting) for section, values in WITHOUT_EFFECT.items() for setting in values]
)
def test_settings_that_change_no_weights_change_no_key(section: str, setting: str) -> None:
    value = WITHOUT_EFFECT[section][setting]
    assert load_recipe("debug").to_dict()[section][setting] != value
    assert variant_keys({section: {setting: value}}) == golden()["recipes"]["debug"]["av>t seed 0 first stage None"]


def test_every_other_setting_changes_the_key_of_the_last_stage() -> None:
    """If a setting were missing in the key, a study would continue with weights of other settings."""
    plain = load_recipe("debug")
    defaults = plain.to_dict()
    for section, settings in defaults.items():
        for setting, value in settings.items():
            if section == "evaluation" or setting in WITHOUT_EFFECT.get(section, {}):
                continue
            changed = deepcopy(plain)
            setattr(getattr(changed, section), setting, other_value(value))
            if setting == "chunk_norm":  # has no effect without chunks, and `Recipe.check` refuses it
                changed.training.chunk_clips = plain.training.chunk_clips = 64
            last, before = (plan_order(Order.parse("av>t"), 0, r, FINGERPRINT).stages[-1] for r in (changed, plain))
            plain.training.chunk_clips = 0
            assert last.key != before.key, f"{section}.{setting}"


def other_value(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"not {value}" if isinstance(value, str) else ["another"]


def test_stages_of_another_store_seed_or_parent_have_other_keys() -> None:
    recipe, order = load_recipe("debug"), Order.parse("av>t")
    first, last = plan_order(order, 0, recipe, FINGERPRINT).stages
    for planned in (
        plan_order(order, 1, recipe, FINGERPRINT),
        plan_order(order, 0, recipe, FINGERPRINT[::-1]),
    ):
        assert first.key != planned.stages[0].key and last.key != planned.stages[1].key
    shared = plan_order(order, 0, recipe, FINGERPRINT, first_stage_seed=1).stages
    assert shared[0].key == plan_order(order, 1, recipe, FINGERPRINT).stages[0].key
    assert len({shared[1].key, last.key, plan_order(order, 1, recipe, FINGERPRINT).stages[1].key}) == 3


if __name__ == "__main__":
    content = {
        "recipes": {name: keys(load_recipe(name)) for name in recipe_names()},
        "variants": {name: variant_keys(settings) for name, settings in VARIANTS.items()},
    }
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
