"""Two processes of one launch stop together if only one of them meets values that are not finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_guards import debug, poison

from process_helpers import free_port, join_gloo, start_processes
from tiny import write_tiny_store
from trichord.errors import Diverged
from trichord.losses.combined import CombinedLoss
from trichord.study import run
from trichord.study.reproduce import reproduce
from trichord.training import loop


def train(rank: int, port: int, store: str, out: str, what: str, batch_norm: str) -> None:
    """Run one process; the fault `what` occurs in process 1 only or, with `features`, where that part of the batch is."""
    join_gloo(rank, 2, port)
    call, norm = CombinedLoss.__call__, loop._grad_norm

    def bad_loss(self: CombinedLoss, *arguments: Any) -> Any:
        terms = call(self, *arguments)
        return terms | {"loss": terms["loss"] * float("nan")} if rank == 1 else terms

    if what == "loss":
        CombinedLoss.__call__ = bad_loss  # type: ignore[method-assign]
    if what == "gradient":
        loop._grad_norm = lambda *a: float("inf") if rank == 1 else norm(*a)
    try:
        run.train_order(Path(store), Path(out), "avt", 0, debug(batch_norm=batch_norm))
        message = "finished"
    except Diverged as error:
        message = str(error)
    Path(f"{out}.{rank}").write_text(message)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train_two(store: Path, out: Path, what: str, batch_norm: str = "global") -> list[str]:
    start_processes(2, train, free_port(), str(store), str(out), what, batch_norm)
    return [Path(f"{out}.{rank}").read_text() for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_no_process_steps_alone(what: str, tmp_path: Path) -> None:
    store = write_tiny_store(tmp_path / "store", num_train=8)
    for message in train_two(store, tmp_path / "run", what):
        assert f"step 1: the {what} is not finite" in message
    (dump,) = (tmp_path / "run").glob("stages/*/divergence")
    assert {path.name for path in dump.glob("*-*")} == {
        "batch-0.safetensors", "batch-1.safetensors", "clips-0.json", "clips-1.json"
    }  # fmt: skip
    assert not list(dump.parent.glob(".divergence*"))
    assert [len(json.loads((dump / f"clips-{n}.json").read_text())["clips"]) for n in range(2)] == [16, 16]


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["global", "process"])
def test_the_video_is_named_by_all_and_the_step_is_seen_again_in_one_process(batch_norm: str, tmp_path: Path) -> None:
    store = write_tiny_store(tmp_path / "store", num_train=8)
    video = poison(store, 3, "visual_2d", float("nan"))
    messages = train_two(store, tmp_path / "run", "features", batch_norm)
    assert f"video '{video}' (stream visual_2d" in messages[0] and all(
        "the loss is not finite" in line for line in messages
    )
    (dump,) = (tmp_path / "run").glob("stages/*/divergence")
    bad = [json.loads((dump / f"clips-{n}.json").read_text())["bad_inputs"] for n in range(2)]
    assert sorted(map(len, bad)) == [0, 4]
    inputs = [load_file(dump / f"batch-{n}.safetensors")["input.video"] for n in range(2)]
    assert [int(torch.isnan(part).any(dim=1).sum()) for part in inputs] == [len(videos) for videos in bad]
    videos = reproduce(dump)
    assert videos.same
    assert videos.before == pytest.approx(videos.now, rel=1e-5, nan_ok=True), "terms without video are finite and equal"
    finite = [name for name, value in videos.now.items() if value == value]
    assert "reconstruction_A" in finite and "contrast_AT" in finite
