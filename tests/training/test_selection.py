"""Selection of the weights of the best epoch: the score, the weights that are kept, checkpoints, and validation clips."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from split_training import run_processes
from tiny import WORDS, tiny_item, word_vectors, write_tiny_store
from trichord.errors import TrichordError
from trichord.losses import info_nce
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store, StoreWriter
from trichord.study import factories, run
from trichord.study.run import train_order
from trichord.study.validation import split_items
from trichord.training import selection
from trichord.training.loop import train_stage
from trichord.training.selection import Selection, log_likelihood, mean_log_likelihood

assert WORDS


def recipe_of(data: dict[str, Any] | None = None, **training: Any) -> Recipe:
    settings = {"tensorboard": False, "device": "cpu", "max_steps": 0, "epochs": 3, "select": "best", **training}
    data = {"videos_per_batch": 3, "clips_per_video": 2, "audio_frames": 100, **(data or {})}
    loss = {"contrast": "info_nce", "cosine": True, "temperature": 0.1, "learn_temperature": True}
    return load_recipe("debug", training=settings, data=data, loss=loss)


@pytest.fixture(scope="module")
def with_val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("val") / "store"
    with StoreWriter(path, word_vectors()) as writer:
        for index in range(12):
            writer.add(tiny_item(index, "train" if index < 6 else "val" if index < 9 else "test"))
    return path


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans(), st.integers(1, 5))
def test_the_score_is_the_negative_of_info_nce(seed: int, num: int, cosine: bool, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(num, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    valid = torch.rand(num, generator=generator) < 0.7
    rows = [torch.nn.functional.normalize(x, dim=1) if cosine else x for x in (first, second)]
    expected = -float(info_nce(rows[0] @ rows[1].T, 0.3, valid))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_BLOCK", block)
        assert log_likelihood(first, second, valid, temperature=0.3, cosine=cosine) == pytest.approx(expected, abs=1e-9)


def test_the_score_of_a_stage_is_the_mean_over_its_pairs() -> None:
    rows = {
        m: torch.randn(5, 3, generator=torch.Generator().manual_seed(i))
        for i, m in enumerate(("video", "audio", "text"))
    }
    valid = {m: torch.tensor([m != "audio", True, True, True, True]) for m in rows}
    pairs, temperatures = [("video", "text"), ("audio", "text")], {("video", "text"): 0.1, ("audio", "text"): 0.5}
    expected = [
        log_likelihood(rows[a], rows["text"], valid[a] & valid["text"], temperature=t, cosine=True)
        for (a, _), t in temperatures.items()
    ]
    assert mean_log_likelihood(rows, valid, pairs, temperatures, cosine=True) == pytest.approx(sum(expected) / 2)


def scores_of(monkeypatch: pytest.MonkeyPatch, given_scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Replace the scores of the epochs by given ones; return the trained weights at each look."""
    plain, weights = Selection.look, []

    def look(self: Selection) -> None:
        score = given_scores[len(self.scores)]
        self.score = lambda: score
        weights.append({name: self.model.state_dict()[name].clone() for name in self.names})
        plain(self)

    monkeypatch.setattr(Selection, "look", look)
    return weights


@pytest.mark.parametrize(
    ("given_scores", "best"), [([-3, -1, -2], 1), ([-1, -2, -3], 0), ([-3, -2, -1], 2), ([-2, -1, -1], 1)]
)
def test_the_weights_of_the_best_epoch_are_the_result(
    given_scores: list[float], best: int, with_val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = scores_of(monkeypatch, given_scores)
    (folder,) = train_order(with_val, tmp_path / "run", "vt", 0, recipe_of()).stage_folders
    saved = load_file(folder / "model.safetensors")
    assert len(weights) == 3 and all(torch.equal(saved[name], tensor) for name, tensor in weights[best].items())
    assert "pairs.video-text.log_temperature" in weights[0]
    described = json.loads((folder / "model.json").read_text())["selection"]
    assert described == {"epoch": best + 1, "log_likelihood": given_scores}


def test_frozen_weights_are_no_part_of_it_and_the_stage_goes_on_in_train_mode(
    with_val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, modes = Selection.look, []

    def look(self: Selection) -> None:
        plain(self)
        modes.append({name: module.training for name, module in self.model.named_modules() if "encoders." in name})

    monkeypatch.setattr(Selection, "look", look)
    folders = train_order(with_val, tmp_path / "run", "at>v", 0, recipe_of(epochs=2)).stage_folders
    first, last = (load_file(folder / "model.safetensors") for folder in folders)
    frozen = [name for name in first if name.startswith(("encoders.audio", "encoders.text"))]
    assert frozen and all(torch.equal(first[name], last[name]) for name in frozen)
    assert all(trains == (not name.startswith("encoders.video")) for name, trains in modes[0].items())
    assert all(trains == name.startswith("encoders.video") for name, trains in modes[2].items())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_at", [3, 4, 5])
def test_a_resumed_stage_selects_the_same_weights(
    stop_at: int, with_val: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs have two steps: the run stops within an epoch, and before and after a look at its end."""
    recipe = recipe_of(checkpoint_every_steps=1)
    plain = train_order(with_val, tmp_path / "whole", "vt", 0, recipe)

    def stop(step: int) -> None:
        if step == stop_at:
            raise Stopped

    monkeypatch.setattr(run, "train_stage", partial(train_stage, after_step=stop))
    with pytest.raises(Stopped):
        train_order(with_val, tmp_path / "cut", "vt", 0, recipe)
    monkeypatch.setattr(run, "train_stage", train_stage)
    resumed = train_order(with_val, tmp_path / "cut", "vt", 0, recipe, resume=True)
    for one, two in zip(plain.stage_folders, resumed.stage_folders, strict=True):
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
        whole, cut = (json.loads((folder / "model.json").read_text())["selection"] for folder in (one, two))
        assert whole == cut and len(whole["log_likelihood"]) == 3


def work(rank: int, store: str, folder: str) -> None:
    train_order(Path(store), Path(folder) / "run", "vt", 0, recipe_of())


def test_two_processes_select_as_one(with_val: Path, tmp_path: Path) -> None:
    run_processes(2, work, tmp_path, str(with_val), str(tmp_path))
    (alone,) = train_order(with_val, tmp_path / "alone", "vt", 0, recipe_of()).stage_folders
    (together,) = (tmp_path / "run" / "stages").iterdir()
    one, two = (json.loads((folder / "model.json").read_text())["selection"] for folder in (alone, together))
    assert one["epoch"] == two["epoch"] and two["log_likelihood"] == pytest.approx(one["log_likelihood"], rel=1e-3)
    for name, tensor in load_file(alone / "model.safetensors").items():
        torch.testing.assert_close(load_file(together / "model.safetensors")[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_validation_split_is_used_and_nothing_is_set_aside(with_val: Path, tmp_path: Path) -> None:
    store = Store(with_val)
    train, val = split_items(recipe_of(), store)
    assert [store.video_id(i) for i in val.tolist()] == ["video006", "video007", "video008"] and len(train) == 6
    assert len(split_items(recipe_of(select="last"), store)[1]) == 0
    train, val = split_items(recipe_of({"val_split": "test"}), store)
    assert [store.video_id(i) for i in val.tolist()] == ["video009", "video010", "video011"]
    with pytest.raises(TrichordError, match="contains no videos of the split dev; change data.val_split"):
        split_items(recipe_of({"val_split": "dev"}), store)


def test_a_part_of_the_training_videos_is_set_aside(tmp_path: Path) -> None:
    store = Store(write_tiny_store(tmp_path / "store", num_train=40, num_test=4))
    recipe = recipe_of()
    train, val = split_items(recipe, store)
    assert len(val) >= 7 and not set(train) & set(val) and len(train) + len(val) == 40
    num_clips = (
        len(factories.evaluation_clips(store, val, recipe.data.min_clip_s))
        if hasattr(factories, "evaluation_clips")
        else 64
    )
    assert num_clips >= 64
    source, _ = factories.build_batches(
        recipe, store, run.plan_order(run.Order.parse("vt"), 0, recipe, "0" * 64).stages[0].stage, 0
    )
    drawn = np.unique(np.concatenate([source.draw(epoch, 0).item for epoch in range(20)]))
    assert not set(drawn) & set(val), "validation videos are not trained on"
    with pytest.raises(TrichordError, match="too few training videos to set aside 64 clips"):
        split_items(recipe, Store(write_tiny_store(tmp_path / "few", num_train=9)))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"shard": "full"}, r"training\.select best is not supported with training\.shard full"),
        (
            {"select": "last", "data": {"val_split": "val"}},
            r"data\.val_split has no effect without training\.select best",
        ),
    ],
)
def test_settings_that_do_not_go_together(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(TrichordError, match=message):
        recipe_of(**settings_)
