"""Encoders of windows: the published ResNeXt-101 compared with loops, torchvision's models with their papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trichord.errors import TrichordError
from trichord.features.network_encoder import fold_batch_norms
from trichord.features.resnext3d import ResNeXt3D, _Block, load_resnext101
from trichord.features.torchvision_compat import import_torchvision
from trichord.features.video_models import MODELS
from trichord.features.visual import load_visual_encoder, visual_encoder_info, visual_info
from trichord.media.sampling import FrameSpec

MEAN = (110.6, 103.2, 96.3)
LAYERS = {1: (3, 128), 2: (4, 256), 3: (23, 512), 4: (3, 1024)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TORCH_HOME", raising=False)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Return the key layout of the Kinetics file, from its description: no `num_batches_tracked`."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(prefix: str, width: int) -> None:
        shapes.update({f"{prefix}.{n}": (width,) for n in ("weight", "bias", "running_mean", "running_var")})

    shapes["conv1.weight"] = (64, 3, 7, 7, 7)
    norm("bn1", 64)
    width = 64
    for layer, (num_blocks, middle) in LAYERS.items():
        for block in range(num_blocks):
            prefix, out = f"layer{layer}.{block}", 2 * middle
            shapes[f"{prefix}.conv1.weight"] = (middle, width, 1, 1, 1)
            shapes[f"{prefix}.conv2.weight"] = (middle, middle // 32, 3, 3, 3)
            shapes[f"{prefix}.conv3.weight"] = (out, middle, 1, 1, 1)
            for number, channels in ((1, middle), (2, middle), (3, out)):
                norm(f"{prefix}.bn{number}", channels)
            if block == 0:
                shapes[f"{prefix}.downsample.0.weight"] = (out, width, 1, 1, 1)
                norm(f"{prefix}.downsample.1", out)
            width = out
    shapes["fc.weight"], shapes["fc.bias"] = (400, 2048), (400,)
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return weights whose signal neither vanishes nor explodes through 101 layers."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        if len(shape) == 5:
            state[key] = torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:])) ** 0.5
        elif key.endswith("running_var") or ("bn" in key or "downsample.1" in key) and key.endswith("weight"):
            state[key] = torch.rand(shape, generator=generator) * 0.4 + 0.5
        else:
            state[key] = torch.randn(shape, generator=generator) * 0.05
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_state(published_shapes())


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnext101.pth"
    torch.save({"epoch": 200, "arch": "resnext-101", "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return path


# ---- ResNeXt-101


def test_the_published_layout_is_the_networks() -> None:
    shapes = {k: tuple(v.shape) for k, v in ResNeXt3D().state_dict().items() if not k.endswith("num_batches_tracked")}
    assert shapes == published_shapes()
    # stem 7*7*7*3*64; per block in*m + 27*m*m/32 + m*2m, the first one in*2m besides; norms 2 per channel; classifier
    count = 7 * 7 * 7 * 3 * 64 + 2 * 64 + 2048 * 400 + 400
    for num_blocks, m in LAYERS.values():
        width = 64 if m == 128 else m
        first = width * m + 27 * m * m // 32 + 2 * m * m + 2 * (m + m + 2 * m) + 2 * m * width + 2 * 2 * m
        count += first + (num_blocks - 1) * (2 * m * m + 27 * m * m // 32 + 2 * m * m + 8 * m)
    assert sum(p.numel() for p in ResNeXt3D().parameters()) == count == 48_340_816


def block_by_loops(state: dict[str, np.ndarray], x: np.ndarray, stride: int, cardinality: int) -> np.ndarray:
    """Pass (C, T, H, W) through one block in float64, convolution by convolution, voxel by voxel."""

    def conv(x: np.ndarray, weight: np.ndarray, step: int, groups: int) -> np.ndarray:
        pad, (num_out, per_group, *kernel) = weight.shape[-1] // 2, weight.shape
        x = np.pad(x, ((0, 0), *((pad, pad),) * 3))
        sizes = [(n - k) // step + 1 for n, k in zip(x.shape[1:], kernel, strict=True)]
        y = np.zeros((num_out, *sizes))
        for out in range(num_out):
            begin = out // (num_out // groups) * per_group
            for t in range(sizes[0]):
                for i in range(sizes[1]):
                    for j in range(sizes[2]):
                        a, b, c = t * step, i * step, j * step
                        cube = x[begin : begin + per_group, a : a + kernel[0], b : b + kernel[1], c : c + kernel[2]]
                        y[out, t, i, j] = (cube * weight[out]).sum()
        return y

    def norm(x: np.ndarray, prefix: str) -> np.ndarray:
        mean, variance, gain, shift = (
            state[f"{prefix}.{n}"][:, None, None, None] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * gain + shift

    y = np.maximum(norm(conv(x, state["conv1.weight"], 1, 1), "bn1"), 0)
    y = np.maximum(norm(conv(y, state["conv2.weight"], stride, cardinality), "bn2"), 0)
    y = norm(conv(y, state["conv3.weight"], 1, 1), "bn3")
    short = x
    if "downsample.0.weight" in state:
        short = norm(conv(x, state["downsample.0.weight"], stride, 1), "downsample.1")
    return np.maximum(y + short, 0)


@pytest.mark.parametrize(("num_in", "stride"), [(8, 1), (8, 2), (64, 1), (64, 2)])
def test_a_block_against_loops(num_in: int, stride: int) -> None:
    torch.manual_seed(num_in + stride)
    block = _Block(num_in, planes=32, stride=stride, cardinality=4).eval()
    for key, value in block.state_dict().items():
        if key.endswith(("running_var", "running_mean")):
            value.uniform_(0.5, 1.5)
    state = {k: v.double().numpy() for k, v in block.state_dict().items()}
    assert ("downsample.0.weight" in state) == (num_in != 64 or stride != 1)
    assert state["conv2.weight"].shape == (4, 1, 3, 3, 3) and state["conv3.weight"].shape == (64, 4, 1, 1, 1)
    x = torch.randn(num_in, 4, 5, 3)
    with torch.inference_mode():
        ours = block(x[None])[0]
    expected = block_by_loops(state, x.double().numpy(), stride, 4)
    assert ours.shape == expected.shape and np.abs(ours.numpy() - expected).max() < 1e-4


def test_the_shape_of_every_layer() -> None:
    network, shapes = ResNeXt3D(((1, 32), (1, 64), (2, 64), (1, 128)), cardinality=8).eval(), []
    for name in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(lambda m, args, y: shapes.append(tuple(y.shape[1:])))
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 16, 112, 112)).shape == (2, 256)
        assert network.fc(network(torch.zeros(1, 3, 16, 32, 32))).shape == (1, 400)
    assert shapes[:5] == [(64, 16, 56, 56), (64, 8, 28, 28), (128, 4, 14, 14), (128, 2, 7, 7), (256, 1, 4, 4)]


def test_folded_batch_norms_are_the_same_function(state: dict[str, Tensor]) -> None:
    network = load_resnext101({k: v.clone() for k, v in state.items()}, Path("w"))
    windows = torch.randn(1, 3, 16, 64, 64) * 50
    with torch.inference_mode():
        plain = network(windows)
        folded = fold_batch_norms(network)(windows)
    assert plain.abs().max() > 0.1 and (plain - folded).abs().max() < 1e-3 * plain.abs().max()
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in network.modules())


def test_the_published_features(state: dict[str, Tensor], weights: Path) -> None:
    """The mean is subtracted from black filling too, values stay in 0..255, rows are normalised and do not depend on
    how windows are grouped."""
    encoder = load_visual_encoder("resnext101-3d", weights)
    assert (encoder.stream, encoder.dim, encoder.window, encoder.rate_hz) == ("visual_3d", 2048, 16, 1.5)
    assert encoder.frames == FrameSpec(24.0, short_side=112, crop=112, sampling="published")
    assert visual_encoder_info("resnext101-3d", weights) == ("visual_3d", 2048, encoder.fingerprint)
    windows = np.random.RandomState(0).randint(0, 256, (2, 16, 112, 112, 3)).astype(np.uint8)
    windows[1, 5:] = 0
    rows = encoder.encode(windows)
    assert rows.dtype == np.float16 and rows.shape == (2, 2048)
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max() < 1e-3
    parts = [encoder.encode(windows[:1]), encoder.encode(windows[1:])]
    assert np.array_equal(np.concatenate(parts), rows) and encoder.encode(windows[:0]).shape == (0, 2048)
    x = (torch.tensor(windows).float() - torch.tensor(MEAN)).permute(0, 4, 1, 2, 3)
    assert torch.allclose(encoder.prepare(windows), x, atol=1e-5)  # type: ignore[attr-defined]
    assert torch.allclose(x[1, :, 5:].mean((1, 2, 3)), -torch.tensor(MEAN), atol=1e-3)
    with torch.inference_mode():
        expected = F.normalize(load_resnext101(dict(state), weights)(x), dim=1).numpy()
    assert np.abs(rows - expected).max() < 1e-3 and np.abs(rows[0] - rows[1].astype(float)).max() > 0


def test_resnext_weights_that_are_missing_or_of_another_network(tmp_path: Path, state: dict[str, Tensor]) -> None:
    expected = (
        rf"^{tmp_path}/cache/trichord/resnext101\.pth: the weights of resnext101-3d are missing; put resnext101\.pth"
    )
    with pytest.raises(TrichordError, match=expected + r".+ there, or pass a copy with --weights_3d$"):
        visual_encoder_info("resnext101-3d")
    (tmp_path / "cache" / "trichord").mkdir(parents=True)
    (tmp_path / "cache" / "trichord" / "resnext101.pth").write_bytes(b"any")
    assert visual_info("resnext101-3d").files == (tmp_path / "cache" / "trichord" / "resnext101.pth",)
    lacking = {key: value for key, value in state.items() if not key.startswith("layer3.22.")}
    with pytest.raises(TrichordError, match=r"^w\.pth: these are not the weights of resnext101-3d \(.+--weights_3d$"):
        load_resnext101(lacking, Path("w.pth"))
    finetuned = {**state, "fc.weight": torch.zeros(101, 2048), "fc.bias": torch.zeros(101)}
    assert load_resnext101(finetuned, Path("w.pth")).fc.out_features == 101


# ---- torchvision's


@pytest.mark.parametrize("name", MODELS)
def test_the_table_against_torchvisions_own(name: str) -> None:
    model, weights = MODELS[name], import_torchvision().models.get_model_weights(name)["KINETICS400_V1"]
    own = weights.transforms()
    assert weights.url == f"https://download.pytorch.org/models/{model.file}"
    assert set(own.crop_size) == {model.frames.crop} and (tuple(own.mean), tuple(own.std)) == (model.mean, model.std)
    assert own.interpolation.value == "bilinear"
    exact = [model.frames.height, model.frames.width]
    assert own.resize_size == (exact if model.frames.width else [model.frames.short_side])
    docs = weights.meta["_docs"]
    assert f"`frame_rate={model.frames.rate_hz:g}`" in docs and f"`clip_len={model.window}`" in docs


@pytest.mark.parametrize(
    ("name", "num_windows"),
    [("r3d_18", 1), *(pytest.param(n, 2, marks=pytest.mark.slow) for n in ("r3d_18", "mvit_v2_s"))],
)
def test_a_torchvision_model_returns_the_input_of_its_classifier(name: str, num_windows: int, tmp_path: Path) -> None:
    torchvision, model = import_torchvision(), MODELS[name]
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    encoder = load_visual_encoder(f"tv:{name}", tmp_path / "w.pth")
    assert visual_encoder_info(f"tv:{name}", tmp_path / "w.pth") == ("visual_3d", model.dim, encoder.fingerprint)
    assert encoder.rate_hz == model.frames.rate_hz / model.window
    crop = model.frames.crop
    windows = np.random.RandomState(0).randint(0, 256, (num_windows, model.window, crop, crop, 3)).astype(np.uint8)
    rows = encoder.encode(windows)
    head_inputs: list[Tensor] = []
    getattr(network, model.head).register_forward_hook(lambda module, args, y: head_inputs.append(args[0]))
    own = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    with torch.inference_mode():
        x = torch.tensor(windows).permute(0, 1, 4, 2, 3).float() / 255
        x = (x - torch.tensor(own.mean)[:, None, None]) / torch.tensor(own.std)[:, None, None]
        network(x.transpose(1, 2))
    assert np.abs(rows - F.normalize(head_inputs[0], dim=1).numpy()).max() < 1e-3
    if num_windows > 1:
        assert np.array_equal(encoder.encode(windows[1:]), rows[1:])
    assert encoder.encode(windows[:1, :, :80]).shape == (1, model.dim)  # other sizes are brought to the model's


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("r3d_18", "mvit_v2_s")])
def test_every_torchvision_model(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    with torch.device("meta"):  # random weights take longer to draw than to use
        shapes = import_torchvision().models.get_model(name, weights=None).state_dict()
    torch.save(
        {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in shapes.items()}, tmp_path / "w.pth"
    )
    encoder = load_visual_encoder(f"tv:{name}", tmp_path / "w.pth")
    windows = np.zeros((1, model.window, model.frames.crop, model.frames.crop, 3), np.uint8)
    assert encoder.encode(windows).shape == (1, model.dim)


def test_unknown_torchvision_models(tmp_path: Path) -> None:
    with pytest.raises(
        TrichordError, match=r"^unknown visual encoder 'tv:r3d'; expected one of: tv:r3d_18, tv:mc3_18,"
    ):
        visual_encoder_info("tv:r3d")
    path = tmp_path / "cache/torch/hub/checkpoints/r3d_18-b3b3357e.pth"
    with pytest.raises(
        TrichordError, match=rf"^{path}: the weights of tv:r3d_18 are missing and .+ with --weights_3d$"
    ):
        visual_encoder_info("tv:r3d_18")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(TrichordError, match=r"w\.pth: these are not the weights of tv:r3d_18 \("):
        load_visual_encoder("tv:r3d_18", tmp_path / "w.pth")
