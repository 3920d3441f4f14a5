"""A run that is interrupted at any point and resumed is bit-equal to an uninterrupted one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from checkpoint_helpers import digest, load, save, small_state, train
from scoring_helpers import retrieval_results
from trichord.errors import TrichordError
from trichord.losses.combined import CombinedLoss
from trichord.recipes import load_recipe
from trichord.study import run
from trichord.study.loading import find_model
from trichord.training import loop
from trichord.training.checkpoint import best_checkpoint, checkpoints_of, finish_checkpoints
from trichord.training.loop import train_stage
from trichord.training.models import load_model
from trichord.training.training_state import TrainingState


class Stopped(Exception):
    pass


def recipe_of(training: dict[str, Any], **groups: Any) -> Any:
    """Return a recipe with epochs of four steps."""
    data = {"videos_per_batch": 3, "clips_per_video": 2, "audio_frames": 100, **groups.pop("data", {})}
    training = {"tensorboard": False, "device": "cpu", "max_steps": 0, "epochs": 2, **training}
    return load_recipe("debug", training=training, data=data, **groups)


@pytest.fixture(autouse=True)
def _any_precision() -> Iterator[None]:
    """Allow several precisions in one process, although accelerate permits only one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


CASES: dict[str, tuple[str, Any, list[int]]] = {
    "every step": ("avt", recipe_of({"checkpoint_every_steps": 1, "epochs": 3, "max_steps": 5}), [1, 2, 5]),
    "between checkpoints": ("avt", recipe_of({"checkpoint_every_steps": 3}), [2, 5, 7]),
    "epochs": ("avt", recipe_of({}, loss={"cluster_reset_every_epoch": True}), [3, 4, 6, 8]),
    "gradient cache": ("avt", recipe_of({"checkpoint_every_steps": 2, "chunk_clips": 5}), [3, 6]),
    "fitted": (
        "avt",
        recipe_of(
            {"checkpoint_every_steps": 2, "epochs": 1, "weight_decay": {"video": 0.1, "text": 0.2}},
            model={"dropout": 0.3, "time_mask": 20, "frequency_mask": 5},
            loss={"contrast": "info_nce", "cosine": True, "temperature": 0.1, "learn_temperature": True},
        ),
        [3],
    ),
    "fused Adam": ("vt", recipe_of({"checkpoint_every_steps": 2, "precision": "bf16"}), [3]),
    "later stage": ("vt>a", recipe_of({"checkpoint_every_steps": 2, "epochs": 1}), [1, 3]),
    "thawed": (
        "at>v",
        recipe_of({"checkpoint_every_steps": 2, "epochs": 1}, later_stages={"thaw": 0.3, "replay": True}),
        [3],
    ),
    "published clustering": (
        "avt",
        recipe_of(
            {"checkpoint_every_steps": 2},
            loss={
                "cluster_wait_until_full": True,
                "cluster_store": "first_half",
                "contrast": "mil_nce",
                "cluster_empty": "zero",
            },
        ),
        [3, 5],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_run_ends_in_the_same_bits(
    name: str, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compares weights, optimizer, schedule, queue, centroids, random states and log.

    The loss draws from all global random states, so that they determine the weights.
    """
    order, recipe, stops = CASES[name]
    plain, states = CombinedLoss.__call__, []

    def noisy(self: CombinedLoss, *arguments: Any) -> dict[str, torch.Tensor]:
        terms = plain(self, *arguments)
        noise = random.gauss(0, 1) + float(np.random.randn()) + float(torch.rand(())) + random.random()
        return {**terms, "loss": terms["loss"] * (1 + 0.1 * noise)}

    def kept(*arguments: Any) -> TrainingState:
        states.append(TrainingState(*arguments))
        return states[-1]

    monkeypatch.setattr(CombinedLoss, "__call__", noisy)
    monkeypatch.setattr(loop, "TrainingState", kept)
    whole = run.train_order(tiny_store, tmp_path / "whole", order, 0, recipe)
    expected = digest(states[-1])
    for stop_at in stops:
        disturb(stop_at)

        def stop(step: int, at: int = stop_at) -> None:
            if step == at:
                raise Stopped

        monkeypatch.setattr(run, "train_stage", partial(train_stage, after_step=stop))
        with pytest.raises(Stopped):
            run.train_order(tiny_store, tmp_path / "cut", order, 0, recipe, resume=True)
    disturb(99)
    monkeypatch.setattr(run, "train_stage", train_stage)
    cut = run.train_order(tiny_store, tmp_path / "cut", order, 0, recipe, resume=True)
    assert digest(states[-1]) == expected
    for one, two in zip(whole.stage_folders, cut.stage_folders, strict=True):
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
        assert lines(one) == lines(two)
        assert not (two / "checkpoints").exists()


def disturb(seed: int) -> None:
    """Change every random state, as in a new process."""
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)


def lines(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_every_bit_is_restored(tmp_path: Path) -> None:
    disturb(3)
    state = small_state()
    train(state, 5)
    before = digest(state)
    save(state, tmp_path / "stage" / "checkpoints", 5)
    train(state, 4)
    later = digest(state)
    fresh = small_state(seed=9)
    disturb(8)
    assert load(fresh, tmp_path / "stage" / "checkpoints") is not None
    assert digest(fresh) == before != later
    train(fresh, 4)
    assert digest(fresh) == later


def test_the_loss_scaler_is_restored(tmp_path: Path) -> None:
    """With fp16, an overflow has halved its scale, and two steps of growth are counted."""
    state, fresh = small_state(), small_state(seed=1)
    state.scaler, fresh.scaler = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (64.0, 2.0))
    for bad in (float("inf"), 1.0, 1.0):
        state.optimizer.zero_grad()
        state.scaler.scale(state.model(torch.randn(7, 6)).square().mean() * bad).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
    save(state, tmp_path / "stage" / "checkpoints", 3)
    assert load(fresh, tmp_path / "stage" / "checkpoints") is not None
    assert fresh.scaler.state_dict() == state.scaler.state_dict()
    assert fresh.scaler.get_scale() == 32 and fresh.scaler.state_dict()["_growth_tracker"] == 2


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    state = small_state()
    train(state, 3)
    path = save(state, tmp_path / "checkpoints", 3, description={"format": 1})
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}


def test_the_policy_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    state, folder = small_state(), tmp_path / "checkpoints"
    for step, loss in enumerate([5.0, 1.0, 4.0, 2.0, 1.0, 3.0, 6.0], start=1):
        save(state, folder, step, mean_loss=loss, keep_last=2, keep_best=2)
    assert [path.name[-1] for path in checkpoints_of(folder)] == ["2", "5", "6", "7"]
    assert best_checkpoint(folder) == folder / "step-00000002", "of equals the earlier"
    finish_checkpoints(folder, keep_best=1)
    assert [path.name[-1] for path in checkpoints_of(folder)] == ["2"]
    finish_checkpoints(folder, keep_best=0)
    assert not folder.exists() and not list(tmp_path.iterdir())


def test_best_checkpoints_outlive_the_stage_and_can_be_scored(tiny_store: Path, tmp_path: Path) -> None:
    recipe = recipe_of({"checkpoint_every_steps": 2, "keep_best": 1})
    summary = run.train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    folder = summary.model_folder / "checkpoints"
    losses = [row["loss"] for row in lines(summary.model_folder)]
    means = [(losses[i] + losses[i + 1]) / 2 for i in range(0, 8, 2)]
    (best,) = checkpoints_of(folder)
    assert best.name == f"step-{2 * means.index(min(means)) + 2:08d}" and find_model(folder) == best
    rows = retrieval_results(folder, tiny_store, ["tiny"], ["t2v"])
    assert rows[0].num_queries > 0 and load_model(best).trained == ("video", "text")
    if best.name == "step-00000008":
        assert (best / "model.safetensors").read_bytes() == (summary.model_folder / "model.safetensors").read_bytes()
    weights = best / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(TrichordError, match="the checkpoint is damaged .model.safetensors was changed.; give another"):
        load_model(best)


def test_leftover_checkpoints_of_a_finished_stage_are_removed(tiny_store: Path, tmp_path: Path) -> None:
    recipe = recipe_of({"epochs": 1})
    summary = run.train_order(tiny_store, tmp_path / "run", "vt", 0, recipe)
    left = summary.model_folder / "checkpoints" / "step-00000004"
    left.mkdir(parents=True)  # a kill between the model and the removal
    run.train_order(tiny_store, tmp_path / "run", "vt", 0, recipe, resume=True)
    assert not left.parent.exists()


def test_settings_that_keep_no_checkpoint_are_refused() -> None:
    with pytest.raises(TrichordError, match="keep_checkpoints is 0; it must be at least 1"):
        recipe_of({"keep_checkpoints": 0})
    with pytest.raises(TrichordError, match="keep_best is -1; it must be at least 0"):
        recipe_of({"keep_best": -1})
