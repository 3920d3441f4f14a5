"""One training step that can be divided among real processes, and its results."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modality_helpers import declared
from process_helpers import free_port, start_processes
from trichord.layers.batch_norm import set_over_processes
from trichord.losses.clustering import ClusterMemory
from trichord.losses.combined import CombinedLoss
from trichord.losses.registry import pairwise_loss
from trichord.modality import Order
from trichord.nn import MCN, DAVEnet
from trichord.recipes import LossSettings
from trichord.training.gradient_cache import GradientCache
from trichord.training.pairs import PairTraining
from trichord.training.stage import prepare_model, stages_of

ROWS = 7
Work = Callable[..., Any]


def run_processes(num: int, work: Work, folder: Path, *arguments: Any) -> list[Any]:
    """Run `work(rank, *arguments)` in `num` processes of one gloo group; return the results by rank."""
    port = free_port()
    start_processes(num, _process, num, port, work, str(folder), arguments)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(num)]


def _process(rank: int, num: int, port: int, work: Work, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_WORLD_SIZE": str(num)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=num)
    torch.save(work(rank, *arguments), Path(folder) / f"rank-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Case:
    """One way to train. `sizes`: rows of each process; None splits them as `data.batches` does. `rows`: their order."""

    order: str = "avt"
    contrast: str = "mms"
    sizes: tuple[int, ...] | None = None
    chunk: int = 0
    dtype: torch.dtype = torch.float64
    fast: bool = True
    norm: str = "global"
    detach: bool = True
    cluster_on: str = "modalities"
    bfloat16: bool = False
    padded: bool = True
    clusters: bool = True
    learned: bool = False
    rows: tuple[int, ...] = tuple(range(ROWS))

    def part(self, rank: int, num: int) -> slice:
        sizes = self.sizes or tuple(len(p) for p in torch.arange(ROWS).tensor_split(num))
        assert len(sizes) == num and sum(sizes) == ROWS
        return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


@dataclass
class Results:
    """Results of two steps by name: terms of both; gradients, weights, buffers and cluster memory after the second."""

    terms: list[dict[str, float]]
    tensors: dict[str, Tensor]
    memory: dict[str, Tensor]


def the_model(case: Case) -> MCN:
    torch.manual_seed(0)
    further = {"depth": 3} if "d" in case.order else {}
    widths = {"video_dim": 6, "embed_dim": 8, "word_dim": 5, "reconstruction_dim": 4}
    temperature = 0.3 if case.learned else None
    network = MCN(**widths, audio_channels=(4, 4, 6, 6), feature_dims=further, pair_temperature=temperature)
    return network.to(case.dtype)


def inputs(case: Case, step: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(step)
    frames = torch.randint(20, 50, (ROWS,), generator=rng)
    frames[2] = 64  # so that the parts end at different frames
    tensors = {
        "video": torch.rand(ROWS, 6, generator=rng, dtype=torch.float64),
        "audio": torch.randn(ROWS, 40, 64, generator=rng, dtype=torch.float64),
        "text": torch.randn(ROWS, 3, 5, generator=rng, dtype=torch.float64),
    }
    lengths = frames if case.padded else torch.full((ROWS,), 64)
    words = torch.rand(ROWS, 3, generator=rng) < 0.8
    if "d" in case.order:
        tensors["depth"] = torch.randn(ROWS, 3, generator=rng, dtype=torch.float64)
    return {name: x.to(case.dtype) for name, x in tensors.items()} | {"audio_frames": lengths, "text_mask": words}


def masks(case: Case, step: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(100 + step)
    names = ("video", "audio", "text", *(("depth",) if "d" in case.order else ()))
    return {m: torch.rand(ROWS, generator=rng) < 0.8 for m in names}


def the_loss(case: Case) -> CombinedLoss:
    stage = stages_of(Order.parse(case.order))[-1]
    return CombinedLoss(
        pairs=stage.pairs, contrast=pairwise_loss(case.contrast, LossSettings(temperature=0.5)), divide=case.fast,
        cluster=stage.cluster if case.clusters else (), cluster_weight=0.7, cluster_on=case.cluster_on,
        cluster_temperature=0.5, reconstruct=stage.reconstruct, reconstruction_weight=2.0, reconstruction_detach=case.detach,
        memory=ClusterMemory(num_clusters=3, size=12, refit_every=1, seed=1) if case.clusters else None,
    )  # fmt: skip


def train(case: Case, rank: int = 0, num: int = 1) -> Results:
    """Run two steps of a small model on this process's part of the batch, as the training loop does."""
    with declared(**({"depth": "d"} if "d" in case.order else {})):
        return _train(case, rank, num)


def _train(case: Case, rank: int, num: int) -> Results:
    from accelerate import Accelerator

    stage, part = stages_of(Order.parse(case.order))[-1], case.part(rank, num) if num > 1 else slice(0, ROWS)
    model = the_model(case)
    prepare_model(model, stage, heads=True)
    set_over_processes(model, case.norm == "global")
    for module in model.modules():
        if isinstance(module, DAVEnet):
            module.fast = case.fast
    accelerator = Accelerator(cpu=True)
    pairs = PairTraining(model, stage, (0.01, 0.5))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    network, optimizer = accelerator.prepare(model, optimizer)
    cache = GradientCache(network, accelerator, stage.train, chunk=case.chunk) if case.chunk else None
    loss, terms = the_loss(case), []
    order = torch.tensor(case.rows)
    rows, positives = order[part], (torch.eye(ROWS) + torch.eye(ROWS).roll(1, 1) > 0)[order][:, order]
    for step in range(2):
        own_inputs = {name: x[rows] for name, x in inputs(case, step).items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bfloat16):
            outputs = cache.encode(own_inputs) if cache else network(**own_inputs)
        valid = {m: mask[rows] for m, mask in masks(case, step).items()}
        step_terms = loss(outputs, valid, positives, temperatures=model.temperatures(stage.pairs))
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(step_terms["loss"])
        if cache:
            cache.backward(own_inputs)
        pairs.average_gradients()
        terms.append({name: float(term.detach()) for name, term in step_terms.items()})
        if step == 0:
            optimizer.step()
            pairs.clamp()
    tensors = {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    tensors |= {n: t.detach().clone() for n, t in model.state_dict().items()}
    return Results(terms, tensors, {} if loss.memory is None else loss.memory.state_dict())


def train_all(rank: int, num: int, cases: Sequence[Case]) -> list[Results]:
    return [train(case, rank, num) for case in cases]


def difference_of_terms(results: Results, expected: Results) -> float:
    """Return the largest difference of any term, relative to the term if it exceeds 1."""
    pairs = [
        (a[name], b[name]) for a, b in zip(results.terms, expected.terms, strict=True) for name in a.keys() | b.keys()
    ]
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)


def difference_of(results: Results, expected: Results, start: str) -> float:
    """Return the norm of the difference of all tensors whose name begins with `start`, relative to that of the expected
    ones.
    """
    assert results.tensors.keys() == expected.tensors.keys()
    names = [n for n in expected.tensors if n.startswith(start)]
    assert names
    a, b = (torch.cat([x.tensors[n].double().flatten() for n in names]) for x in (results, expected))
    return float((a - b).norm() / b.norm())


def largest_difference(results: Results, expected: Results) -> tuple[float, str]:
    """Return the largest difference of any tensor relative to its largest entry, and its name.

    For very small gradients, it is relative to a thousandth of the largest of all.
    """
    floor = 1e-3 * max(float(t.abs().max()) for name, t in expected.tensors.items() if name.startswith("gradient"))
    return max(
        (float((results.tensors[name] - tensor).abs().max()) / max(float(tensor.abs().max()), floor), name)
        for name, tensor in expected.tensors.items()
    )
