"""Properties that no figure of a single run shows: clipping, names of frozen caches, initial weights of later stages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tiny import write_tiny_store
from trichord.modalities.base import ReadingSettings
from trichord.nn import MCN
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store
from trichord.study import factories, run
from trichord.training import loop
from trichord.training.frozen import frozen_key
from trichord.training.models import load_weights
from trichord.training.stage import Stage


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_store(tmp_path_factory.mktemp("pinned") / "store", num_train=4, num_test=2)


def debug(**sections: dict[str, Any]) -> Recipe:
    training = {"tensorboard": False, "device": "cpu", "max_steps": 3, **sections.pop("training", {})}
    data = {"clips_per_video": 2, "audio_frames": 100, **sections.pop("data", {})}
    return load_recipe("debug", training=training, data=data, **sections)


# --- Gradient clipping


def weights_with_gradients(scale: float) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2,))]
    for parameter in parameters[:2]:  # the last one has no gradient
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return parameters


def norm_of(parameters: list[torch.nn.Parameter]) -> float:
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None))


@pytest.mark.parametrize("limit", [0.0, 0.5, 1e6])
def test_gradients_are_clipped_and_the_norm_before_is_returned(limit: float) -> None:
    parameters, untouched = weights_with_gradients(10.0), weights_with_gradients(10.0)
    norm = loop._grad_norm(Accelerator(cpu=True), parameters, limit)
    before = norm_of(untouched)
    assert norm == pytest.approx(before, rel=1e-5) and before > 10
    assert norm_of(parameters) == pytest.approx(0.5 if limit == 0.5 else before, rel=1e-4)
    factor = norm_of(parameters) / before
    for parameter, other in zip(parameters[:2], untouched[:2], strict=True):
        assert parameter.grad is not None and other.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad * factor, rtol=1e-4, atol=1e-7)


def test_a_gradient_that_is_not_finite_is_unchanged() -> None:
    parameters = weights_with_gradients(1.0)
    assert parameters[0].grad is not None
    parameters[0].grad[0, 0] = math.inf
    assert loop._grad_norm(Accelerator(cpu=True), parameters, 0.5) == math.inf
    assert not any(p.grad is not None and p.grad.isnan().any() for p in parameters)


@pytest.fixture
def norms_at_steps() -> Iterator[list[float]]:
    """Record the norm of the gradients that each optimizer step receives."""
    norms: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        norms.append(norm_of([p for group in optimizer.param_groups for p in group["params"]]))

    handle = register_optimizer_step_pre_hook(note)
    yield norms
    handle.remove()


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_the_optimizer_takes_clipped_gradients(
    limit: float, store_path: Path, tmp_path: Path, norms_at_steps: list[float]
) -> None:
    recipe = debug(training={"clip_grad_norm": limit})
    summary = run.train_order(store_path, tmp_path / "run", "vt", 0, recipe)
    lines = (summary.model_folder / "metrics.jsonl").read_text().splitlines()
    logged_norms = [json.loads(line)["grad_norm"] for line in lines]
    assert len(logged_norms) == len(norms_at_steps) == 3 and min(logged_norms) > 1
    assert norms_at_steps == pytest.approx([limit or norm for norm in logged_norms], rel=1e-4)


# --- Names of frozen caches


def model_of(seed: int = 0, **arguments: Any) -> MCN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = {"video_dim": 6, "embed_dim": 8, "word_dim": 5, "reconstruction_dim": 4, "audio_channels": (4, 4, 4, 4)}
        return MCN(**{**sizes, **arguments})


def cache_name(**changes: Any) -> str:
    """Return the name of a cache of video, with some of the values that it depends on changed."""
    clips = {"items": np.arange(5), "min_clip_s": 10.0, "published_words": False, "fingerprint": "f" * 64}
    reading = {"visual_streams": ("visual_2d",), "audio_frames": 1000, "audio_pad_db": -80.0, "max_words": 20}
    inputs = {"audio": "spectrogram", "text": "words"}
    model_settings = {"model": model_of(), "modality": "video", "kind": "embedding", "precision": "no"}
    every = clips | reading | inputs | model_settings
    assert set(changes) <= set(every)
    every |= changes
    store = SimpleNamespace(fingerprint=every["fingerprint"])
    source = SimpleNamespace(store=store, **{name: every[name] for name in ("items", "min_clip_s", "published_words")})
    reader = SimpleNamespace(settings=ReadingSettings(**{name: every[name] for name in (*reading, *inputs)}))
    name, _ = frozen_key(every["model"], every["modality"], every["kind"], source, reader, every["precision"])  # type: ignore[arg-type]
    return name


OTHER: dict[str, Any] = {
    "items": np.array([0, 1, 2, 3, 5]),
    "min_clip_s": 9.0,
    "published_words": True,
    "fingerprint": "e" * 64,
    "visual_streams": ("visual_2d", "visual_3d"),
    "audio_frames": 999,
    "audio_pad_db": 0.0,
    "max_words": 19,
    "audio": "embeddings",
    "text": "embeddings",
    "modality": "text",
    "kind": "pooled",
    "precision": "bf16",
}


@pytest.mark.parametrize("changed", OTHER)
def test_the_name_of_a_frozen_cache_depends_on(changed: str) -> None:
    assert cache_name(**{changed: OTHER[changed]}) != cache_name()


def test_the_name_of_a_frozen_cache_depends_on_the_encoder_of_its_modality_alone() -> None:
    plain = model_of()
    names = {"plain": cache_name(model=plain), "another seed": cache_name(model=model_of(seed=1))}
    names["padded words count"] = cache_name(model=model_of(mask_padding=False))
    normalized = model_of()
    normalized.normalize = not normalized.normalize
    names["unit length"] = cache_name(model=normalized)
    moved = model_of()
    with torch.no_grad():
        next(moved.encoders["video"].parameters()).view(-1)[0].add_(1e-6)
    names["one weight"] = cache_name(model=moved)
    assert len(set(names.values())) == len(names)
    other_text = model_of()
    with torch.no_grad():
        next(other_text.encoders["text"].parameters()).add_(1.0)
    assert cache_name(model=other_text) == names["plain"] == cache_name()


# --- Initial weights of later stages


def parts_of(model: MCN, modality: str) -> dict[str, torch.Tensor]:
    return {
        f"{name} {key}": tensor
        for name, part in model.parts(modality).items()
        if part is not None
        for key, tensor in part.state_dict().items()
    }


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert set(first) == set(second) and first
    return all(torch.equal(first[name], second[name]) for name in first)


def test_seeds_that_share_a_first_stage_begin_the_later_one_with_weights_of_their_own(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is replaced by scaling the trained weights; the initial weights of each stage are recorded."""
    begun: dict[str, MCN] = {}

    def scale(model: MCN, stage: Stage, *arguments: object, folder: Path, **options: object) -> int:
        begun[folder.name] = deepcopy(model)
        with torch.no_grad():
            for parameter in (
                p for m in stage.train for part in model.parts(m).values() if part for p in part.parameters()
            ):
                parameter.mul_(1.5)
        return 0

    recipe, store = debug(training={"frozen_cache": "off"}, evaluation={"directions": ["t2v"]}), Store(store_path)
    monkeypatch.setattr(run, "train_stage", scale)
    monkeypatch.setattr(run, "write_table", lambda table, out: None)  # draws a figure
    run.run_study(store_path, tmp_path / "study", ["av>t"], [0, 1], recipe, first_stage_seed=7)
    (first,) = [name for name in begun if name.startswith("av.seed7.")]
    later = {seed: name for seed in (0, 1) for name in begun if name.startswith(f"av-t.seed{seed}.")}
    assert len(begun) == 3 and len(later) == 2
    trained = factories.build_model(recipe, store, 7)
    load_weights(trained, tmp_path / "study" / "stages" / first / "model.safetensors")
    assert not equal(parts_of(trained, "video"), parts_of(begun[first], "video"))
    for seed, name in later.items():
        assert equal(parts_of(begun[name], "text"), parts_of(factories.build_model(recipe, store, seed), "text"))
        for modality in ("video", "audio"):
            assert equal(parts_of(begun[name], modality), parts_of(trained, modality)), modality
    assert not equal(parts_of(begun[later[0]], "text"), parts_of(begun[later[1]], "text"))


# --- Resuming within an epoch


class Stopped(Exception):
    """Raised to stop a run right after its first checkpoint."""


def test_centroids_are_reset_only_at_the_start_of_an_epoch(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = debug(
        data={"videos_per_batch": 2, "clips_per_video": 2, "min_clip_s": 1.0},
        loss={"cluster_reset_every_epoch": True, "num_clusters": 2, "cluster_rows": 16, "cluster_refit_every_steps": 9},
        training={"max_steps": 4, "checkpoint_every_steps": 1},
    )
    whole = run.train_order(store_path, tmp_path / "whole", "vt", 0, recipe)

    def save_and_stop(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        raise Stopped

    save = loop.save_checkpoint
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "save_checkpoint", save_and_stop)
        run.train_order(store_path, tmp_path / "resumed", "vt", 0, recipe)
    resumed = run.train_order(store_path, tmp_path / "resumed", "vt", 0, recipe, resume=True)
    assert (whole.num_steps, resumed.num_steps) == (4, 3)
    for name in ("model.safetensors", "centroids.safetensors"):
        first, second = (load_file(summary.model_folder / name) for summary in (whole, resumed))
        assert equal(first, second), name


# --- From step to step


def test_gradients_do_not_add_up_from_step_to_step(
    store_path: Path, tmp_path: Path, norms_at_steps: list[float]
) -> None:
    """Every batch holds all clips and the weights hardly change, so every step has the same gradient."""
    recipe = debug(
        data={"videos_per_batch": 4, "clips_per_video": 8, "min_clip_s": 1.0},
        loss={"cluster_weight": 0.0},
        training={"learning_rate": 1e-9, "max_steps": 3},
    )
    run.train_order(store_path, tmp_path / "run", "vt", 0, recipe)
    assert len(norms_at_steps) == 3
    assert norms_at_steps == pytest.approx([norms_at_steps[0]] * 3, rel=1e-3)


@pytest.mark.parametrize("chunk_clips", [0, 5])
def test_chunks_train_thawed_modalities(chunk_clips: int, store_path: Path, tmp_path: Path) -> None:
    recipe = debug(training={"chunk_clips": chunk_clips, "max_steps": 1}, later_stages={"thaw": 0.5})
    summary = run.train_order(store_path, tmp_path / "run", "vt>a", 0, recipe)
    first, last = (factories.build_model(recipe, Store(store_path), 0) for _ in range(2))
    for model, folder in zip((first, last), summary.stage_folders, strict=True):
        load_weights(model, folder / "model.safetensors")
    for modality in ("video", "text", "audio"):
        assert not equal(parts_of(first, modality), parts_of(last, modality)), modality


def test_a_checkpoint_has_the_mean_loss_since_the_one_before(store_path: Path, tmp_path: Path) -> None:
    recipe = debug(training={"max_steps": 4, "checkpoint_every_steps": 2, "keep_best": 2})
    summary = run.train_order(store_path, tmp_path / "run", "vt", 0, recipe)
    lines = (summary.model_folder / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    paths = sorted((summary.model_folder / "checkpoints").glob("step-*/checkpoint.json"))
    mean_losses = [json.loads(path.read_text())["mean_loss"] for path in paths]
    assert mean_losses == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2])
    assert mean_losses[0] != pytest.approx(mean_losses[1])
