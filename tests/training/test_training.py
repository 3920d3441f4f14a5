"""The training loop: stages, frozen weights, schedules and logs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paths import FIXTURES
from tiny import write_tiny_store
from trichord.errors import TrichordError
from trichord.modality import Order
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store
from trichord.study import factories, run
from trichord.study.plan import plan_order
from trichord.training import loop
from trichord.training.loop import train_stage

GOLDEN = FIXTURES / "golden_debug.json"


FEW_CLIPS = {"videos_per_batch": 3, "clips_per_video": 2, "audio_frames": 100}  # epochs of four steps


def debug(data: dict[str, Any] = FEW_CLIPS, **training: Any) -> Recipe:
    return load_recipe("debug", training={"tensorboard": False, "device": "cpu", **training}, data=data)


def metrics(folder: Path) -> list[dict[str, float]]:
    """Return the lines of a stage without their times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [row.pop("seconds") for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    return rows


@pytest.mark.parametrize("order", ["av>t", "at>v", "vt>a", "avt"])
def test_golden_loss_curve_of_the_debug_recipe(order: str, tiny_store: Path, tmp_path: Path) -> None:
    """Refactoring must not change the losses.

    `PYTHONPATH=tests/helpers python tests/training/test_training.py` writes the file again after an intended
    change.

    Processors round differently, and every step amplifies the difference: 5e-4 was observed at the sixth step, and 2.7e-3 at
    the second step of a second stage.
    """
    expected = json.loads(GOLDEN.read_text())[order]
    stages = curve(order, tiny_store, tmp_path / "run")
    assert stages[0][:4] == pytest.approx(expected[0][:4], rel=2e-4)
    for losses, golden, tolerance in zip(stages, expected, (3e-3, 6e-3), strict=False):
        assert losses == pytest.approx(golden, rel=tolerance)
    assert len(stages) == len(expected)


def curve(order: str, store: Path, out: Path) -> list[list[float]]:
    """Return the losses of all steps, by stage."""
    summary = run.train_order(store, out, order, 0, debug({}))
    return [[row["loss"] for row in metrics(folder)] for folder in summary.stage_folders]


@pytest.mark.parametrize("order", ["av>t", "at>v", "vt>a"])
def test_stage_two_leaves_frozen_weights_and_buffers_bit_equal(order: str, tiny_store: Path, tmp_path: Path) -> None:
    summary = run.train_order(tiny_store, tmp_path / "run", order, 0, debug(max_steps=2))
    first, second = (load_file(folder / "model.safetensors") for folder in summary.stage_folders)
    stage = plan_order(Order.parse(order), 0, debug(), "x").stages[1].stage
    changed = {name.split(".")[1] for name in first if not torch.equal(first[name], second[name])}
    assert changed == set(stage.train)


def test_initial_weights_depend_on_the_seed_alone(tiny_store: Path) -> None:
    store = Store(tiny_store)
    a, b, other = (factories.build_model(debug(), store, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], other[k]) for k in a)


class Stopped(Exception):
    pass


RESUMED = {"max_steps": 6, "checkpoint_every_steps": 2}


@pytest.fixture(scope="module")
def uninterrupted(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, run.TrainSummary]:
    folder = tmp_path_factory.mktemp("whole")
    orders = ("av>t", "avt")
    return {order: run.train_order(tiny_store, folder / order, order, 0, debug(**RESUMED)) for order in orders}


@pytest.mark.parametrize(("order", "stop_at"), [("av>t", 1), ("av>t", 3), ("avt", 5)])
def test_resumed_training_equals_uninterrupted(
    order: str,
    stop_at: int,
    uninterrupted: dict[str, run.TrainSummary],
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parameters, buffers, clustering and all logged figures are bit-equal.

    The run continues from its beginning, from within an epoch (after two steps), or from the end of one (after four).
    """
    whole = uninterrupted[order]

    def stop(step: int) -> None:
        if step == stop_at:
            raise Stopped

    monkeypatch.setattr(run, "train_stage", partial(train_stage, after_step=stop))
    with pytest.raises(Stopped):
        run.train_order(tiny_store, tmp_path / "cut", order, 0, debug(**RESUMED))
    monkeypatch.setattr(run, "train_stage", train_stage)
    cut = run.train_order(tiny_store, tmp_path / "cut", order, 0, debug(**RESUMED), resume=True)
    for a, b in zip(whole.stage_folders, cut.stage_folders, strict=True):
        one, two = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
        assert all(torch.equal(one[k], two[k]) for k in one)
        assert metrics(a) == metrics(b)
    assert cut.num_steps == whole.num_steps - (stop_at // 2 * 2)


def test_a_run_folder_explains_itself_and_is_not_used_twice(tiny_store: Path, tmp_path: Path) -> None:
    summary = run.train_order(tiny_store, tmp_path / "run", "vt>a", 0, debug(max_steps=1))
    config = (summary.model_folder / "config.yaml").read_text()
    assert "fingerprint" in config and "torch" in config and "learning_rate" in config and "frozen" in config
    with pytest.raises(TrichordError, match="already contains a run; add --resume"):
        run.train_order(tiny_store, tmp_path / "run", "vt>a", 0, debug(max_steps=1))
    with pytest.raises(TrichordError, match=r"other settings \(training.learning_rate was 0.001 and is now 0.5\)"):
        run.train_order(tiny_store, tmp_path / "run", "vt>a", 0, debug(max_steps=1, learning_rate=0.5), resume=True)
    other = write_tiny_store(tmp_path / "other", num_train=9)
    with pytest.raises(TrichordError, match="another store, or its store has changed"):
        run.train_order(other, tmp_path / "run", "vt>a", 0, debug(max_steps=1), resume=True)


def later(**settings: Any) -> Recipe:
    training = {"tensorboard": False, "device": "cpu", "max_steps": 3}
    return load_recipe("debug", training=training, data=FEW_CLIPS, later_stages=settings)


def weights(folder: Path, modality: str) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if modality in name and "running" not in name}


def moved(folders: tuple[Path, ...], modality: str) -> float:
    """Return how far the weights of a modality moved in the second stage."""
    first, second = (weights(folder, modality) for folder in folders)
    assert first
    return sum(float((first[k] - second[k]).abs().sum()) for k in first)


def test_thawed_modalities_train_on_at_their_part_of_the_rate(tiny_store: Path, tmp_path: Path) -> None:
    far = {}
    for thaw in (0.0, 0.01, 1.0):
        run_folder = tmp_path / str(thaw)
        summary = run.train_order(tiny_store, run_folder, "vt>a", 0, later(thaw=thaw))
        far[thaw] = moved(summary.stage_folders, "video")
    assert far[0.0] == 0 and 0 < far[0.01] < 0.1 * far[1.0]
    first = {path.name for path in tmp_path.glob("*/stages/vt.seed0.*")}
    assert len(first) == 1, "the first stage does not depend on how later ones are trained"
    assert len({path.name for path in tmp_path.glob("*/stages/vt-a.seed0.*")}) == 3


def test_a_replay_trains_the_first_pair_too(tiny_store: Path, tmp_path: Path) -> None:
    summary = run.train_order(tiny_store, tmp_path / "r", "vt>a", 0, later(thaw=1.0, replay=True))
    terms = {name for row in metrics(summary.model_folder) for name in row}
    assert {"contrast_VT", "contrast_VA", "contrast_AT", "reconstruction_V", "reconstruction_A"} <= terms


def test_later_stages_can_be_longer(tiny_store: Path, tmp_path: Path) -> None:
    training = {"tensorboard": False, "max_steps": 0, "epochs": 1}
    recipe = load_recipe("debug", training=training, data=FEW_CLIPS, later_stages={"epochs": 3})
    summary = run.train_order(tiny_store, tmp_path / "long", "vt>a", 0, recipe)
    first, second = (len(metrics(folder)) for folder in summary.stage_folders)
    assert second == 3 * first


def test_later_stage_settings_without_effect_are_refused() -> None:
    with pytest.raises(TrichordError, match="replay has no effect on frozen modalities; set later_stages.thaw"):
        later(replay=True)
    with pytest.raises(TrichordError, match="training.max_steps limits every stage"):
        later(epochs=3)
    with pytest.raises(TrichordError, match="later_stages.thaw is 2.0; it must be at least 0, and at most 1"):
        later(thaw=2.0)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = debug(max_steps=3, schedule="constant")
    fresh = factories.build_model(recipe, Store(tiny_store), 0).state_dict()
    kept: dict[str, torch.Tensor] = {}
    build = factories.build_loss

    def poisoned(*arguments: Any) -> Any:
        loss = build(*arguments)
        loss.contrast_weight = float("nan")
        return loss

    def watched(model: Any, *arguments: Any, **options: Any) -> int:
        try:
            return train_stage(model, *arguments, **options)
        finally:
            kept.update({k: v.clone() for k, v in model.state_dict().items()})

    monkeypatch.setattr(factories, "build_loss", poisoned)
    monkeypatch.setattr(run, "train_stage", watched)
    with pytest.raises(TrichordError, match="stage vt, step 1: the loss is not finite"):
        run.train_order(tiny_store, tmp_path / "run", "vt>a", 0, recipe)
    assert all(
        torch.equal(kept[name], fresh[name])
        for name, _ in fresh.items()
        if "running" not in name and "num_batches" not in name
    )


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = write_tiny_store(Path(folder) / "store")
        orders = ("av>t", "at>v", "vt>a", "avt")
        GOLDEN.write_text(json.dumps({o: curve(o, store, Path(folder) / o) for o in orders}, indent=1) + "\n")


def test_the_plain_paths_train_as_the_fast_ones(tiny_store: Path, tmp_path: Path) -> None:
    one, two = (
        run.train_order(tiny_store, tmp_path / str(fast), "avt", 0, debug(max_steps=4, fast=fast))
        for fast in (True, False)
    )
    first, second = metrics(one.model_folder), metrics(two.model_folder)
    assert len(first) == len(second) and one.model_folder.name != two.model_folder.name
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys() and a["loss"] == pytest.approx(b["loss"], rel=1e-3)


@pytest.mark.parametrize("fast", [True, False])
def test_one_switch_reaches_every_fast_path(
    fast: bool, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(loop, "keep_freed_memory", lambda: kept.append(True))
    observed: list[Any] = []

    def watched(model: Any, stage: Any, loss: Any, source: Any, reader: Any, settings: Any, **options: Any) -> int:
        steps = train_stage(model, stage, loss, source, reader, settings, **options)
        davenet = model.encoders["audio"].davenet
        observed.append((davenet.fast, loss.memory.path is None, settings.training.fast))
        return steps

    monkeypatch.setattr(run, "train_stage", watched)
    run.train_order(tiny_store, tmp_path / "run", "avt", 0, debug(fast=fast, max_steps=1))
    assert observed == [(fast,) * 3] and kept == [True] * fast
