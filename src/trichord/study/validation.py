"""The validation clips of a study, on which the weights of a stage are selected.

They are the clips of a validation split. In a store without one, a part of the training videos is set aside.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trichord.data.batches import evaluation_clips
from trichord.errors import TrichordError
from trichord.losses.registry import pairwise_losses
from trichord.store.overlap import check_overlap
from trichord.tasks.benchmarks import ScoringSettings, embed_clips
from trichord.training.selection import mean_log_likelihood

if TYPE_CHECKING:
    from trichord.nn import MCN
    from trichord.recipes import Recipe
    from trichord.store import Store
    from trichord.training.stage import Stage

_SHARE, _LEAST_CLIPS = 6, 64  # a sixth of the training videos, with at least 64 clips


def split_items(recipe: Recipe, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the training videos and of the validation videos of a store.

    Validation videos are needed only if `training.select` is `best`. They are those of the split `data.val_split`, or of the split
    `val` if the store has it. Otherwise, a sixth of the training videos and at least 64 clips are set aside, by a hash of the id.

    Args:
        recipe: Recipe.
        store: Store.

    Returns:
        Training videos and validation videos. The latter are empty unless they are needed.

    Raises:
        TrichordError: The validation split does not exist, has the content of training videos, or the store has too few videos.
    """
    data = recipe.data
    items = store.select(data.collection or None, data.train_split)
    if recipe.training.select != "best":
        return items, items[:0]
    validation = store.select(data.collection or None, data.val_split or "val")
    if len(validation):
        advice = "name another split with data.val_split, or train on a collection without them"
        check_overlap(store, items, validation, f"the validation split {data.val_split or 'val'}", advice)
        return items, validation
    if data.val_split:
        raise TrichordError(
            f"{store.path}: contains no videos of the split {data.val_split}; change data.val_split, or leave it empty to set "
            "aside a part of the training videos"
        )
    set_aside = _set_aside(store, items, data.min_clip_s)
    return np.setdiff1d(items, set_aside), set_aside


def _set_aside(store: Store, items: np.ndarray, min_clip_s: float) -> np.ndarray:
    captioned = [item for item in items.tolist() if store.num_captions(item)]
    hashed = sorted(captioned, key=lambda item: (zlib.crc32(store.video_id(item).encode()), store.video_id(item)))
    num = -(-len(hashed) // _SHARE)
    # Every video has at least one clip, so the clips of a few videos are counted at most.
    while (
        num < min(len(hashed), _LEAST_CLIPS)
        and len(evaluation_clips(store, np.array(hashed[:num]), min_clip_s)) < _LEAST_CLIPS
    ):
        num += 1
    if 2 * num > len(hashed):
        raise TrichordError(
            f"{store.path}: too few training videos to set aside {_LEAST_CLIPS} clips for validation ({len(hashed):,} videos with "
            "captions); set training.select to last, or add videos"
        )
    return np.array(sorted(hashed[:num]))


def validation_score(
    recipe: Recipe, store: Store, stage: Stage, model: MCN, settings: ScoringSettings
) -> Callable[[], float]:
    """Return a function that scores a network on the validation clips: the mean log-likelihood over the pairs of a stage.

    Frozen modalities are embedded once.

    Args:
        recipe: Recipe.
        store: Store.
        stage: Stage that lists the pairs and the frozen modalities.
        model: Network that is trained.
        settings: Settings by which clips are read and scored.
    """
    _, items = split_items(recipe, store)
    clips = evaluation_clips(store, items, recipe.data.min_clip_s)
    trained = tuple(m for m in stage.modalities if m not in stage.frozen)
    frozen: dict[str, tuple[Tensor, Tensor]] = {}

    def embedded(modalities: tuple[str, ...]) -> dict[str, tuple[Tensor, Tensor]]:
        if not modalities:
            return {}
        embeddings, valid = embed_clips(model, store, clips, modalities, recipe.data.audio_frames, settings)
        return {m: (embeddings[m], torch.from_numpy(valid[m])) for m in modalities}

    def score() -> float:
        if not frozen:
            frozen.update(embedded(stage.frozen))
        both = frozen | embedded(trained)
        has_temperature = hasattr(pairwise_losses()[recipe.loss.contrast], "temperature")
        fixed = recipe.loss.temperature if has_temperature else 1.0
        learned = {pair: float(value.detach()) for pair, value in model.temperatures(stage.pairs).items()}
        return mean_log_likelihood(
            {m: rows for m, (rows, _) in both.items()},
            {m: mask for m, (_, mask) in both.items()},
            stage.pairs,
            {pair: learned.get(pair, fixed) for pair in stage.pairs},
            cosine=recipe.loss.cosine,
        )

    return score
