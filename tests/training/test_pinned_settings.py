"""Every setting of a recipe has an effect, since a setting that is read and not passed on would change no figure.

Objects that are built from a recipe are described by all their plain attributes; changing a single setting must change them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from tiny import write_tiny_store
from trichord.losses.clustering import ClusterMemory
from trichord.modality import Order
from trichord.nn.mcn import Encoded
from trichord.recipes import Recipe, load_recipe
from trichord.recipes.loss import LossSettings
from trichord.store import Store
from trichord.study import factories
from trichord.training import loop, optimizer
from trichord.training.loop import LoopSettings
from trichord.training.stage import stages_of

MODALITIES, ROWS = ("video", "audio", "text"), 6
# Settings that affect no object of a stage: they are read when a command starts, or need data that the tiny store lacks.
ELSEWHERE = {
    ("model", "visual_3d"), ("model", "audio"), ("model", "text"),
    ("data", "collection"), ("data", "train_split"), ("data", "val_split"), ("data", "cache_gb"),
    ("training", "select"), ("training", "precision"), ("training", "process_timeout_s"), ("training", "device"),
    ("later_stages", "replay"), ("evaluation", "directions"),
}  # fmt: skip
# the benchmark or `data.audio_frames` determines the length of a clip
WITHOUT_EFFECT = {("evaluation", "audio_frames")}
SEVERAL = {  # settings that more than one object needs
    ("data", "videos_per_batch"): {"source", "frozen"},
    ("data", "clips_per_video"): {"source", "frozen"},
    ("data", "min_clip_s"): {"source", "scoring"},
    ("data", "audio_frames"): {"reader", "scoring"},
    ("data", "audio_pad_db"): {"reader", "scoring"},
    ("data", "max_words"): {"reader", "scoring"},
    ("loss", "cosine"): {"terms", "scoring"},
    ("loss", "cluster_cosine"): {"memory", "terms"},
    ("training", "max_steps"): {"loop", "frozen"},
    ("training", "fast"): {"loop", "memory"},
    ("later_stages", "epochs"): {"loop", "frozen"},
}
ORDERS = {("model", "time_mask"): "vt>a", ("model", "frequency_mask"): "vt>a"}  # that train the modality of the setting
LOOP = {
    ("model", "dropout"),
    ("model", "time_mask"),
    ("model", "frequency_mask"),
}  # settings of the model that the loop uses
OTHER: dict[tuple[str, str], Any] = {
    ("model", "audio_channels"): [4, 4, 4, 8],
    ("model", "dropout"): {"text": 0.5},
    ("loss", "pair_weights"): {"vt": 0.5},
    ("training", "weight_decay"): {"text": 0.5},
    ("data", "clip_sampling"): "published",
    ("data", "word_order"): "published",
    ("loss", "contrast"): "info_nce",
    ("loss", "cluster_on"): "fused",
    ("loss", "cluster_empty"): "zero",
    ("loss", "cluster_store"): "first_half",
    ("training", "schedule"): "constant",
    ("training", "batch_norm"): "process",
    ("training", "shard"): "full",
    ("training", "frozen_cache"): "off",
    ("training", "chunk_norm"): "running",
    ("later_stages", "thaw"): 0.5,
    ("evaluation", "cosine"): "yes",
    ("evaluation", "missing"): "miss",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(write_tiny_store(tmp_path_factory.mktemp("pinned") / "store", num_train=4, num_test=2))


def plain(thing: object) -> dict[str, Any]:
    """Return the attributes of an object that are numbers, texts or lists of these."""
    kinds = (bool, int, float, str, tuple, list, type(None))
    return {name: value for name, value in vars(thing).items() if isinstance(value, kinds) and not name.startswith("_")}


def terms_of(loss: Any, batches: int = 3) -> list[float]:
    """Return all terms of a loss on some batches of artificial embeddings, and the gradients of these."""
    generator, numbers = torch.Generator().manual_seed(0), []
    valid = {m: torch.ones(ROWS, dtype=torch.bool) for m in MODALITIES}
    valid["audio"][0] = False
    positives = torch.eye(ROWS, dtype=torch.bool)
    positives[0, 1] = True
    for _ in range(batches):
        rows = {m: torch.randn(ROWS, 5, generator=generator).requires_grad_() for m in MODALITIES}
        targets = {m: torch.randn(ROWS, 5, generator=generator).requires_grad_() for m in MODALITIES}
        outputs = {m: Encoded(rows[m], targets[m], 0.5 * rows[m]) for m in MODALITIES}
        terms = loss(outputs, valid, positives)
        terms["loss"].backward()
        numbers += [float(term.detach()) for term in terms.values()]
        numbers += [float(t.grad.square().sum()) for t in (*rows.values(), *targets.values()) if t.grad is not None]
    return numbers


def read_by_the_loop(settings: LoopSettings) -> dict[str, Any]:
    """Return the settings that the source code of the loop and its optimizer reads, by name."""
    names = set(re.findall(r"\btraining\.(\w+)", inspect.getsource(loop) + inspect.getsource(optimizer))) & set(
        vars(settings.training)
    )
    return {**vars(settings), "training": {name: getattr(settings.training, name) for name in names}}


def built(recipe: Recipe, store: Store, order: str = "av>t") -> Mapping[str, Any]:
    """Return the parts of the last stage of an order, with a recipe."""
    last = stages_of(Order.parse(order), thaw=recipe.later_stages.thaw > 0, replay=recipe.later_stages.replay)[-1]
    loss = factories.build_loss(recipe, last, 0)
    source, reader = factories.build_batches(recipe, store, last, 0)
    return {
        "stage": last,
        "model": factories.build_model(recipe, store, 0).arguments,
        "loss": plain(loss),
        "memory": plain(loss.memory) if isinstance(loss.memory, ClusterMemory) else None,
        "terms": terms_of(loss),
        "source": plain(source),
        "reader": vars(reader.settings),
        "loop": read_by_the_loop(factories.loop_settings(recipe, last)),
        "frozen": vars(factories.frozen_settings(recipe, last, source)),
        "scoring": vars(factories.scoring_settings(recipe, ("visual_2d",))),
    }


def small() -> Recipe:
    """Settings under which each setting has an effect."""
    loss = {"num_clusters": 2, "cluster_rows": 8, "cluster_refit_every_steps": 2, "reconstruction_weight": 1.0}
    recipe = load_recipe("debug", loss=loss, model={"embed_dim": 4, "audio_channels": [4, 4, 4, 4]})
    recipe.training.chunk_clips, recipe.data.videos_per_batch = 8, 2
    return recipe


def changed(recipe: Recipe, section: str, setting: str) -> Recipe:
    recipe = deepcopy(recipe)
    value = getattr(getattr(recipe, section), setting)
    other: Any = OTHER.get((section, setting))
    if other is None:
        other = not value if isinstance(value, bool) else value + 1
    assert other != value
    setattr(getattr(recipe, section), setting, other)
    return recipe


def with_contrast(contrast: str) -> Recipe:
    recipe = small()
    recipe.loss.contrast = contrast  # type: ignore[assignment]
    return recipe


CONTRASTS = get_args(get_type_hints(LossSettings)["contrast"])
SETTINGS = [
    (section, setting)
    for section, values in load_recipe("debug").to_dict().items()
    for setting in values
    if (section, setting) not in ELSEWHERE | WITHOUT_EFFECT
]


@pytest.fixture(scope="module")
def unchanged(store: Store) -> Mapping[str, Any]:
    return built(small(), store)


def same(first: object, second: object) -> bool:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)  # type: ignore[arg-type]
    return first == second


def test_the_same_settings_build_the_same(store: Store, unchanged: Mapping[str, Any]) -> None:
    assert same(built(deepcopy(small()), store), unchanged)


@pytest.mark.parametrize(("section", "setting"), SETTINGS)
def test_every_setting_has_an_effect(section: str, setting: str, store: Store, unchanged: Mapping[str, Any]) -> None:
    order = ORDERS.get((section, setting), "av>t")
    unchanged = unchanged if order == "av>t" else built(small(), store, order)
    built_parts = built(changed(small(), section, setting), store, order)
    differ = {name for name in unchanged if not same(built_parts[name], unchanged[name])}
    if not differ and section == "loss":  # a setting of another pairwise loss
        pairs = [(recipe, changed(recipe, section, setting)) for recipe in map(with_contrast, CONTRASTS)]
        differ = {"terms" for pair in pairs if not same(*(built(recipe, store)["terms"] for recipe in pair))}
    place = {
        "model": {"loop"} if (section, setting) in LOOP else {"model"},
        "data": {"source", "reader", "frozen", "scoring"},
        "loss": {"model", "loss", "memory", "terms", "loop", "scoring"},
        "training": {"loop", "frozen", "loss", "memory", "terms"},
        "later_stages": {"loop", "frozen", "stage"},
        "evaluation": {"scoring"},
    }[section]
    assert differ >= SEVERAL.get((section, setting), set())
    assert differ & place and differ <= {*place, "frozen", "stage"}, differ


def test_settings_keep_their_values_on_the_way_to_the_loop() -> None:
    recipe = small()
    training = recipe.training
    training.warmup_steps, training.keep_checkpoints, training.keep_best, training.loader_timeout_s = 11, 3, 4, 5.0
    training.learning_rate, training.clip_grad_norm, training.epochs, training.max_steps = 0.25, 0.75, 6, 7
    settings = factories.loop_settings(recipe, stages_of(Order.parse("av"))[0])
    assert isinstance(settings, LoopSettings)
    assert settings.training == training


def test_the_terms_of_a_loss_have_the_weights_of_the_recipe(store: Store) -> None:
    """With the weights 2, 3 and 5, the loss is the weighted sum of its terms."""
    recipe = small()
    recipe.loss.contrast_weight, recipe.loss.cluster_weight, recipe.loss.reconstruction_weight = 2.0, 3.0, 5.0
    loss = factories.build_loss(recipe, stages_of(Order.parse("avt"))[0], 0)
    generator = torch.Generator().manual_seed(1)
    rows = {m: torch.randn(ROWS, 5, generator=generator) for m in MODALITIES}
    outputs = {m: Encoded(row, row.flip(0), 0.5 * row) for m, row in rows.items()}
    terms = loss(outputs, {m: torch.ones(ROWS, dtype=torch.bool) for m in MODALITIES})
    weights = {"contrast": 2.0, "cluster": 3.0, "reconstruction": 5.0}
    parts = {name: term for name, term in terms.items() if name not in ("loss", "cluster_objective")}
    assert len(parts) == 3 + 1 + 3
    expected = sum(weights[name.partition("_")[0]] * float(term) for name, term in parts.items())
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("contrast", "store_only"), [("mil_nce", "first_half"), ("mms", "all")])
def test_batches_hold_what_the_loss_needs(contrast: str, store_only: str) -> None:
    recipe = small()
    recipe.loss.contrast, recipe.loss.cluster_store = contrast, store_only  # type: ignore[assignment]
    settings = factories.loop_settings(recipe, stages_of(Order.parse("av"))[0])
    assert (settings.with_positives, settings.with_first_half) == (contrast == "mil_nce", store_only == "first_half")
