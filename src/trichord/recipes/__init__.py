"""Recipes: the typed settings of a run, read from small YAML files that extend each other.

A recipe is given by its name in this folder (`paper`, `mcn`, `small`, `stamps`, ...) or by the path of a YAML file. `extends:
NAME` at the top of a file names the recipe that it is based on; every other key changes one of the fields below. This package
defines, reads and checks settings and does not import torch; the modules that use the settings take them as plain arguments.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trichord.errors import TrichordError, one_line
from trichord.files.reading import unreadable
from trichord.recipes.bounds import check_bounds, plainly
from trichord.recipes.loss import LossSettings, check_effect
from trichord.recipes.reading import check_plain, read_yaml
from trichord.settings import ByName, TrainingSettings, bounded, bounded_list

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

FOLDER = Path(__file__).parent
DEFAULT = "debug"
RENAMED = {"training.sync_batch_norm": "training.batch_norm, `global` for true and `process` for false"}
# Settings that could be negative in earlier versions, where negative values had the same meaning as 0.
OFF_BELOW_0 = (
    ("data", "min_clip_s"), ("training", "warmup_steps"), ("training", "clip_grad_norm"), ("training", "frozen_cache_gb"),
)  # fmt: skip


@dataclass
class ModelSettings:
    """Settings of the network, a Multimodal Clustering Network.

    Args:
        embed_dim: Width D of the joint space (published: 6144).
        reconstruction_dim: Hidden width of the reconstruction heads; 0 builds no heads (published: 1024).
        audio_channels: Widths of the four stages of DAVEnet (published: 128, 256, 512, 1024).
        mask_padding: Whether to exclude padded frames and words from pooling; false is the published behaviour.
        reconstruction_relu: Whether to apply a ReLU after each reconstruction head, as published.
        visual_3d: Whether to use 3-D features in addition to 2-D features; `auto` uses them if the store has them.
        audio: Input of the audio encoder: `spectrogram` (encoded by DAVEnet, as published) or `embeddings` of another network
            (averaged over the clip and passed through a gated unit); `auto` uses spectrograms if the store has them.
        text: Input of the text encoder: `words` (word vectors, as published) or `embeddings` of whole captions; `auto` uses words
            if the store has them.
        dropout: Probability with which an input feature or a word of a clip is dropped in training. A number for all modalities,
            or numbers by modality, such as `{video: 0.3, text: 0.15}`. Spectrograms have masks instead.
        time_mask: Largest number of spectrogram frames in each of two masks per clip in training, and at most a quarter of the
            frames of the clip; 0 for no mask (SpecAugment).
        frequency_mask: Largest number of mel bins in each of two masks per clip in training, and at most a third of the bins; 0 for
            no mask.
    """

    embed_dim: int = bounded(6144, 1)
    reconstruction_dim: int = bounded(1024, 0)
    audio_channels: list[int] = bounded_list([128, 256, 512, 1024], 1)
    mask_padding: bool = True
    reconstruction_relu: bool = True
    visual_3d: Literal["auto", "yes", "no"] = "auto"
    audio: Literal["auto", "spectrogram", "embeddings"] = "auto"
    text: Literal["auto", "words", "embeddings"] = "auto"
    dropout: ByName = bounded(0.0, 0, 0.95)
    time_mask: int = bounded(0, 0)
    frequency_mask: int = bounded(0, 0, 40)


@dataclass
class DataSettings:
    """Settings of the data and of the composition of batches.

    Args:
        collection: Collection of the store to train on; empty for all collections that have the split.
        train_split: Split to train on.
        val_split: Split of the validation clips for `training.select best`. If it is empty, it is `val` or, in a store without this
            split, a sixth of the training videos (at least 64 clips), which are then not trained on.
        videos_per_batch: Number of videos in a batch, over all processes.
        clips_per_video: Number of clips that are drawn from each video.
        min_clip_s: Smallest duration of a clip in seconds; shorter captions are extended by their neighbours.
        audio_frames: Number of spectrogram frames of a clip (100 per second); longer clips are cut, shorter ones are padded.
        audio_pad_db: Value of padded frames in dB: -80 is silence; the published loader pads with 0, the loudest level.
        max_words: Largest number of words of a clip (of embeddings: captions); further words are cut.
        clip_sampling: `distinct` draws different clips of a video; `published` draws captions with replacement.
        word_order: Order of the words of an extended clip: by `time`, or as `published`, where the words of the caption itself
            precede those of its neighbours.
        cache_gb: Largest size in gigabytes of the local cache of a remote store; 0 uses TRICHORD_CACHE_GB, or 20.
    """

    collection: str = ""
    train_split: str = "train"
    val_split: str = ""
    videos_per_batch: int = bounded(128, 1)
    clips_per_video: int = bounded(32, 1)
    min_clip_s: float = bounded(10.0, 0)
    audio_frames: int = bounded(1000, 1)
    audio_pad_db: float = bounded(-80.0, -1000, 1000)
    max_words: int = bounded(20, 1)
    clip_sampling: Literal["distinct", "published"] = "distinct"
    word_order: Literal["time", "published"] = "time"
    cache_gb: float = bounded(0.0, 0)


@dataclass
class LaterStageSettings:
    """Settings that differ in the stages after the first. With the defaults, the modalities of earlier stages are frozen.

    Args:
        epochs: Number of epochs of a later stage; 0 uses `training.epochs`.
        thaw: Factor of the learning rate for the modalities of earlier stages; 0 freezes them.
        replay: Whether to include the loss terms of the earlier modalities (their pairs, clustering, reconstruction); requires
            `thaw`.
    """

    epochs: int = bounded(0, 0)
    thaw: float = bounded(0.0, 0, 1)
    replay: bool = False


@dataclass
class EvaluationSettings:
    """Settings of the evaluation by retrieval.

    Args:
        directions: Retrieval directions; the order table shows the first one.
        cosine: Whether to score with normalized embeddings; `auto` follows the contrastive loss.
        missing: Treatment of clips that lack a modality: `auto` uses the policy of the benchmark, `drop` excludes them, `miss`
            counts them as errors.
        audio_frames: No effect; it is accepted because recipes and studies of earlier versions contain it. Benchmarks define their
            number of spectrogram frames (YouCook2 5120, MSR-VTT 3072), and other clips use `data.audio_frames`.
        block: Number of rows in a block of scores; memory grows with it instead of with the square of the gallery.
    """

    directions: list[str] = field(default_factory=lambda: ["t2v", "t2va", "v2t", "a2v", "v2a", "t2a", "a2t"])
    cosine: Literal["auto", "yes", "no"] = "auto"
    missing: Literal["auto", "drop", "miss"] = "auto"
    audio_frames: int = bounded(5120, 1)
    block: int = bounded(1024, 1)


@dataclass
class Recipe:
    """All settings of a run.

    Args:
        model: Settings of the network.
        data: Settings of the data and of the composition of batches.
        loss: Settings of the loss terms and their weights.
        training: Settings of the optimizer, schedule, precision and checkpoints.
        later_stages: Settings that differ in the stages after the first.
        evaluation: Settings of the evaluation by retrieval.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    later_stages: LaterStageSettings = field(default_factory=LaterStageSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested dictionaries."""
        return asdict(self)

    def check(self) -> Recipe:
        """Check all settings and return the recipe.

        Raises:
            TrichordError: A setting is out of bounds, contradicts another one or has no effect.
        """
        check_bounds(self)
        loss, training = self.loss, self.training
        check_effect(loss)
        if loss.contrast_weight == loss.cluster_weight == loss.reconstruction_weight == 0:
            raise TrichordError("all loss weights are 0, so nothing would be trained; set loss.contrast_weight")
        if loss.reconstruction_weight > 0 and self.model.reconstruction_dim == 0:
            raise TrichordError(
                "loss.reconstruction_weight requires reconstruction heads; set model.reconstruction_dim, or set the weight to 0"
            )
        if loss.cluster_rows < loss.num_clusters:
            raise TrichordError(
                f"loss.cluster_rows is {loss.cluster_rows}; it must be at least loss.num_clusters ({loss.num_clusters})"
            )
        if self.later_stages.epochs and training.max_steps:
            raise TrichordError("training.max_steps limits every stage; set it to 0 to use later_stages.epochs")
        if self.later_stages.replay and not self.later_stages.thaw:
            raise TrichordError(
                "later_stages.replay has no effect on frozen modalities; set later_stages.thaw, e.g. to 0.1"
            )
        if not self.evaluation.directions:
            raise TrichordError("evaluation.directions is empty; give at least one, for example t2v")
        if training.chunk_norm != "chunk" and not training.chunk_clips:
            raise TrichordError("training.chunk_norm has no effect without training.chunk_clips; set that, e.g. to 256")
        if training.shard == "full" and training.select == "best":
            raise TrichordError("training.select best is not supported with training.shard full; change one of them")
        if self.data.val_split and training.select != "best":
            raise TrichordError(
                "data.val_split has no effect without training.select best; set that, or leave it empty"
            )
        if training.shard == "full" and (training.precision == "fp16" or training.batch_norm == "process"):
            raise TrichordError(
                "training.shard full requires training.precision no or bf16 and training.batch_norm global; change one of them"
            )
        return self


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe_dict(name_or_path: str | Path) -> dict[str, Any]:
    """Return the settings of a recipe, merged with those of the recipes that it extends, as nested dictionaries."""
    return _resolve(str(name_or_path), seen=())


def load_recipe(name_or_path: str | Path = DEFAULT, **overrides: Any) -> Recipe:
    """Load a recipe.

    Args:
        name_or_path: Name of a recipe in the package, or path of a YAML file.
        **overrides: Nested dictionaries of settings, such as `training={"epochs": 3}`.

    Raises:
        TrichordError: The recipe or a key is unknown, or a value has the wrong type or is out of bounds.

    Example:
        >>> load_recipe("debug", training={"epochs": 3}).training.epochs
        3
    """
    return recipe_from_dict(merge(recipe_dict(name_or_path), overrides), source=str(name_or_path))


def recipe_from_dict(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """Return the recipe of nested dictionaries.

    Args:
        values: Settings by section.
        source: Origin of the settings, for error messages.

    Raises:
        TrichordError: A key is unknown, or a value has the wrong type or is out of bounds.
    """
    import argparse

    check_plain(values, source, _settings_by_name())
    for group, settings in values.items():
        for key in settings:
            refuse_renamed(f"{group}.{key}", source)
    try:
        return deepcopy(_parsed(json.dumps(values, default=str)))
    except TrichordError:
        raise
    except (argparse.ArgumentError, AttributeError, ValueError, TypeError, KeyError, RecursionError) as error:
        text = plainly(one_line(error)[:500].replace("recipe.", ""))
        raise TrichordError(f"{source}: {text}; `trichord train --print_config` shows all keys") from None


@lru_cache(maxsize=64)
def _parsed(settings: str) -> Recipe:
    """Return the recipe of settings in JSON. Parsing takes some 50 ms, and a study asks for the same recipe many times."""
    parsed = _parser().parse_object({"recipe": json.loads(settings)})
    recipe = _parser().instantiate(parsed)["recipe"]
    assert isinstance(recipe, Recipe)
    return recipe.check()


@cache
def _settings_by_name() -> frozenset[str]:
    """Return the names of the settings that may be numbers by the name of a modality or pair."""
    sections = {section.name: getattr(Recipe(), section.name) for section in fields(Recipe)}
    return frozenset(
        f"{section}.{entry.name}"
        for section, settings in sections.items()
        for entry in fields(settings)
        if entry.type in (ByName, "ByName")
    )


@cache
def _parser() -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, "recipe")
    return parser


def refuse_renamed(key: str, source: str) -> None:
    """Raise TrichordError for a setting that was renamed after an earlier version."""
    if key in RENAMED:
        raise TrichordError(f"{source}: {key} was renamed to {RENAMED[key]}; change the name")


def of_this_version(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a model or study of an earlier version under the names of this version."""
    values = deepcopy(values)
    training = values.get("training")
    if isinstance(training, dict) and "sync_batch_norm" in training:
        training["batch_norm"] = "global" if training.pop("sync_batch_norm") else "process"
    for group, key in OFF_BELOW_0:
        settings = values.get(group)
        if isinstance(settings, dict) and isinstance(settings.get(key), int | float) and settings[key] < 0:
            settings[key] = 0
    return values


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` updated recursively with `changes`."""
    merged = deepcopy(base)
    for key, value in changes.items():
        is_nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if is_nested else deepcopy(value)
    return merged


def _resolve(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    path = FOLDER / f"{name}.yaml" if name in recipe_names() else Path(name)
    if not path.is_file():
        raise TrichordError(
            f"unknown recipe '{name}'; expected one of {', '.join(recipe_names())}, or give the path of a YAML file"
        )
    if name in seen:
        raise TrichordError(f"{path}: the recipe extends itself ({' > '.join((*seen, name))}); remove one `extends`")
    try:
        values = read_yaml(path) or {}
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise TrichordError(f"{path}: the file is not valid YAML ({one_line(error)}); correct it") from None
    if not isinstance(values, dict):
        raise TrichordError(f"{path}: the file is not a mapping of settings; write it like `training: {{epochs: 3}}`")
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str) or "/" in base or "\0" in base:
        raise TrichordError(
            f"{path}: `extends` is '{one_line(base)[:80]}'; give the name of a recipe, or of a recipe in the same folder"
        )
    if not (path.parent / f"{base}.yaml").is_file() and base not in recipe_names():
        raise TrichordError(
            f"{path}: `extends` names the unknown recipe '{base}'; expected one of {', '.join(recipe_names())}, or a recipe in the "
            "same folder"
        )
    sibling = path.parent / f"{base}.yaml"
    is_other_file = sibling.is_file() and not sibling.samefile(path)
    if base in recipe_names() and path.parent != FOLDER and is_other_file:
        raise TrichordError(
            f"{path}: `extends` names '{base}', which is both a recipe of trichord and the file {sibling}; rename the file"
        )
    return merge(_resolve(base if base in recipe_names() else str(sibling), (*seen, name)), values)
