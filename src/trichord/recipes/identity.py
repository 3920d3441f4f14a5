"""Settings that identify a result: they are part of the key of a trained stage, or are saved with the figures of a run.

A setting that is added later is included only if it differs from its default. Models that were trained and scored before the
setting existed then keep their identity.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any

from trichord.modality import Pair, letters_of
from trichord.recipes import Recipe
from trichord.recipes.loss import number_for_pair
from trichord.settings import number_for

# Settings that are included with any value. New settings of recipes are not added here.
ALWAYS = {
    "model": ("embed_dim", "reconstruction_dim", "audio_channels", "mask_padding", "reconstruction_relu", "visual_3d"),
    "data": (
        "collection", "train_split", "videos_per_batch", "clips_per_video", "min_clip_s", "audio_frames", "audio_pad_db",
        "max_words", "clip_sampling", "word_order",
    ),
    "loss": (
        "contrast", "contrast_weight", "margin", "temperature", "cosine", "cluster_weight", "num_clusters", "cluster_rows",
        "cluster_refit_every_steps", "cluster_on", "cluster_cosine", "cluster_temperature", "cluster_empty",
        "cluster_store", "cluster_wait_until_full", "cluster_reset_every_epoch", "reconstruction_weight",
        "reconstruction_detach",
    ),
    "training": (
        "epochs", "max_steps", "learning_rate", "schedule", "warmup_steps", "clip_grad_norm", "precision",
    ),
    "evaluation": ("directions", "cosine", "missing", "audio_frames", "block"),
}  # fmt: skip
# Settings that are included together if one of them differs from its default.
TOGETHER = {"later_stages": ("epochs", "thaw", "replay"), "training": ("chunk_clips", "chunk_norm")}
# Settings that do not change the trained weights.
NEVER = {
    "data": ("cache_gb",),
    "training": (
        "log_every_steps", "tensorboard", "checkpoint_every_steps", "device", "frozen_cache", "frozen_cache_gb",
        "process_timeout_s", "shard", "loader_timeout_s", "keep_checkpoints", "keep_best",
    ),
}  # fmt: skip


# Numbers by the name of a modality. Only those of the trained modalities are included in the key of a stage.
BY_MODALITY = (("training", "weight_decay"), ("model", "dropout"))
# Numbers by the letters of a pair, whose default is 1. Only those of the pairs of a stage are included in its key.
BY_PAIR = (("loss", "pair_weights"),)
# Settings of the spectrograms of audio, which are included in the key of a stage that trains audio.
OF_AUDIO = (("model", "time_mask"), ("model", "frequency_mask"))


def stage_settings(recipe: Recipe, modalities: Collection[str], pairs: Collection[Pair]) -> dict[str, Any]:
    """Return the settings that determine the weights that a stage trains.

    Stages that differ only in settings of other modalities have equal settings, so that orders and studies share them.

    Args:
        recipe: All settings.
        modalities: Modalities that the stage trains.
        pairs: Pairs that it compares.
    """
    values = training_settings(recipe)
    for section, name in BY_MODALITY:
        if name in values[section]:
            setting = values[section].pop(name)
            numbers = {m: number_for(setting, m) for m in modalities}
            if kept := {m: number for m, number in numbers.items() if number}:
                values[section][name] = kept
    for section, name in BY_PAIR:
        if name in values[section]:
            setting = values[section].pop(name)
            numbers = {letters_of(pair): number_for_pair(setting, pair) for pair in pairs}
            if kept := {letters: number for letters, number in numbers.items() if number != 1}:
                values[section][name] = kept
    for section, name in OF_AUDIO:
        if "audio" not in modalities:
            values[section].pop(name, None)
    return values


def training_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that determine the trained weights."""
    values = _identifying(recipe)
    values.pop("evaluation")
    if not values["later_stages"]:
        values.pop("later_stages")
    if "batch_norm" not in values["training"]:  # the default has the name and value of an earlier version
        values["training"]["sync_batch_norm"] = False
    return values


def evaluation_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that determine the figures of a model."""
    return _identifying(recipe)["evaluation"]


def _identifying(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {entry.name: _of_section(entry.name, getattr(recipe, entry.name)) for entry in fields(recipe)}


def _of_section(section: str, settings: Any) -> dict[str, Any]:
    values, defaults = asdict(settings), asdict(type(settings)())
    included = {name for name, value in values.items() if value != defaults[name]}
    if included & set(TOGETHER.get(section, ())):
        included |= set(TOGETHER[section])
    included = (included | set(ALWAYS.get(section, ()))) - set(NEVER.get(section, ()))
    return {name: value for name, value in values.items() if name in included}
