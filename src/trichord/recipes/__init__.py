"""Recipes: typed settings of a run, free of torch, read from small YAML files that extend a base.

A recipe is a name of this folder (`paper`, `mcn`, `small`, `stamps`, ...) or a path to a YAML file. `extends: NAME` at the top
of a file takes another recipe as the base; every other key changes one of the fields below.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trichord.errors import TrichordError, one_line
from trichord.files.reading import unreadable
from trichord.recipes.bounds import check_bounds, plainly
from trichord.recipes.loss import LossSettings, check_effect
from trichord.recipes.reading import check_plain, read_yaml
from trichord.settings import TrainingSettings, bounded, bounded_list

FOLDER = Path(__file__).parent
DEFAULT = "debug"
RENAMED = {"training.sync_batch_norm": "training.batch_norm, `global` for true and `process` for false"}
# Settings that earlier versions took below 0, where they meant the same as 0.
OFF_BELOW_0 = (
    ("data", "min_clip_s"), ("training", "warmup_steps"), ("training", "clip_grad_norm"), ("training", "frozen_cache_gb"),
)  # fmt: skip


@dataclass
class ModelSettings:
    """The Multimodal Clustering Network.

    Args:
        embed_dim: Width D of the joint space (published: 6144).
        reconstruction_dim: Hidden width of the reconstruction heads; 0 builds none (published: 1024).
        audio_channels: Widths of DAVEnet's four stages (published: 128, 256, 512, 1024).
        mask_padding: Padded frames and words are left out of the pools; false is the published behaviour.
        reconstruction_relu: A ReLU after each reconstruction head, as published.
        visual_3d: Whether 3-D features join the 2-D ones; `auto` uses them where the store has them.
        audio: What sound comes as: `spectrogram` (through DAVEnet, as published) or `embeddings` of another network
            (their mean over the clip, through a gated unit); `auto`: spectrograms where the store has them.
        text: What text comes as: `words` (vectors, as published) or `embeddings` of whole captions; `auto`: words
            where the store has them.
    """

    embed_dim: int = bounded(6144, 1)
    reconstruction_dim: int = bounded(1024, 0)
    audio_channels: list[int] = bounded_list([128, 256, 512, 1024], 1)
    mask_padding: bool = True
    reconstruction_relu: bool = True
    visual_3d: Literal["auto", "yes", "no"] = "auto"
    audio: Literal["auto", "spectrogram", "embeddings"] = "auto"
    text: Literal["auto", "words", "embeddings"] = "auto"


@dataclass
class DataSettings:
    """What a batch is made of.

    Args:
        collection: Train on this collection of the store only; empty means all that have the split.
        train_split: Split to train on.
        videos_per_batch: Videos of one batch, over all processes.
        clips_per_video: Clips drawn from each of them.
        min_clip_s: A caption's clip grows by its neighbours until it lasts this many seconds.
        audio_frames: Spectrogram frames of a clip (100 per second); longer clips are cut, shorter ones padded.
        audio_pad_db: Value of padded frames in dB: -80 is silence; the published loader pads 0, the loudest level.
        max_words: Words of a clip (of embeddings: captions); the rest is cut.
        clip_sampling: `distinct` draws different clips of a video; `published` draws captions with replacement.
        word_order: Words of a grown clip by `time`, or as `published`: the caption's own first, neighbours after it.
        cache_gb: Most gigabytes of a remote store's parts that are kept on this machine; 0 takes TRICHORD_CACHE_GB, or 20.
    """

    collection: str = ""
    train_split: str = "train"
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
    """What the stages after the first do differently. The study freezes what came before: all of these at their defaults.

    Args:
        epochs: Epochs of a later stage; 0 takes `training.epochs`.
        thaw: Modalities that came before train on at this part of the learning rate; 0 freezes them.
        replay: With `thaw`: the terms of the earlier modalities (their pairs, clustering, reconstruction) count too.
    """

    epochs: int = bounded(0, 0)
    thaw: float = bounded(0.0, 0, 1)
    replay: bool = False


@dataclass
class EvaluationSettings:
    """How retrieval is scored.

    Args:
        directions: Retrieval directions; the first one makes the order table.
        cosine: Score with embeddings of length one. `auto` follows the contrast loss.
        missing: Clips that lack a modality: `auto` takes the benchmark's own policy, `drop` leaves them out,
            `miss` counts them as errors.
        audio_frames: Without effect, and kept because recipes and studies of earlier versions have it. A benchmark names its
            spectrogram frames (YouCook2 5120, MSR-VTT 3072), and other clips take `data.audio_frames`.
        block: Rows of a score block; memory grows with it, not with the square of the gallery.
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
        model: The network.
        data: What a batch is made of.
        loss: The terms and their weights.
        training: Optimizer, schedule, precision, checkpoints.
        later_stages: What the stages after the first do differently.
        evaluation: How retrieval is scored.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    later_stages: LaterStageSettings = field(default_factory=LaterStageSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check(self) -> Recipe:
        """Raise TrichordError for settings that are out of bounds, contradict each other or have no effect."""
        check_bounds(self)
        loss, training = self.loss, self.training
        check_effect(loss)
        if loss.contrast_weight == loss.cluster_weight == loss.reconstruction_weight == 0:
            raise TrichordError("all loss weights are 0: nothing would train; set loss.contrast_weight")
        if loss.reconstruction_weight > 0 and self.model.reconstruction_dim == 0:
            raise TrichordError(
                "loss.reconstruction_weight needs heads: set model.reconstruction_dim, or the weight to 0"
            )
        if loss.cluster_rows < loss.num_clusters:
            raise TrichordError(
                f"loss.cluster_rows ({loss.cluster_rows}) must hold loss.num_clusters ({loss.num_clusters}) rows"
            )
        if self.later_stages.epochs and training.max_steps:
            raise TrichordError("training.max_steps bounds every stage; set it to 0 to use later_stages.epochs")
        if self.later_stages.replay and not self.later_stages.thaw:
            raise TrichordError(
                "later_stages.replay has no effect on frozen modalities; set later_stages.thaw, e.g. to 0.1"
            )
        if not self.evaluation.directions:
            raise TrichordError("evaluation.directions is empty; give at least one, for example t2v")
        if training.chunk_norm != "chunk" and not training.chunk_clips:
            raise TrichordError("training.chunk_norm has no effect without training.chunk_clips; set that, e.g. to 256")
        if training.shard == "full" and (training.precision == "fp16" or training.batch_norm == "process"):
            raise TrichordError("training.shard full goes with training.precision no or bf16, and batch_norm global")
        return self


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe_dict(name_or_path: str | Path) -> dict[str, Any]:
    """The settings of a recipe and of all that it extends, merged, as plain nested dictionaries."""
    return _resolve(str(name_or_path), seen=())


def load_recipe(name_or_path: str | Path = DEFAULT, **overrides: Any) -> Recipe:
    """A recipe by name or path. `overrides` are nested dictionaries, e.g. `training={"epochs": 3}`.

    Raises TrichordError for an unknown recipe or key, or a value of the wrong kind.
    """
    return recipe_from_dict(merge(recipe_dict(name_or_path), overrides), source=str(name_or_path))


def recipe_from_dict(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """Typed settings from nested dictionaries; unknown keys and wrong kinds raise TrichordError."""
    import argparse

    from jsonargparse import ArgumentParser

    check_plain(values, source)
    for group, settings in values.items():
        for key in settings:
            refuse_renamed(f"{group}.{key}", source)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, "recipe")
    try:
        parsed = parser.parse_object({"recipe": values})
    except (argparse.ArgumentError, AttributeError, ValueError, TypeError, KeyError, RecursionError) as error:
        text = plainly(one_line(error)[:500].replace("recipe.", ""))
        raise TrichordError(f"{source}: {text}; `trichord train --print_config` shows every key") from None
    recipe = parser.instantiate(parsed)["recipe"]
    assert isinstance(recipe, Recipe)
    return recipe.check()


def refuse_renamed(key: str, source: str) -> None:
    """Raise TrichordError for a setting of an earlier version that has another name now."""
    if key in RENAMED:
        raise TrichordError(f"{source}: {key} is now {RENAMED[key]}; change it")


def of_this_version(values: dict[str, Any]) -> dict[str, Any]:
    """Settings as a model or a study of an earlier version keeps them, under the names of this one."""
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
    """`base` with `changes` laid over it, key by key."""
    merged = deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged


def _resolve(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    path = FOLDER / f"{name}.yaml" if name in recipe_names() else Path(name)
    if not path.is_file():
        raise TrichordError(
            f"no recipe '{name}'; known are {', '.join(recipe_names())}, or give the path of a YAML file"
        )
    if name in seen:
        raise TrichordError(f"{path}: the recipe extends itself ({' > '.join((*seen, name))}); remove one `extends`")
    try:
        values = read_yaml(path) or {}
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise TrichordError(f"{path}: not a YAML file: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise TrichordError(f"{path}: a recipe is a mapping of settings such as `training: {{epochs: 3}}`")
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str) or "/" in base or "\0" in base:
        raise TrichordError(f"{path}: extends '{one_line(base)[:80]}'; give the name of a recipe, or of one beside it")
    if not (path.parent / f"{base}.yaml").is_file() and base not in recipe_names():
        raise TrichordError(f"{path}: extends '{base}', which is no recipe; known are {', '.join(recipe_names())}")
    sibling = path.parent / f"{base}.yaml"
    return merge(_resolve(base if base in recipe_names() else str(sibling), (*seen, name)), values)
