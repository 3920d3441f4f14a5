"""A step that is not finite stops before the weights change, names the cause, and can be reproduced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from tiny import write_tiny_store
from trichord.cli import main
from trichord.errors import Diverged, TrichordError
from trichord.losses.combined import CombinedLoss
from trichord.recipes import Recipe, load_recipe
from trichord.store import Store
from trichord.store.shards import read_header
from trichord.study import factories, run
from trichord.study.reproduce import read_dump, reproduce
from trichord.training import loop

pytestmark = pytest.mark.usefixtures("without_chart")


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """Reset the precision, since a process otherwise keeps that of its first run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def intact_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_store(tmp_path_factory.mktemp("intact") / "store", num_train=8)


@pytest.fixture
def store(intact_store: Path, tmp_path: Path) -> Path:
    """A store that the test may change."""
    return shutil.copytree(intact_store, tmp_path / "store")


def debug(**training: Any) -> Recipe:
    options = {"tensorboard": False, "device": "cpu", "max_steps": 4, **training}
    return load_recipe("debug", training=options)


def poison(store: Path, video: int, stream: str, value: float) -> str:
    """Overwrite a video's rows of a stream in its shard, like a faulty disk; return the id of the video."""
    opened = Store(store)
    path = opened.shard_path(video)
    _, begin, end, _ = opened.located(stream, np.array([video]))
    dtype, shape, offset = read_header(path)[1][stream]
    with path.open("r+b") as file:
        file.seek(offset + int(begin[0]) * shape[1] * dtype.itemsize)
        file.write(np.full((int(end[0] - begin[0]), shape[1]), value, dtype).tobytes())
    return opened.video_id(video)


def diverge(store: Path, out: Path, order: str, recipe: Recipe) -> tuple[str, Path]:
    """Train until it diverges; return the message and the dump."""
    with pytest.raises(Diverged) as caught:
        run.train_order(store, out, order, 0, recipe)
    (dump,) = out.glob("stages/*/divergence")
    return str(caught.value), dump


@pytest.mark.parametrize(
    ("order", "stream", "training"),
    [
        ("vt", "visual_2d", {}),
        ("avt", "spectrogram", {}),
        ("avt", "spectrogram", {"chunk_clips": 12}),
        ("at", "spectrogram", {"precision": "bf16"}),
    ],
)
def test_a_bad_feature_is_named_and_the_step_is_seen_again(
    order: str, stream: str, training: dict[str, Any], store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = poison(store, 3, stream, float("nan"))
    message, dump = diverge(store, tmp_path / "run", order, debug(**training))
    shard = Store(store).shard_path(3)
    assert f"video '{video}'" in message and f"stream {stream}, {shard}" in message and "step 1" in message
    assert f"`trichord reproduce {dump}`" in message and "\n" not in message
    reproduced = reproduce(dump)
    assert reproduced.same and np.isnan(reproduced.now["loss"])
    assert reproduced.before == pytest.approx(reproduced.now, rel=1e-5, nan_ok=True)
    assert main(["reproduce", str(dump.parent)]) == 0
    printed = capsys.readouterr().out
    assert "the same values are not finite in both" in printed and f"stream {stream}, {shard}" in printed
    modality = {"visual_2d": "video", "spectrogram": "audio"}[stream]
    assert f"first module whose output is not finite: encoders.{modality}." in printed
    assert f"{modality}: 4 of 32 rows are not finite" in printed and f"video '{video}'" in printed


def test_a_step_with_noise_and_learned_temperatures_is_seen_again(store: Path, tmp_path: Path) -> None:
    """Its inputs have noise, and the reconstruction targets of its video features have none."""
    poison(store, 3, "spectrogram", float("nan"))
    recipe = load_recipe(
        "debug",
        training={"tensorboard": False, "device": "cpu", "max_steps": 4},
        model={"dropout": 0.5, "time_mask": 20},
        loss={"contrast": "info_nce", "temperature": 0.2, "learn_temperature": True, "cluster_weight": 0},
    )
    _, dump = diverge(store, tmp_path / "run", "avt", recipe)
    reproduced = reproduce(dump)
    assert reproduced.same and np.isfinite(reproduced.before["reconstruction_V"])
    assert reproduced.before == pytest.approx(reproduced.now, rel=1e-5, nan_ok=True)


def test_the_dump_holds_the_state_before_the_step(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the weights, running statistics and batch from before the step, and no pickle."""
    calls: list[CombinedLoss] = []
    call = CombinedLoss.__call__

    def spoiled(self: CombinedLoss, *arguments: Any) -> Any:
        calls.append(self)
        self.contrast_weight = float("inf") if len(calls) == 3 else 1.0
        return call(self, *arguments)

    monkeypatch.setattr(CombinedLoss, "__call__", spoiled)
    recipe = debug(checkpoint_every_steps=2, schedule="constant")
    message, dump = diverge(store, tmp_path / "run", "avt", recipe)
    assert (
        "step 3: the loss is not finite (the sum of its terms)" in message and "lower training.learning_rate" in message
    )
    monkeypatch.undo()
    shorter = run.train_order(store, tmp_path / "two", "avt", 0, debug(max_steps=2, schedule="constant"))
    two, left = load_file(shorter.model_folder / "model.safetensors"), load_file(dump / "model.safetensors")
    assert two.keys() == left.keys() and all(torch.equal(two[k], left[k]) for k in two)
    assert {path.suffix for path in dump.iterdir()} == {".json", ".safetensors"}
    described = json.loads((dump / "divergence.json").read_text())
    assert (described["step"], described["epoch"], described["seed"]) == (2, 2, 0)
    clips = json.loads((dump / "clips-0.json").read_text())["clips"]
    assert len(clips) == 32 == len(load_file(dump / "batch-0.safetensors")["input.video"])
    reproduced = reproduce(dump)
    assert not reproduced.same, "the weight of the loss was no part of the settings"
    terms = {name: value for name, value in reproduced.now.items() if name != "loss"}
    assert terms == pytest.approx({name: reproduced.before[name] for name in terms}, rel=1e-6)
    assert "the results differ" in str(reproduced)


def test_a_gradient_that_is_not_finite(store: Path, tmp_path: Path) -> None:
    """A reconstruction head has huge and tiny weights: its error fits into float32, but the gradient of its weights does
    not.
    """
    recipe = debug(clip_grad_norm=1.0)
    build = factories.build_model

    def huge(*arguments: Any) -> Any:
        model = build(*arguments)
        with torch.no_grad():
            model.heads["video"][0].weight.mul_(1e25)
            model.heads["video"][2].weight.mul_(1e-8)
        return model

    patch = pytest.MonkeyPatch()
    patch.setattr(factories, "build_model", huge)
    with patch.context():
        message, dump = diverge(store, tmp_path / "run", "vt", recipe)
    patch.undo()
    assert "step 1: the gradient is not finite; the weights were not changed" in message
    reproduced = reproduce(dump)
    assert reproduced.same and not np.isfinite(reproduced.now["grad_norm"]) and np.isfinite(reproduced.now["loss"])
    assert any("heads.video" in line and "gradient" in line for line in reproduced.where)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")  # torch minds a first step that is left out
def test_overflow_at_every_scale_stops_training(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scaler of fp16 skips steps and halves its scale, 4 -> 2 -> 1, where it would otherwise continue forever."""
    build, norms, seen = factories.build_accelerator, loop._grad_norm, []

    def scaled(recipe: Recipe) -> Any:
        accelerator = build(recipe)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        return accelerator

    def overflowing(accelerator: Any, parameters: list[torch.nn.Parameter], limit: float) -> float:
        seen.append((accelerator.scaler.get_scale(), [p.detach().clone() for p in parameters]))
        next(p for p in parameters if p.grad is not None).grad.fill_(float("inf"))
        return norms(accelerator, parameters, limit)

    monkeypatch.setattr(factories, "build_accelerator", scaled)
    monkeypatch.setattr(loop, "_grad_norm", overflowing)
    message, _ = diverge(store, tmp_path / "run", "vt", debug())
    assert "step 3: the gradient is not finite even with a loss scale of 1; the weights were not changed" in message
    assert [scale for scale, _ in seen] == [4.0, 2.0, 1.0]
    assert all(torch.equal(a, b) for a, b in zip(seen[0][1], seen[2][1], strict=True))


def test_training_continues_with_repaired_features(store: Path, tmp_path: Path) -> None:
    """The finished stage has no dump."""
    whole = Store(store).shard_path(3).read_bytes()
    poison(store, 3, "visual_2d", float("inf"))
    _, dump = diverge(store, tmp_path / "run", "vt", debug())
    _, again = diverge_again(store, tmp_path / "run")
    assert again == dump
    Store(store).shard_path(3).write_bytes(whole)
    summary = run.train_order(store, tmp_path / "run", "vt", 0, debug(), resume=True)
    assert summary.num_steps == 4 and not dump.exists() and not (dump.parent / "diverged.json").exists()


def diverge_again(store: Path, out: Path) -> tuple[str, Path]:
    with pytest.raises(Diverged) as caught:
        run.train_order(store, out, "vt", 0, debug(), resume=True)
    (dump,) = out.glob("stages/*/divergence")
    return str(caught.value), dump


def test_a_full_disk_does_not_hide_the_divergence(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = poison(store, 3, "visual_2d", float("nan"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trichord.training.divergence._save", full)
    with pytest.raises(Diverged, match=f"video '{video}'.*the step could not be saved .No space left on device"):
        run.train_order(store, tmp_path / "run", "vt", 0, debug())


DAMAGE = {
    "no folder": lambda d: None,
    "torn description": lambda d: (d / "divergence.json").write_text('{"format": 1'),
    "another format": lambda d: (d / "divergence.json").write_text('{"format": 9}'),
    "no settings": lambda d: (d / "divergence.json").write_text('{"format": 1}'),
    "torn weights": lambda d: (d / "model.safetensors").write_bytes(b"torn"),
    "weights of another model": lambda d: save_file({"x": torch.zeros(2)}, d / "model.safetensors"),
    "no batch": lambda d: (d / "batch-0.safetensors").unlink(),
    "torn clips": lambda d: (d / "clips-0.json").write_text("["),
}


def test_a_damaged_dump_is_an_error_of_one_line(store: Path, tmp_path: Path) -> None:
    poison(store, 3, "visual_2d", float("nan"))
    _, dump = diverge(store, tmp_path / "run", "vt", debug())
    with pytest.raises(TrichordError, match="contains no diverged step"):
        read_dump(tmp_path)
    for name, damage in DAMAGE.items():
        kept = {path: path.read_bytes() for path in dump.iterdir()}
        damage(dump)
        if name != "no folder":
            with pytest.raises(TrichordError, match="cannot be read .*train the stage again") as caught:
                read_dump(dump)
            assert "\n" not in str(caught.value), name
        for path, content in kept.items():
            path.write_bytes(content)
    assert read_dump(dump).stage.chain == "vt"
