"""The combined loss compared with plain sums, and in two processes compared with one: loss and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from split_training import run_processes
from trichord.losses.clustering import ClusterMemory, cluster_contrast
from trichord.losses.combined import CombinedLoss, fuse
from trichord.losses.contrast import masked_margin_softmax
from trichord.losses.pairwise.mms import MaskedMarginSoftmax
from trichord.nn import Encoded

DIM, ROWS = 5, 7


def outputs_of(rows: dict[str, Tensor], head: nn.Module) -> dict[str, Encoded]:
    return {name: Encoded(x, x.detach() * 2, head(x)) for name, x in rows.items()}


def example(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    rows = {m: torch.randn(ROWS, DIM, generator=generator) for m in ("video", "audio", "text")}
    valid = {m: torch.rand(ROWS, generator=generator) > 0.2 for m in rows}
    return rows, valid


def test_the_terms_are_those_of_the_stage() -> None:
    rows, valid = example()
    head = nn.Linear(DIM, DIM)
    loss = CombinedLoss(
        pairs=(("video", "text"), ("audio", "text")),
        contrast=MaskedMarginSoftmax(),
        contrast_weight=2.0,
        reconstruct=("text",),
        reconstruction_weight=50.0,
    )
    terms = loss(outputs_of(rows, head), valid)
    assert set(terms) == {"loss", "contrast_VT", "contrast_AT", "reconstruction_T"}
    both = valid["video"] & valid["text"]
    expected = masked_margin_softmax((rows["video"] @ rows["text"].T)[both][:, both])
    assert torch.allclose(terms["contrast_VT"], expected)
    kept = valid["text"]
    error = ((head(rows["text"]) - 2 * rows["text"]) ** 2).mean(1)[kept].mean()
    assert torch.allclose(terms["reconstruction_T"], error)
    total = 2 * (terms["contrast_VT"] + terms["contrast_AT"]) + 50 * terms["reconstruction_T"]
    assert torch.allclose(terms["loss"], total)


def test_the_cluster_objective_is_reported_but_not_part_of_the_loss() -> None:
    rows, valid = example(1)
    memory = ClusterMemory(num_clusters=ROWS + 1, size=64, refit_every=1)
    pairs = (("video", "text"),)
    loss = CombinedLoss(
        pairs=pairs, contrast=MaskedMarginSoftmax(), cluster=("text",), cluster_weight=3.0, memory=memory
    )
    inputs = {m: x.clone().requires_grad_(True) for m, x in rows.items()}
    first = loss(outputs_of(inputs, nn.Identity()), valid)
    assert set(first) == {"loss", "contrast_VT", "cluster"}  # there are too few rows for a fit
    terms = loss(outputs_of(inputs, nn.Identity()), valid)
    assert set(terms) == {"loss", "contrast_VT", "cluster", "cluster_objective"}
    objective = terms["cluster_objective"]
    assert memory.objective is not None and float(objective) == pytest.approx(memory.objective) and objective.ndim == 0
    assert not objective.requires_grad and terms["loss"].requires_grad
    assert torch.equal(terms["loss"], terms["contrast_VT"] + 3 * terms["cluster"])


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("on", ["modalities", "fused"])
def test_clustering_pulls_the_named_modalities_towards_shared_centroids(cosine: bool, on: str) -> None:
    rows, valid = example(1)
    memory, twin = (ClusterMemory(num_clusters=3, size=16, refit_every=2, normalize=cosine, seed=4) for _ in range(2))
    loss = CombinedLoss(
        pairs=(("video", "text"),), contrast=MaskedMarginSoftmax(), contrast_weight=0.0, cluster=("text",), cluster_on=on,
        cluster_cosine=cosine, cluster_temperature=0.5, memory=memory,
    )  # fmt: skip
    cluster_term = loss(outputs_of(rows, nn.Identity()), valid)["cluster"]
    unit = {m: nn.functional.normalize(x, dim=1) if cosine else x for m, x in rows.items()}
    fused, present = fuse(unit, valid)
    state = twin.update(fused, present)
    assert state is not None
    target, mask = (unit["text"], valid["text"]) if on == "modalities" else (fused, present)
    if on == "fused" and cosine:
        target = nn.functional.normalize(target, dim=1)
    assert torch.allclose(cluster_term, cluster_contrast(target, *state, valid=mask, temperature=0.5))


def test_the_fused_embedding_is_the_mean_over_present_modalities() -> None:
    rows, valid = example(2)
    valid["video"][:] = False
    valid["audio"][0] = valid["text"][0] = False
    fused, present = fuse(rows, valid)
    assert not present[0] and (fused[0] == 0).all()
    for i in range(1, ROWS):
        have = [rows[m][i] for m in rows if valid[m][i]]
        assert bool(present[i]) == bool(have)
        if have:
            assert torch.allclose(fused[i], torch.stack(have).mean(0))


CUTS = (3, 5)


def two_rank_losses(rank: int) -> list[tuple[dict[str, Tensor], list[Tensor]]]:
    """Compute the rows before or after each cut with a shared linear encoder, and average the gradients as DDP does."""
    results = []
    for cut in CUTS:
        values, gradients = losses_and_gradients(slice(0, cut) if rank == 0 else slice(cut, None))
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
            gradient /= 2
        results.append((values, gradients))
    return results


def losses_and_gradients(part: slice) -> tuple[dict[str, Tensor], list[Tensor]]:
    rows, valid = example(3)
    torch.manual_seed(0)
    encoder, head = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
    memory = ClusterMemory(num_clusters=3, size=20, refit_every=1, seed=1)
    loss = CombinedLoss(
        pairs=(("video", "text"), ("audio", "text"), ("video", "audio")), contrast=MaskedMarginSoftmax(),
        cluster=("video", "audio", "text"), memory=memory, reconstruct=("video", "text"), cosine=False,
    )  # fmt: skip
    for _ in range(2):
        encoder.zero_grad()
        head.zero_grad()
        terms = loss(
            outputs_of({m: encoder(x[part]) for m, x in rows.items()}, head), {m: v[part] for m, v in valid.items()}
        )
        terms["loss"].backward()
    gradients = [p.grad for p in (*encoder.parameters(), *head.parameters()) if p.grad is not None]
    return {k: v.detach() for k, v in terms.items()}, gradients


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    """Parts may have unequal sizes. On every process, the loss is that of the whole batch."""
    whole, gradients = losses_and_gradients(slice(None))
    for by_cut in run_processes(2, two_rank_losses, tmp_path):
        for values, averaged in by_cut:
            for name, value in whole.items():
                assert torch.allclose(values[name], value, rtol=1e-5), name
            for a, b in zip(averaged, gradients, strict=True):
                assert float((a - b).abs().max()) < 1e-5 * max(1.0, float(b.abs().max()))
