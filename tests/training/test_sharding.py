"""Sharded weights (training.shard full) compared with replicated ones in two processes: losses, gradients, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from split_training import run_processes
from trichord.errors import TrichordError
from trichord.recipes import load_recipe

pytestmark = pytest.mark.slow
STEPS = 6
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_grad_norm": 0.5, "learning_rate": 1e-5},
    "chunks": {"chunk_clips": 5, "chunk_norm": "running"},
    "bf16": {"precision": "bf16"},
}
ORDERS = {"plain": "vt>a", "clipped": "avt", "chunks": "avt", "bf16": "avt"}


class Stopped(Exception):
    pass


def train(store: str, out: Path, name: str, shard: str, *, stop: int = 0, resume: bool = False) -> list[int]:
    """Train an order; return how many numbers of the trained weights and their gradients this process held, by step."""
    from trichord.study.run import train_order
    from trichord.training import agreement, sharding

    plain, held = agreement.Agreement.check_after_fit, []

    def watched(self: Any, position: Any) -> None:
        trained = [p for p in watched.model.parameters() if p.requires_grad]  # type: ignore[attr-defined]
        held.append(sum(sharding.own_part(t).numel() for p in trained for t in (p, p.grad) if t is not None))
        plain(self, position)
        if stop and position.step == stop:
            raise Stopped

    inner = agreement.Agreement.__init__

    def begin(self: Any, model: Any, *arguments: Any) -> None:
        watched.model = model  # type: ignore[attr-defined]
        inner(self, model, *arguments)

    settings = {"max_steps": STEPS, "tensorboard": False, "shard": shard, **SETTINGS[name]}
    if stop or resume:
        settings["checkpoint_every_steps"] = 2
    recipe = load_recipe("debug", training=settings, data={"videos_per_batch": 4, "audio_frames": 100})
    agreement.Agreement.check_after_fit, agreement.Agreement.__init__ = watched, begin  # type: ignore[method-assign]
    try:
        train_order(Path(store), out, ORDERS[name], 0, recipe, resume=resume)
    except Stopped:
        pass
    finally:
        agreement.Agreement.check_after_fit, agreement.Agreement.__init__ = plain, inner  # type: ignore[method-assign]
    return held


def work(rank: int, store: str, folder: str) -> dict[str, list[int]]:
    held = {}
    for name in SETTINGS:
        for shard in ("none", "full"):
            torch.distributed.barrier()
            held[f"{name} {shard}"] = train(store, Path(folder) / f"{name} {shard}", name, shard)
            from accelerate.state import AcceleratorState

            AcceleratorState._reset_state()  # the next run has another precision
    for first, second in (("full", "none"), ("none", "full")):
        out = Path(folder) / f"stopped {first} {second}"
        train(store, out, "clipped", first, stop=5)
        torch.distributed.barrier()
        train(store, out, "clipped", second, resume=True)
    return held


@pytest.fixture(scope="module")
def trained(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, list[int]]]]:
    folder = tmp_path_factory.mktemp("sharded")
    return folder, run_processes(2, work, folder, str(tiny_store), str(folder))


def check_equal(actual: Path, expected: Path, limit: float) -> None:
    stages = sorted(path.parent.name for path in expected.glob("stages/*/metrics.jsonl"))
    assert stages
    for stage in stages:
        a, b = (
            [json.loads(line) for line in (out / "stages" / stage / "metrics.jsonl").read_text().splitlines()]
            for out in (actual, expected)
        )
        assert [row["step"] for row in a] == list(range(STEPS)) == [row["step"] for row in b]
        assert a[0]["grad_norm"] == pytest.approx(b[0]["grad_norm"], rel=1e-5)
        for x, y in zip(a, b, strict=True):
            assert x["loss"] == pytest.approx(y["loss"], rel=limit)
            assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=limit)
        weights, other = (load_file(out / "stages" / stage / "model.safetensors") for out in (actual, expected))
        assert weights.keys() == other.keys()
        for name in weights:
            assert weights[name].shape == other[name].shape  # the whole tensor, not a shard
            assert torch.allclose(weights[name], other[name], rtol=limit, atol=limit), name


@pytest.mark.parametrize("name", SETTINGS)
def test_sharded_training_equals_replicated_training(
    name: str, trained: tuple[Path, list[dict[str, list[int]]]]
) -> None:
    folder, held = trained
    check_equal(folder / f"{name} full", folder / f"{name} none", 1e-4)
    for rank in held:
        for part, copy in zip(rank[f"{name} full"], rank[f"{name} none"], strict=True):
            assert part < 0.6 * copy  # half, and tensors that cannot be divided


@pytest.mark.parametrize("first", ["full", "none"])
def test_a_checkpoint_of_shards_equals_one_of_replicas(
    first: str, trained: tuple[Path, list[dict[str, list[int]]]]
) -> None:
    folder, _ = trained
    second = "none" if first == "full" else "full"
    check_equal(folder / f"stopped {first} {second}", folder / "clipped none", 1e-4)


def test_settings_that_do_not_go_with_it_are_refused() -> None:
    for training in ({"precision": "fp16"}, {"batch_norm": "process"}):
        with pytest.raises(TrichordError, match="training.shard full requires"):
            load_recipe("debug", training={"shard": "full", **training})
