"""The cache of frozen embeddings: a single forward pass of the frozen encoders over every clip that a stage can draw.

A frozen encoder is in eval mode, so its output for a clip depends on this clip alone, up to the rounding of float32 sums (the
order of summation in a matrix product may depend on the batch size). The output is therefore the same in every epoch, and in
every order and seed that shares the encoder. `data.frozen` stores it in the store. All processes of a launch share the work,
also with any other process that needs the same embeddings. With `training.frozen_cache off`, frozen encoders run at every step.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trichord.data.batches import TrainingClips
from trichord.data.frozen import FrozenRows, NotWritable, frozen_folder, frozen_rows, why_not_writable
from trichord.data.frozen_parts import Encoder, FrozenPass, Kind
from trichord.data.listing import list_clips
from trichord.data.reader import Batch, ClipReader, Clips
from trichord.logs import main_process_logger
from trichord.modalities.registry import specification
from trichord.nn import MCN
from trichord.parallel import on_main
from trichord.training.stage import Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = main_process_logger(__name__)

FORMAT = 1  # to be raised when the values that belong to a key change


@dataclass(frozen=True)
class FrozenSettings:
    """Settings of the cache.

    Attributes:
        enabled: Whether embeddings are cached.
        most_bytes: Largest size of the cache of a modality, in bytes.
        num_draws: Number of clips that the stage draws, with repetitions. A cache is made only if this exceeds the number of
            clips.
        precision: Precision of the forward pass, which is that of the stage.
    """

    enabled: bool
    most_bytes: int
    num_draws: int
    precision: str


def frozen_inputs(
    model: MCN,
    stage: Stage,
    source: TrainingClips,
    reader: ClipReader,
    settings: FrozenSettings,
    accelerator: Accelerator,
) -> dict[str, FrozenRows]:
    """Return the output of the frozen encoders of a stage for every clip, and compute what is missing in the cache.

    If the store is read-only, modalities that are missing in the cache are left out with a warning. They are then encoded at
    every step.

    Args:
        model: Network with the frozen weights.
        stage: Stage that lists the frozen modalities.
        source: Training clips of the stage.
        reader: Reader of the clips with the settings of the stage.
        settings: Settings of the cache.
        accelerator: Device, precision and processes.

    Returns:
        The cached rows by modality. The dictionary is empty if the cache is disabled or would not save time.

    Raises:
        TrichordError: The disk is full or fails.
    """
    if not settings.enabled:
        return {}
    passes = frozen_passes(model, stage, source, reader, settings, accelerator)
    folder = frozen_folder(source.store)
    kept, why = on_main(partial(_obtainable, [work for work, _ in passes], folder))
    caches: dict[str, FrozenRows] = {}
    for work, encoder in passes:
        if work.folder.name not in kept:
            logger.warning(
                f"frozen {work.modality}: {folder} cannot be written ({why}), so it is encoded at every step"
            )
            continue
        try:
            caches[work.modality] = frozen_rows(
                work,
                encoder,
                process=accelerator.process_index,
                num_processes=accelerator.num_processes,
            )
        except NotWritable as error:  # because of permissions inside the folder
            if accelerator.num_processes > 1:  # other processes may have the permission
                raise
            logger.warning(f"frozen {work.modality}: {error}, so it is encoded at every step")
    return caches


def _obtainable(passes: list[FrozenPass], folder: Path) -> tuple[list[str], str]:
    """Return the names of the passes that are finished or can be made, and why others cannot be made."""
    why = "" if all(work.finished for work in passes) else why_not_writable(folder)
    return [work.folder.name for work in passes if work.finished or not why], why


def frozen_passes(
    model: MCN,
    stage: Stage,
    source: TrainingClips,
    reader: ClipReader,
    settings: FrozenSettings,
    accelerator: Accelerator,
) -> list[tuple[FrozenPass, Encoder]]:
    """Return the forward passes that a stage needs, finished or not, and the encoder of each.

    `frozen_inputs` computes and reads them.

    Args:
        model: Network with the frozen weights.
        stage: Stage that lists the frozen modalities.
        source: Training clips of the stage.
        reader: Reader of the clips with the settings of the stage.
        settings: Settings of the cache.
        accelerator: Device, precision and processes.
    """
    if not stage.frozen:
        return []
    listing = list_clips(source)
    num_clips = listing.num_clips
    if num_clips >= settings.num_draws:
        return []
    passes = []
    for modality in stage.frozen:
        kind, width = _kind(model, modality, num_clips, settings.most_bytes)
        if kind is None:
            logger.info(
                f"frozen {modality}: {num_clips:,} clips need more than training.frozen_cache_gb, so it is encoded at every step"
            )
            continue
        key, described = frozen_key(model, modality, kind, source, reader, settings.precision)
        work = FrozenPass(frozen_folder(source.store) / key, source, listing, modality, kind, width, described)
        passes.append((work, _encoder(model, modality, kind, reader, accelerator)))
    return passes


def _kind(model: MCN, modality: str, num_clips: int, most_bytes: int) -> tuple[Kind | None, int]:
    """Return the kind of values to cache and their size, or None if they need too much space."""
    embed_dim = int(model.arguments["embed_dim"])
    if 4 * embed_dim * num_clips <= most_bytes:
        return "embedding", embed_dim
    pooling = specification(modality).pooling
    pooled_dim = None if pooling is None else pooling.dim(model.arguments)
    if pooled_dim is not None and 4 * pooled_dim * num_clips <= most_bytes:
        return "pooled", pooled_dim
    return None, 0


def frozen_key(
    model: MCN, modality: str, kind: Kind, source: TrainingClips, reader: ClipReader, precision: str
) -> tuple[str, dict[str, Any]]:
    """Return the name of the output of an encoder in the cache, and everything that the output depends on.

    Args:
        model: Network with the frozen weights.
        modality: Modality of the encoder.
        kind: Kind of the cached values.
        source: Training clips of the stage.
        reader: Reader of the clips with the settings of the stage.
        precision: Precision of the forward pass.

    Returns:
        The name, which contains a digest, and the described inputs: weights, data, and the way clips are cut and read.
    """
    encoder = model.parts(modality)["encoder"]
    assert encoder is not None
    weights = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    described = {
        "format": FORMAT,
        "weights": weights.hexdigest(),
        "normalize": model.normalize,
        "mask_padding": model.arguments["mask_padding"],
        "store": source.store.fingerprint,
        "videos": hashlib.sha256(source.items.tobytes()).hexdigest(),
        "min_clip_s": source.min_clip_s,
        "published_words": source.published_words,
        "precision": precision,
        **asdict(reader.settings),  # a new field changes the name of every cache
    }
    text = json.dumps({"modality": modality, "kind": kind, **described}, sort_keys=True)
    return f"{modality}-{hashlib.sha256(text.encode()).hexdigest()[:16]}", described


def _encoder(model: MCN, modality: str, kind: Kind, reader: ClipReader, accelerator: Accelerator) -> Encoder:
    model.to(accelerator.device).eval()
    word_vectors = torch.from_numpy(reader.store.word_vectors).to(accelerator.device)
    alone = ClipReader(reader.store, (modality,), reader.settings)

    def load(clips: Clips) -> Batch:
        return alone.read(clips, pin=accelerator.device.type == "cuda")

    pooling = specification(modality).pooling

    @torch.no_grad()
    def encode(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        batch = batch.to(accelerator.device)
        inputs = batch.model_inputs(word_vectors)
        with accelerator.autocast():
            if kind == "pooled" and pooling is not None:
                values = pooling.compute(model.encoders[modality], inputs)
            else:
                values = model.embed(**inputs)[modality]
        return values.float().cpu().numpy(), batch.valid[modality].cpu().numpy()

    return Encoder(load, encode)
