"""Values, digests and agreement of several processes; batch norm over them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from split_training import run_processes
from trichord.errors import TrichordError
from trichord.layers.batch_norm import BatchNorm2d, set_over_processes
from trichord.parallel import digest, first_to_fail, most, num_processes, on_main, require_same
from trichord.recipes import load_recipe, of_this_version

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(DTYPES), st.data())
def test_a_digest_detects_a_changed_bit_and_exchanged_rows(seed: int, dtype: torch.dtype, data: st.DataObject) -> None:
    rng = torch.Generator().manual_seed(seed)
    tensor = (torch.randn(7, 3, generator=rng) * 3).to(dtype)
    before = digest([tensor])
    assert digest([tensor.clone()]) == before == digest([tensor[:, :1].expand(7, 3) * 0 + tensor])
    changed = tensor.clone()
    flat = changed.view(-1).view(torch.uint8)
    place = data.draw(st.integers(0, len(flat) - 1))
    flat[place] ^= 1 if dtype == torch.bool else 1 << data.draw(st.integers(0, 7))
    assert digest([changed]) != before
    if not torch.equal(tensor[0], tensor[5]):
        assert digest([tensor[[5, 1, 2, 3, 4, 0, 6]]]) != before
    assert digest([tensor, tensor[:1]]) != before and digest([]) != before


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_a_digest_detects_exchanged_rows_with_equal_sums(dtype: torch.dtype) -> None:
    rows = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0]]).to(dtype)
    digests = {digest([rows[list(order)]]) for order in itertools.permutations(range(3))}
    assert len(digests) == 6


def test_a_digest_knows_the_sign_of_zero_and_reads_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest([torch.zeros(3)]) != digest([torch.tensor([0.0, -0.0, 0.0])])
    whole = torch.randn(100)
    monkeypatch.setattr("trichord.parallel.BLOCK", 7)
    changed = whole.clone()
    changed[[3, 90]] = changed[[90, 3]]
    assert digest([whole]) != digest([changed])
    assert digest([whole]) == digest([whole.clone()])
    assert digest([torch.tensor(1.0), torch.zeros(0)]) == digest([torch.tensor(1.0)])


def test_one_process_needs_nothing() -> None:
    require_same({"weights": 1}, "here")
    assert num_processes() == 1 and most(3) == 3 and on_main(lambda: 5) == 5


@pytest.mark.parametrize(("rank", "reports", "num_waits"), [("0", True, 0), ("1", False, 1)])
def test_process_0_has_time_to_report_an_error_of_all_processes(
    rank: str, reports: bool, num_waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher ends process 0 when process 1 ends."""
    waits_s: list[float] = []
    monkeypatch.setattr("trichord.parallel.time.sleep", waits_s.append)
    monkeypatch.setenv("RANK", rank)
    assert first_to_fail() is reports
    assert len(waits_s) == num_waits and all(seconds >= 1 for seconds in waits_s)


def raising() -> None:
    raise TrichordError("the disk is full")


def together(rank: int) -> dict[str, Any]:
    outcomes: dict[str, Any] = {"most": most(10 + rank), "main": on_main(lambda: f"from {rank}")}
    for name, function in (
        ("raised", lambda: on_main(raising)),
        ("defect", lambda: on_main(lambda: {}["key"])),
        ("same", lambda: require_same({"weights": 7, "queue": -(2**63)}, "stage av, step 3")),
        (
            "differs",
            lambda: require_same({"weights": 7, "queue": rank // 2, "centroids": rank % 2}, "stage av, step 3"),
        ),
    ):
        try:
            outcomes[name] = function()
        except Exception as error:
            outcomes[name] = f"{type(error).__name__}: {error}"
    return outcomes


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return run_processes(3, both, tmp_path_factory.mktemp("three"))


def both(rank: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return together(rank), normalised(rank)


def test_all_processes_report_a_disagreement(three: list[Any]) -> None:
    outcomes = [facts for facts, _ in three]
    for rank, facts in enumerate(outcomes):
        assert facts["most"] == 12 and facts["main"] == "from 0" and facts["same"] is None
        assert facts["raised"] == "TrichordError: the disk is full"
        defect = "TrichordError: the main process failed: KeyError: 'key'" if rank else "KeyError: 'key'"
        assert facts["defect"] == defect
        assert (
            "stage av, step 3: process 1, 2 of 3 differs from process 0 in its queue and centroids" in facts["differs"]
        )


SIZES, STEPS = (4, 0, 1), 3


def rows(step: int) -> torch.Tensor:
    return torch.randn(sum(SIZES), 2, 1, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64) * 3 + 5


def normalised(rank: int, norm: nn.BatchNorm2d | None = None, part: slice | None = None) -> dict[str, torch.Tensor]:
    """Return outputs, gradients and buffers of a few steps on this process's rows; the last step has a single row."""
    norm = norm or BatchNorm2d(2).double()
    set_over_processes(norm, True)
    own_rows = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1])) if part is None else part
    tensors = {}
    for step in range(STEPS):
        x = rows(step)[own_rows].requires_grad_()
        y = norm(x)
        (y * rows(step + 10)[own_rows]).sum().backward()
        tensors |= {f"y{step}": y.detach(), f"grad{step}": x.grad}
    alone = rows(0)[:1, :, :, :1] if rank == 2 or part is not None else rows(0)[:0]
    tensors["alone"] = norm(alone).detach()
    return tensors | {n: p.grad for n, p in norm.named_parameters()} | dict(norm.named_buffers())


def test_batch_norm_over_three_processes_is_torchs_over_all_rows(three: list[Any]) -> None:
    """The oracle is torch's batch norm on all rows, which uses the running statistics for a single row."""
    torchs = nn.BatchNorm2d(2).double()
    expected: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        x = rows(step).requires_grad_()
        y = torchs(x)
        (y * rows(step + 10)).sum().backward()
        expected |= {f"y{step}": y.detach(), f"grad{step}": x.grad}  # type: ignore[dict-item]
    parts = [norms for _, norms in three]
    for name, whole in expected.items():
        assert torch.allclose(torch.cat([part[name] for part in parts]), whole, rtol=1e-12, atol=1e-12), name
    for name, parameter in torchs.named_parameters():
        assert torch.allclose(sum(part[name] for part in parts), parameter.grad, rtol=1e-12), name  # type: ignore[arg-type]
    for name, buffer in torchs.named_buffers():
        assert all(torch.allclose(part[name], buffer, rtol=1e-12) for part in parts), name
    torchs.eval()
    assert torch.allclose(parts[2]["alone"], torchs(rows(0)[:1, :, :, :1]), rtol=1e-12) and len(parts[0]["alone"]) == 0


def test_the_old_name_of_the_setting_is_refused_and_old_models_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: debug\ntraining: {sync_batch_norm: true}\n")
    with pytest.raises(
        TrichordError, match="training.sync_batch_norm was renamed to training.batch_norm, `global` for true"
    ):
        load_recipe(tmp_path / "mine.yaml")
    old = {"training": {"epochs": 3, "sync_batch_norm": False}}
    assert of_this_version(old) == {"training": {"epochs": 3, "batch_norm": "process"}}
    assert "sync_batch_norm" in old["training"]
