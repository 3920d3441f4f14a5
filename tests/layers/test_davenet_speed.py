"""Fast implementations of DAVEnet compared with slow ones: clip by clip in float64, and the library's convolution."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from trichord.layers import packed_conv
from trichord.layers.packed_conv import time_convolution, weight_gradient
from trichord.nn import DAVEnet

CHANNELS = (6, 8, 8, 10)


def network(**changes: object) -> DAVEnet:
    torch.manual_seed(0)
    net = DAVEnet(5, CHANNELS)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "bn" in name or "downsample.1" in name:
                value.add_(0.3 * torch.randn_like(value))
    for name, value in changes.items():
        setattr(net, name, value)
    return net


def clip_by_clip(net: DAVEnet, clips: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the features of each clip (M, n): convolutions of one clip at a time, with statistics over the steps of all."""

    def norm(layer: torch.nn.BatchNorm2d, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        steps = torch.cat([part[0, :, 0] for part in parts], 1)
        mean, var = layer.running_mean, layer.running_var
        if layer.training and steps.shape[1] >= 2:
            mean, var = steps.mean(1), steps.var(1, unbiased=False)
            with torch.no_grad():
                layer.running_mean.mul_(0.9).add_(0.1 * mean)
                layer.running_var.mul_(0.9).add_(0.1 * steps.var(1))
        scale = layer.weight / (var + layer.eps).sqrt()
        return [(p - mean[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None] for p in parts]

    parts = [functional.relu(p) for p in norm(net.bn1, [net.conv1(clip[None, None]) for clip in clips])]
    for i in range(1, 5):
        for block in net.get_submodule(f"layer{i}"):
            inner = [functional.relu(p) for p in norm(block.bn1, [block.conv1(p) for p in parts])]
            outer = norm(block.bn2, [block.conv2(p) for p in inner])
            if block.downsample is not None:
                parts = norm(block.downsample[1], [block.downsample[0](p) for p in parts])
            parts = [functional.relu(a + b) for a, b in zip(outer, parts, strict=True)]
    return [part[0, :, 0] for part in parts]


@settings(max_examples=15, deadline=None)
@given(
    frames=st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(any),
    more=st.integers(0, 40),
    training=st.booleans(),
)
def test_masked_network_is_that_of_the_clips_alone(frames: list[int], more: int, training: bool) -> None:
    """Features, running statistics and gradients."""
    net = network().double().train(training)
    slow = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(sum(frames))
    audio = torch.randn(len(frames), 5, max(frames) + more, generator=generator, dtype=torch.float64)
    output = net(audio, torch.tensor(frames))
    there = [i for i, n in enumerate(frames) if n]
    expected = clip_by_clip(slow, [audio[i, :, : frames[i]] for i in there])
    whole = torch.zeros(output.shape, dtype=torch.float64)
    for i, features in zip(there, expected, strict=True):
        whole[i, :, : features.shape[1]] = features
    near(output, whole, 1e-9)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (output * weights).sum().backward()
    (whole * weights).sum().backward()
    for (name, a), b in zip(net.named_parameters(), slow.parameters(), strict=True):
        near(a.grad, b.grad, 1e-7, name)
    for (name, a), b in zip(net.named_buffers(), slow.buffers(), strict=True):
        if "num_batches" not in name:
            near(a, b, 1e-9, name)


def near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, name: str = "") -> None:
    """Check a tolerance relative to the largest value, or to one."""
    far = (actual.double() - expected).abs().max().item()
    assert far <= tolerance * max(1.0, expected.abs().max().item()), f"{name} {far}"


def test_in_float32_the_switch_changes_nothing() -> None:
    audio = torch.randn(4, 5, 150, generator=torch.Generator().manual_seed(3))
    for frames in (torch.tensor([150, 3, 77, 120]), torch.tensor([90, 3, 77, 64]), None):
        results = []
        for fast in (True, False):
            net = network(fast=fast).train()
            features = net(audio, frames)
            features.square().mean().backward()
            results.append((features, *net.buffers(), *(p.grad for p in net.parameters())))
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
@settings(max_examples=15, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 21)),
    stride=st.sampled_from([1, 2]),
    width=st.sampled_from([3, 9]),
    rows=st.sampled_from([1, 20, 10_000]),
)
def test_time_convolution(
    cache_bytes: int, sizes: tuple[int, int, int, int], stride: int, width: int, rows: int
) -> None:
    """Compares values and gradients with the library in float64, for every implementation and number of products."""
    clips, inputs, outputs, steps = sizes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(clips, inputs, 1, steps, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(outputs, inputs, 1, width, generator=generator).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    exact_w = weight.detach().bfloat16().double().requires_grad_()
    expected = functional.conv2d(exact_x, exact_w, stride=(1, stride), padding=(0, width // 2))
    grad = torch.randn(expected.shape, generator=generator).bfloat16()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CACHE_BYTES", cache_bytes), ("PRODUCT_ROWS", rows)):
            patch.setattr(packed_conv, name, value)
        y = time_convolution(x, weight, stride)
        y.backward(grad)
    expected.backward(grad.double())
    assert y.shape == expected.shape and y.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32
    near(y, expected, 0.01)
    near(x.grad, exact_x.grad, max(0.01, width * 2**-9))  # a sum over the taps in bfloat16, as in torch
    near(weight.grad, exact_w.grad, 0.01)
    assert weight.grad.is_contiguous()


def test_gradients_of_all_weight_taps_are_cleared() -> None:
    """A clip of one step reaches only the middle tap: the gradients of the others are zero, whatever the memory held before.

    The bfloat16 gradient of torch 2.13 returns previous contents of the memory, at stride 2 on a CPU.
    """
    x = torch.ones(1, 16, 1, 1, dtype=torch.bfloat16)
    for _ in range(3):
        junk = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in (144, 2304, 4608) * 3]
        del junk
        weight = torch.ones(16, 16, 1, 9, requires_grad=True)
        time_convolution(x, weight, 2).sum().backward()
        expected = torch.zeros(16, 16, 1, 9)
        expected[..., 4] = 1.0
        assert torch.equal(weight.grad, expected)


def test_products_add_up_in_float32() -> None:
    """Many products of few rows do not lose precision as a sum in bfloat16 would."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(600, 2, 1, 4, generator=generator).bfloat16()
    grad = torch.rand(600, 3, 1, 4, generator=generator).bfloat16()
    whole = weight_gradient(x, grad, 9, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_conv, "PRODUCT_ROWS", 8)
        parts = weight_gradient(x, grad, 9, 1)
    torch.testing.assert_close(parts, whole, rtol=0.005, atol=0.0)


@pytest.mark.parametrize("frozen", ["weights", "nothing"])
def test_bf16_is_as_near_to_float32_as_the_plain_way(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_conv, "CACHE_BYTES", 1000)
    audio = torch.randn(6, 5, 200, generator=torch.Generator().manual_seed(2))
    frames = torch.tensor([200, 150, 90, 16, 1, 33])

    def run(fast: bool, low: bool) -> list[torch.Tensor]:
        net = network(fast=fast).train()
        sound = audio.clone().requires_grad_()
        if frozen == "weights":
            net.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            features = net(sound, frames)
        features.float().square().mean().backward()
        return [features.float(), sound.grad, *(p.grad for p in net.parameters() if p.grad is not None)]

    exact, fast, plain = run(False, False), run(True, True), run(False, True)
    assert len(exact) == len(fast) == (2 if frozen == "weights" else 2 + len(list(network().parameters())))

    def far(tensors: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([(a - b).norm() / b.norm() for a, b in zip(tensors, exact, strict=True)])

    assert far(fast)[0] < 0.05 and far(fast).mean() < 1.3 * far(plain).mean() + 0.01
    assert all(torch.equal(a, b) for a, b in zip(fast, run(True, True), strict=True)), "the same bits each time"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_kept_memory_is_not_cleared_again() -> None:
    """Blocks that are allocated and freed in turn cause few page faults once they are kept."""
    code = (
        "import resource, sys, numpy as np\n"
        "from trichord.training.memory import keep_freed_memory\n"
        "kept = keep_freed_memory() if sys.argv[1] == 'keep' else None\n"
        "for i in range(6):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    np.empty(8 << 20).fill(1.0)\n"
        "print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )

    def faults(option: str) -> tuple[str, int]:
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True)
        kept, number = done.stdout.split()
        return kept, int(number)

    kept, number = faults("keep")
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    assert number < 100


def test_the_layout_of_the_spectrogram_does_not_matter() -> None:
    """Frames one after the other, as the reader returns them, and time as the last axis give the same bits."""
    num_frames = torch.tensor([90, 33, 90])
    torch.manual_seed(1)
    stored = -80 * torch.rand(3, 90, 5)
    results = []
    for spectrogram in (stored.transpose(1, 2), stored.transpose(1, 2).contiguous()):
        net = network()
        out = net(spectrogram, num_frames)
        out.square().mean().backward()
        results.append([out.detach(), *(p.grad for p in net.parameters())])
    assert len(results[0]) > 10 and all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_weights_on_the_meta_device_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, `normal_` does nothing but import the compiler of torch, which takes seconds."""

    def refuse(*_: object) -> None:
        raise AssertionError("normal_ was called")

    monkeypatch.setattr(torch.nn.init, "normal_", refuse)
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in DAVEnet().parameters())
    with pytest.raises(AssertionError, match="normal_ was called"):
        DAVEnet()
