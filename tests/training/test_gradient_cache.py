"""Chunked batches: the gradient is that of the whole batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trichord.losses.combined import CombinedLoss
from trichord.losses.pairwise.info_nce import InfoNCE
from trichord.nn import MCN
from trichord.training.gradient_cache import GradientCache, chunks_of

ALL = ("video", "audio", "text")


def model(dtype: torch.dtype = torch.float64) -> MCN:
    torch.manual_seed(0)
    return MCN(video_dim=6, embed_dim=8, word_dim=5, reconstruction_dim=4, audio_channels=(4, 4, 6, 6)).to(dtype)


def inputs(num_rows: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(num_rows)
    frames = torch.randint(20, 64, (num_rows,), generator=rng)
    return {
        "video": torch.rand(num_rows, 6, generator=rng, dtype=dtype),
        "audio": torch.randn(num_rows, 40, 64, generator=rng, dtype=dtype),
        "audio_frames": frames,
        "text": torch.randn(num_rows, 3, 5, generator=rng, dtype=dtype),
        "text_mask": torch.ones(num_rows, 3, dtype=torch.bool),
    }


def the_loss(detach: bool) -> CombinedLoss:
    return CombinedLoss(
        pairs=[("video", "audio"), ("video", "text"), ("audio", "text")],
        contrast=InfoNCE(0.5),
        cosine=True,
        reconstruct=("video", "audio", "text"),
        reconstruction_weight=2.0,
        reconstruction_detach=detach,
    )


def valid(num_rows: int) -> dict[str, Tensor]:
    mask = torch.ones(num_rows, dtype=torch.bool)
    mask[1] = False
    return {"video": torch.ones(num_rows, dtype=torch.bool), "audio": mask, "text": mask.roll(1)}


def gradients(network: MCN) -> dict[str, Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def by_the_cache(network: MCN, num_rows: int, chunk: int, norm: Any, detach: bool) -> tuple[float, dict[str, Tensor]]:
    cache, given_inputs = GradientCache(network, Accelerator(cpu=True), ALL, chunk=chunk, norm=norm), inputs(num_rows)
    terms = the_loss(detach)(cache.encode(given_inputs), valid(num_rows))
    terms["loss"].backward()
    cache.backward(given_inputs)
    return terms["loss"].item(), gradients(network)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("chunk", [1, 3, 5, 12, 100])
def test_with_running_statistics_chunks_give_the_gradient_of_the_whole_batch(chunk: int, detach: bool) -> None:
    whole, chunked = model().train(), model().train()
    for network in (whole, chunked):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.add_(0.1)  # type: ignore[union-attr]
    reference = copy.deepcopy(whole)
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    terms = the_loss(detach)(reference(**inputs(12)), valid(12))
    terms["loss"].backward()
    loss, cached_gradients = by_the_cache(chunked, 12, chunk, "running", detach)
    assert loss == pytest.approx(terms["loss"].item(), rel=1e-12)
    expected = gradients(reference)
    assert set(cached_gradients) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(cached_gradients[name], gradient, rtol=1e-9, atol=1e-12)
    for name, buffer in chunked.named_buffers():
        assert torch.equal(buffer, dict(whole.named_buffers())[name]), "running statistics stay as they are"
    assert all(m.training for m in chunked.modules())


@settings(max_examples=10, deadline=None)
@given(num_rows=st.integers(2, 11), chunk=st.integers(1, 12))
def test_with_chunk_statistics_it_is_the_gradient_of_a_network_that_sees_chunks(num_rows: int, chunk: int) -> None:
    """The oracle keeps one graph over all chunks, each encoded by itself."""
    reference, chunked = model().train(), model().train()
    parts = [
        reference(**{name: tensor[rows] for name, tensor in inputs(num_rows).items()})
        for rows in chunks_of(num_rows, chunk)
    ]
    outputs = {
        m: type(parts[0][m])(*(torch.cat(t) for t in zip(*(p[m] for p in parts), strict=True))) for m in parts[0]
    }
    terms = the_loss(False)(outputs, valid(num_rows))
    terms["loss"].backward()
    loss, cached_gradients = by_the_cache(chunked, num_rows, chunk, "chunk", False)
    assert loss == pytest.approx(terms["loss"].item(), rel=1e-12)
    for name, gradient in gradients(reference).items():
        torch.testing.assert_close(cached_gradients[name], gradient, rtol=1e-9, atol=1e-12)
    for name, buffer in reference.named_buffers():
        assert torch.equal(buffer, dict(chunked.named_buffers())[name]), f"{name} is updated once a chunk"


def test_frozen_modalities_are_not_encoded_again() -> None:
    network = model().train()
    network.requires_grad_(False)
    network.encoders["text"].requires_grad_(True)
    input_names: list[set[str]] = []
    network.register_forward_pre_hook(lambda _, __, kwargs: input_names.append(set(kwargs)), with_kwargs=True)
    loss = CombinedLoss(
        pairs=[("video", "text"), ("audio", "text")],
        contrast=InfoNCE(0.5),
    )
    cache, given_inputs = GradientCache(network, Accelerator(cpu=True), ["text"], chunk=4), inputs(8)
    loss(cache.encode(given_inputs), valid(8))["loss"].backward()
    cache.backward(given_inputs)
    assert input_names == [set(given_inputs)] * 2 + [{"text", "text_mask"}] * 2
    assert {name.split(".")[1] for name in gradients(network)} == {"text"}


@given(num_rows=st.integers(1, 500), chunk=st.integers(1, 200))
def test_chunks_are_even_and_cover_all(num_rows: int, chunk: int) -> None:
    slices = chunks_of(num_rows, chunk)
    sizes = [s.stop - s.start for s in slices]
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(num_rows))
    assert max(sizes) <= chunk and max(sizes) - min(sizes) <= 1
