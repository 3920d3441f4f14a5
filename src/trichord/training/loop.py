"""The training loop of a stage: draw a batch, encode it, compute the loss, update the weights.

A loss or gradient that is not finite stops all processes before the weights are updated (`training.guard`). Frozen modules are
compared bit by bit with copies from before the stage, which costs the memory of one copy of their weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trichord.data.batches import TrainingClips, batches
from trichord.data.reader import ClipReader
from trichord.layers.batch_norm import set_over_processes
from trichord.losses.combined import CombinedLoss
from trichord.modalities.base import Noise
from trichord.nn import MCN, DAVEnet, Encoded
from trichord.settings import TrainingSettings
from trichord.training.agreement import Agreement
from trichord.training.checkpoint import Position, load_newest, save_checkpoint
from trichord.training.gradient_cache import GradientCache
from trichord.training.guard import Guard
from trichord.training.log import StageLog
from trichord.training.memory import keep_freed_memory
from trichord.training.noise import InputNoise
from trichord.training.optimizer import build_optimizer
from trichord.training.pairs import PairTraining
from trichord.training.random_states import seed_random_states
from trichord.training.schedule import rate_factor, used_warmup_steps
from trichord.training.selection import Selection
from trichord.training.sharding import is_sharded, norm_and_clip, shard_trained
from trichord.training.stage import Stage, frozen_guard, prepare_model
from trichord.training.training_state import TrainingState

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the loop.

    Attributes:
        training: Section `training` of the recipe, with the number of epochs of this stage.
        thaw: Factor of the learning rate for thawed modalities.
        reset_clusters_every_epoch: Whether to draw new centroids at the start of each epoch.
        with_positives: Whether batches list the clips that are positives of each other.
        with_first_half: Whether batches mark the clips from the first half of each video.
        noises: Random changes of the inputs of trained modalities.
        temperature_range: Smallest and largest learned temperature.
    """

    training: TrainingSettings
    thaw: float
    reset_clusters_every_epoch: bool
    with_positives: bool
    with_first_half: bool
    noises: Mapping[str, Noise] = field(default_factory=dict)
    temperature_range: tuple[float, float] = (0.01, 0.3)


def num_steps_of(training: TrainingSettings, steps_per_epoch: int) -> int:
    """Return the number of steps of a stage."""
    steps = training.epochs * steps_per_epoch
    return min(steps, training.max_steps) if training.max_steps else steps


def train_stage(
    model: MCN,
    stage: Stage,
    loss: CombinedLoss,
    source: TrainingClips,
    reader: ClipReader,
    settings: LoopSettings,
    *,
    accelerator: Accelerator,
    folder: Path,
    title: str,
    resume: bool = True,
    described: Mapping[str, Any] | None = None,
    model_json: Mapping[str, Any] | None = None,
    selection: Selection | None = None,
    after_step: Callable[[int], None] | None = None,
) -> int:
    """Train a stage.

    Args:
        model: The network, which is trained in place.
        stage: Trained and frozen modalities, and terms of the loss.
        loss: The loss.
        source: Training clips.
        reader: Reader of the clips.
        settings: Settings of the loop.
        accelerator: Device, precision and processes.
        folder: Folder of the stage, for metrics and checkpoints.
        title: Name of the stage in progress lines.
        resume: Whether to continue from the newest checkpoint.
        described: Settings and seed, which are saved if a step diverges.
        model_json: Description of the model, which is saved in checkpoints.
        selection: Selection of the weights of the best epoch. None keeps the last ones.
        after_step: Function that is called with the number of steps after each step.

    Returns:
        The number of steps of this call.

    Raises:
        Diverged: The loss or the gradient is not finite. The message names the step and the terms.
    """
    training = settings.training
    heads = bool(loss.reconstruct)
    prepare_model(model, stage, heads=heads)
    sharded = training.shard == "full" and accelerator.num_processes > 1
    if sharded:
        shard_trained(model.to(accelerator.device), stage, heads=heads)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for module in model.modules():
        if isinstance(module, DAVEnet):
            module.fast = training.fast
    set_over_processes(model, training.batch_norm == "global")
    if accelerator.device.type == "cpu" and training.fast:
        keep_freed_memory()
    # Fused Adam needs a single pass over the weights, but rounds differently. It is not used for float32.
    fused = True if training.fast and accelerator.mixed_precision != "no" else None
    optimizer: Any = build_optimizer(model, stage, training, heads=heads, thaw=settings.thaw, fused=fused)
    num_steps = num_steps_of(training, source.steps_per_epoch)
    warmup = used_warmup_steps(training.warmup_steps, num_steps)
    factor = rate_factor(training.schedule, warmup_steps=warmup, num_steps=num_steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    pairs = PairTraining(model, stage, settings.temperature_range)
    # A sharded model is not wrapped, since its modules exchange the weights themselves.
    network, optimizer = (model, accelerator.prepare(optimizer)) if sharded else accelerator.prepare(model, optimizer)
    chunks = None
    if training.chunk_clips:
        trained = stage.train + stage.thawed
        chunks = GradientCache(network, accelerator, trained, chunk=training.chunk_clips, norm=training.chunk_norm)
    word_vectors = torch.from_numpy(reader.store.word_vectors).to(accelerator.device)
    checkpoints = folder / "checkpoints"
    seed_random_states(f"{stage.chain} {source.seed} {accelerator.process_index}")
    noise = InputNoise(
        settings.noises,
        f"{stage.chain} {source.seed}",
        process=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    state = TrainingState(model, optimizer, scheduler, loss.memory, accelerator.scaler, selection)
    position = (load_newest(accelerator, state, checkpoints) if resume else None) or Position()
    agreement = Agreement(model, loss.memory, stage)
    agreement.check(position)
    done = 0
    guard = Guard(accelerator, model, stage, loss, reader, folder, described or {})
    log = StageLog(
        folder,
        title=title,
        num_steps=num_steps,
        first_step=position.step,
        log_every_steps=training.log_every_steps,
        tensorboard=training.tensorboard,
        enabled=accelerator.is_main_process,
    )
    drawn = batches(
        source,
        reader,
        epochs=range(position.epoch, training.epochs),
        first_step=position.epoch_step,
        num_batches=max(0, num_steps - position.step),
        process=accelerator.process_index,
        num_processes=accelerator.num_processes,
        with_positives=settings.with_positives,
        with_first_half=settings.with_first_half,
        pin=accelerator.device.type == "cuda",
        timeout_s=training.loader_timeout_s,
    )
    since: list[float] = []  # losses since the last checkpoint

    def save() -> None:
        log.sync()
        save_checkpoint(
            accelerator, state, checkpoints, position, mean_loss=sum(since) / max(1, len(since)),
            keep_last=training.keep_checkpoints, keep_best=training.keep_best, description=model_json,
        )  # fmt: skip
        since.clear()

    with frozen_guard(model, stage), log, closing(drawn):
        for epoch in range(position.epoch, training.epochs):
            if loss.memory is not None and settings.reset_clusters_every_epoch and position.epoch_step == 0:
                loss.memory.reset_centroids()
            for batch in islice(drawn, source.steps_per_epoch - position.epoch_step):
                batch = noise.applied(batch.to(accelerator.device), position.step)
                inputs = batch.model_inputs(word_vectors)
                guard.begin(position, batch, inputs)
                cached = chunks if batch.step_clips > training.chunk_clips * accelerator.num_processes else None
                outputs = cached.encode(inputs) if cached else _encode(network, inputs, accelerator)
                outputs = outputs | {m: outputs[m]._replace(target=t) for m, t in batch.targets.items()}
                outputs = outputs | {m: Encoded(e, e, None) for m, e in batch.embeddings.items()}
                terms = loss(outputs, batch.valid, batch.positives, batch.first_half, model.temperatures(stage.pairs))
                guard.check_loss(terms)
                optimizer.zero_grad(set_to_none=True)
                accelerator.backward(terms["loss"])
                if cached:
                    cached.backward(inputs)
                pairs.average_gradients()
                norm = _grad_norm(accelerator, parameters, training.clip_grad_norm)
                guard.check_gradient(norm)
                rate = optimizer.param_groups[0]["lr"]
                optimizer.step()
                pairs.clamp()
                scheduler.step()
                values = {name: float(term.detach()) for name, term in terms.items()}
                values |= {"grad_norm": norm, "learning_rate": rate, **pairs.values()}
                log.step(position.step, epoch, values, num_clips=batch.step_clips)
                since.append(values["loss"])
                done += 1
                position = Position(position.step + 1, epoch, position.epoch_step + 1)
                agreement.check_after_fit(position)
                if training.checkpoint_every_steps and position.step % training.checkpoint_every_steps == 0:
                    save()
                if after_step is not None:
                    after_step(position.step)
            agreement.check(position)
            if selection is not None:
                selection.look()
            if position.step >= num_steps:
                break
            position = Position(position.step, epoch + 1, 0)
            if not training.checkpoint_every_steps:
                save()
        if selection is not None:
            selection.restore()
    model.eval()
    return done


def _encode(network: Any, inputs: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Encoded]:
    with accelerator.autocast():
        outputs: dict[str, Encoded] = network(**inputs)
    return outputs


def _grad_norm(accelerator: Accelerator, parameters: list[torch.nn.Parameter], limit: float) -> float:
    """Return the global gradient norm, and scale the gradients down to `limit` if it is above 0 and the norm is finite."""
    accelerator.unscale_gradients()
    grads = [p.grad for p in parameters if p.grad is not None]
    if any(is_sharded(g) for g in grads):
        return norm_and_clip(parameters, limit)
    norm = float(torch.nn.utils.get_total_norm(grads)) if grads else 0.0
    if limit > 0 and math.isfinite(norm):
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, torch.tensor(norm))
    return norm
