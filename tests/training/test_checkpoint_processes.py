"""Checkpoints that two processes write together, and from which one or two processes continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint_helpers import digest, load, save, small_state, train
from process_helpers import FORKSERVER, free_port, join_gloo


def work(rank: int, world: int, port: int, folder: Path, part: str, results: Any) -> None:
    join_gloo(rank, world, port)
    torch.manual_seed(rank)
    state, messages = small_state(), []
    if part == "write":
        train(state, 2)
        save(state, folder, 1)
        train(state, 2)
        save(state, folder, 3)
    position = load(state, folder, messages)
    assert position is not None
    train(state, 1)
    results.put((rank, position.step, digest(state), messages))


def launch(world: int, folder: Path, part: str) -> list[tuple[int, int, str, list[str]]]:
    results, port = FORKSERVER.Queue(), free_port()
    started = [FORKSERVER.Process(target=work, args=(r, world, port, folder, part, results)) for r in range(world)]
    for process in started:
        process.start()
    gathered = sorted(results.get(timeout=120) for _ in started)
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    return gathered


@pytest.mark.slow
def test_two_processes_write_and_continue(tmp_path: Path) -> None:
    """Each process restores its random states; both skip a damaged checkpoint; another number of processes is reported."""
    folder = tmp_path / "stage" / "checkpoints"
    written = launch(2, folder, "write")
    assert {path.name for path in (folder / "step-00000003").glob("random-*")} == {
        "random-0.safetensors", "random-1.safetensors",
    }  # fmt: skip
    assert written[0][2] != written[1][2], "each process draws its own"
    again = launch(2, folder, "read")
    assert again == written and all(step == 3 and not messages for _, step, _, messages in again)
    ((_, step, alone, messages),) = launch(1, folder, "read")
    assert (
        (step, alone) == (3, written[0][2])
        and len(messages) == 1
        and "written by 2 processes and continued by 1" in messages[0]
    )
    (folder / "step-00000003" / "random-1.safetensors").write_bytes(b"torn")
    (_, first, _, messages), (_, second, _, silent) = launch(2, folder, "read")
    assert first == second == 1 and len(messages) == 2 and silent == []
