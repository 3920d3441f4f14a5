"""Functions that build the objects of a training from a recipe and a store: model, loss, batches and settings.

Lower layers do not know recipes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch

from trichord.data.batches import TrainingClips
from trichord.data.reader import ClipReader, require_modalities
from trichord.errors import TrichordError, one_line
from trichord.logs import main_process_logger
from trichord.losses.clustering import ClusterMemory
from trichord.losses.combined import CombinedLoss
from trichord.losses.registry import pairwise_loss, pairwise_losses
from trichord.modalities.audio import audio_input_of
from trichord.modalities.base import AudioInput, Noise, ReadingSettings, TextInput
from trichord.modalities.registry import own_modalities, specification
from trichord.modalities.text import text_input_of
from trichord.modalities.video import visual_streams_of
from trichord.modality import MODALITIES, in_order, letters_of, pairs_of
from trichord.nn import MCN
from trichord.recipes.identity import BY_MODALITY, BY_PAIR
from trichord.recipes.loss import number_for_pair
from trichord.settings import number_for
from trichord.store.overlap import check_overlap
from trichord.store.rules import outdated
from trichord.store.words import table_name
from trichord.study.validation import split_items
from trichord.tasks.benchmarks import Benchmark, ScoringSettings
from trichord.training.frozen import FrozenSettings
from trichord.training.loop import LoopSettings, num_steps_of
from trichord.training.stage import Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trichord.recipes import Recipe
    from trichord.store import Store


logger = main_process_logger(__name__)


def reading_settings(recipe: Recipe, store: Store) -> ReadingSettings:
    """Return the settings with which the clips of a store are read.

    Raises:
        TrichordError: The store lacks features that the recipe requires.
    """
    return ReadingSettings(
        visual_streams=visual_streams_of(store, recipe.model.visual_3d),
        audio_frames=recipe.data.audio_frames,
        audio_pad_db=recipe.data.audio_pad_db,
        max_words=recipe.data.max_words,
        audio=audio_input_of(store, recipe.model.audio),
        text=text_input_of(store, recipe.model.text),
    )


def build_model(recipe: Recipe, store: Store, seed: int) -> MCN:
    """Build a model with the modalities of a store.

    Its initial weights depend only on the seed and the recipe, and not on the order or the stage. Those of a modality do not depend
    on the other modalities of the store.

    Args:
        recipe: Recipe.
        store: Store, which determines the modalities and the sizes of their features.
        seed: Seed of the initial weights.

    Raises:
        TrichordError: The settings do not fit the features of the store.
    """
    reading = reading_settings(recipe, store)
    if reading.text == "embeddings" and not recipe.model.mask_padding:
        raise TrichordError(
            "model.mask_padding false reproduces the published treatment of padded words; set it to true for text embeddings"
        )
    names = in_order([*own_modalities(), *store.modalities])
    widths = {name: specification(name).width(store, reading) for name in names}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MCN(
            video_dim=widths["video"] or 1,
            embed_dim=recipe.model.embed_dim,
            word_dim=widths["text"] or 1,
            reconstruction_dim=recipe.model.reconstruction_dim or None,
            audio_channels=tuple(recipe.model.audio_channels),
            audio_dim=widths["audio"],
            mask_padding=recipe.model.mask_padding,
            reconstruction_relu=recipe.model.reconstruction_relu,
            feature_dims={m: width for m, width in widths.items() if m not in MODALITIES and width is not None},
            pair_temperature=recipe.loss.temperature if recipe.loss.learn_temperature else None,
        )


def build_loss(recipe: Recipe, stage: Stage, seed: int) -> CombinedLoss:
    """Build the loss of a stage.

    Args:
        recipe: Recipe.
        stage: Stage that lists the terms of the loss.
        seed: Seed of the clustering.
    """
    loss = recipe.loss
    clustered = stage.cluster if loss.cluster_weight > 0 else ()
    memory = None
    if clustered:
        memory = ClusterMemory(
            num_clusters=loss.num_clusters,
            size=loss.cluster_rows,
            refit_every=loss.cluster_refit_every_steps,
            normalize=loss.cluster_cosine,
            empty=loss.cluster_empty,
            wait_until_full=loss.cluster_wait_until_full,
            seed=seed,
            path=None if recipe.training.fast else "plain",
        )
    return CombinedLoss(
        pairs=stage.pairs,
        contrast=pairwise_loss(loss.contrast, loss),
        divide=recipe.training.fast,
        contrast_weight=loss.contrast_weight,
        pair_weights={pair: number_for_pair(loss.pair_weights, pair) for pair in stage.pairs},
        cosine=loss.cosine,
        cluster=clustered,
        cluster_weight=loss.cluster_weight,
        cluster_on=loss.cluster_on,
        cluster_cosine=loss.cluster_cosine,
        cluster_margin=loss.margin,
        cluster_temperature=loss.cluster_temperature,
        memory=memory,
        reconstruct=stage.reconstruct if loss.reconstruction_weight > 0 else (),
        reconstruction_weight=loss.reconstruction_weight,
        reconstruction_detach=loss.reconstruction_detach,
    )


def check_data(recipe: Recipe, store: Store, stages: Sequence[Stage]) -> list[str]:
    """Check that a store has the modalities of all stages.

    Args:
        recipe: Recipe.
        store: Store.
        stages: Stages that will be trained.

    Returns:
        Warnings about videos that were extracted by older rules, and about videos without text, whose captions contain no word of
        the table.

    Raises:
        TrichordError: The store lacks a modality, or a setting names an unknown modality or pair.
    """
    reading = reading_settings(recipe, store)
    _check_names(recipe, in_order([*own_modalities(), *store.modalities]))
    for stage in stages:
        require_modalities(store, stage.modalities, f"order {stage.chain}", reading)
    lines = []
    if old := len(outdated(store)):
        lines.append(
            f"{old:,} of {len(store):,} videos were extracted by older rules for times or captions; run the same "
            "`trichord extract` again to update those whose result differs"
        )
    if reading.text != "words" or store.remote is not None or not any("text" in stage.modalities for stage in stages):
        return lines
    captioned = [i for i in range(len(store)) if store.num_captions(i)]
    unknown = sum(not store.num_known_words(i) for i in captioned)
    if not unknown:
        return lines
    table = table_name(store.word_source)
    return lines + [
        f"{unknown:,} of {len(captioned):,} videos with captions have no word in {table} and count as videos without text; "
        "extract them with word vectors of their language (--words), or with --text st:MODEL"
    ]


def _check_names(recipe: Recipe, modalities: Sequence[str]) -> None:
    """Raise TrichordError if a setting with numbers by name has a number for an unknown modality or pair."""
    pairs = [letters_of(pair) for pair in pairs_of(modalities)]
    for settings, known in ((BY_MODALITY, modalities), (BY_PAIR, pairs)):
        for section, name in settings:
            numbers = getattr(getattr(recipe, section), name)
            for key in numbers if isinstance(numbers, dict) else ():
                if key not in known and "".join(sorted(key.lower())) not in known:
                    raise TrichordError(f"{section}.{name} names '{one_line(key)}'; expected one of {', '.join(known)}")


def trained_items(recipe: Recipe, store: Store) -> np.ndarray:
    """Return the numbers of the videos of a store that a recipe trains on."""
    items, _ = split_items(recipe, store)
    _, begin, end, _ = store.located("caption", items)
    return items[end > begin]


def check_overlaps(recipe: Recipe, store: Store, benchmarks: Sequence[Benchmark]) -> None:
    """Check that benchmarks do not contain videos of the training, possibly under another name.

    Args:
        recipe: Recipe, which selects the videos of the training.
        store: Store.
        benchmarks: Benchmarks that will be scored.

    Raises:
        TrichordError: They do. The message names some of the videos.
    """
    _, validation = split_items(recipe, store)
    trained = trained_items(recipe, store)
    for benchmark in benchmarks:
        scored = store.select(benchmark.collection, benchmark.split)
        if len(np.intersect1d(scored, validation)):
            logger.warning(
                f"benchmark {benchmark.name} contains clips on which training.select best chooses the weights, so its figures are "
                "too high"
            )
        check_overlap(store, trained, scored, f"benchmark {benchmark.name}")


def build_batches(recipe: Recipe, store: Store, stage: Stage, seed: int) -> tuple[TrainingClips, ClipReader]:
    """Return the training clips of a stage and their reader.

    Args:
        recipe: Recipe.
        store: Store.
        stage: Stage that lists the modalities.
        seed: Seed of the batches.

    Raises:
        TrichordError: The store has no video to train on, or lacks a modality.
    """
    data = recipe.data
    items, _ = split_items(recipe, store)
    if len(items) == 0:
        have = ", ".join(f"{c}/{s} ({n})" for (c, s), n in store.collections().items())
        wanted = f"{data.collection or 'any collection'}/{data.train_split}"
        raise TrichordError(
            f"{store.path}: contains no video of {wanted} to train on; it has {have}; set data.train_split"
        )
    reading = reading_settings(recipe, store)
    require_modalities(store, stage.modalities, f"order {stage.chain}", reading)
    source = TrainingClips(
        store,
        items,
        seed=seed,
        videos_per_batch=data.videos_per_batch,
        clips_per_video=data.clips_per_video,
        min_clip_s=data.min_clip_s,
        distinct=data.clip_sampling == "distinct",
        published_words=data.word_order == "published",
    )
    return source, ClipReader(store, stage.modalities, reading)


def loop_settings(recipe: Recipe, stage: Stage) -> LoopSettings:
    """Return the settings of the training loop for a stage."""
    training, later, is_later = recipe.training, recipe.later_stages, bool(stage.earlier)
    return LoopSettings(
        training=replace(training, epochs=later.epochs if is_later and later.epochs else training.epochs),
        thaw=later.thaw if is_later else 0.0,
        reset_clusters_every_epoch=recipe.loss.cluster_reset_every_epoch,
        with_positives=pairwise_losses()[recipe.loss.contrast].needs_positives,
        with_first_half=recipe.loss.cluster_store == "first_half",
        temperature_range=(recipe.loss.least_temperature, recipe.loss.most_temperature),
        noises={m: _noise(recipe, m) for m in stage.train + stage.thawed},
    )


def _noise(recipe: Recipe, modality: str) -> Noise:
    model = recipe.model
    dropout = number_for(model.dropout, modality)
    return Noise(dropout, model.time_mask, model.frequency_mask) if modality == "audio" else Noise(dropout)


def frozen_settings(recipe: Recipe, stage: Stage, source: TrainingClips) -> FrozenSettings:
    """Return the settings of the cache of frozen embeddings for a stage."""
    training = recipe.training
    steps = num_steps_of(loop_settings(recipe, stage).training, source.steps_per_epoch)
    return FrozenSettings(
        enabled=training.frozen_cache == "auto",
        most_bytes=int(training.frozen_cache_gb * 1e9),
        num_draws=steps * source.videos_per_batch * source.clips_per_video,
        precision=training.precision,
    )


def scoring_settings(
    recipe: Recipe, visual_streams: tuple[str, ...], audio: AudioInput = "spectrogram", text: TextInput = "words"
) -> ScoringSettings:
    """Return the settings with which a model is scored.

    Args:
        recipe: Recipe.
        visual_streams: Streams of the store that are concatenated to video features.
        audio: Input of the audio encoder.
        text: Input of the text encoder.
    """
    evaluation, data = recipe.evaluation, recipe.data
    return ScoringSettings(
        visual_streams=visual_streams,
        min_clip_s=data.min_clip_s,
        audio_frames=data.audio_frames,
        max_words=data.max_words,
        audio_pad_db=data.audio_pad_db,
        cosine=recipe.loss.cosine if evaluation.cosine == "auto" else evaluation.cosine == "yes",
        missing=evaluation.missing,
        block=evaluation.block,
        audio=audio,
        text=text,
    )


def scoring_device(recipe: Recipe) -> torch.device:
    """Return the device on which a model is scored. The processes of a launch connect to each other."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return build_accelerator(recipe).device
    return torch.device("cuda" if torch.cuda.is_available() and recipe.training.device == "auto" else "cpu")


def build_accelerator(recipe: Recipe) -> Accelerator:
    """Return a new accelerator: device, precision and processes.

    Each stage uses a new one, which contains no objects of the preceding stage.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    training = recipe.training
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    # Several processes without a GPU communicate with gloo. Without `cpu`, accelerate would let each of them train alone.
    on_cpu = training.device == "cpu" or (several and not torch.cuda.is_available())
    if several:  # this warning about the gradients of 1 x 1 convolutions is irrelevant for the user
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    patience = InitProcessGroupKwargs(timeout=timedelta(seconds=training.process_timeout_s))
    AcceleratorState._reset_state()  # otherwise, all stages of a process use the precision of the first one
    return Accelerator(mixed_precision=training.precision, cpu=on_cpu, kwargs_handlers=[patience])


def training_accelerator(recipe: Recipe) -> Accelerator:
    """Return a new accelerator for training, as `build_accelerator` does.

    Raises:
        TrichordError: The precision is fp16 and the device is a CPU, on which encoders would run in float32.
    """
    accelerator = build_accelerator(recipe)
    if recipe.training.precision == "fp16" and accelerator.device.type == "cpu":
        raise TrichordError(
            "training.precision fp16 needs a GPU; on a CPU, encoders would run in float32; set training.precision to bf16 or no"
        )
    return accelerator
