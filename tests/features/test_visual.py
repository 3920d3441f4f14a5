"""Visual encoders: known pictures are recognised, rows are normalised, wrong weights and names give errors of one line."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from trichord.errors import TrichordError
from trichord.features import efficientnet, imagenet
from trichord.features.imagenet import find_weights, split_encoder_name
from trichord.features.network_encoder import NetworkEncoder, fitted, fold_batch_norms
from trichord.features.visual import (
    list_visual_encoders,
    load_visual_encoder,
    visual_encoder_info,
    visual_info,
)
from trichord.features.weights import weights_sha256
from trichord.media.sampling import FrameSpec

PALACE_LIKE = {442, 483, 497, 538, 663, 698, 832}  # bell cote, castle, church, dome, monastery, palace, stupa
DAISY = 985


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_HOME", raising=False)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """china.jpg and flower.jpg of scikit-learn, (2, 427, 640, 3)."""
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)


@pytest.fixture(scope="module")
def encoder() -> NetworkEncoder:
    encoder = load_visual_encoder()
    assert isinstance(encoder, NetworkEncoder)
    return encoder


def lite0() -> efficientnet.EfficientNetLite0:
    model = efficientnet.EfficientNetLite0().eval()
    model.load_state_dict(torch.load(find_weights("efficientnet-lite0"), weights_only=True))
    return model


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite0-224"])
def test_known_pictures_are_recognised_from_the_features(pictures: np.ndarray, name: str) -> None:
    encoder = load_visual_encoder(name)
    assert isinstance(encoder, NetworkEncoder)
    with torch.inference_mode():
        features = encoder.network(encoder.prepare(pictures))
        top = lite0()._fc(features).topk(2).indices.tolist()
    assert set(top[0]) <= PALACE_LIKE and DAISY in top[1]  # two of 1000; the flower is a dahlia, which ImageNet lacks


def test_rows_are_normalised_half_precision_and_depend_on_their_picture_only(
    encoder: NetworkEncoder, pictures: np.ndarray
) -> None:
    frames = np.concatenate([pictures, pictures[:1], pictures[:, ::-1]])[:, ::2, ::2]
    rows = encoder.encode(frames)
    assert rows.shape == (5, 1280) == (5, encoder.dim) and rows.dtype == np.float16
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max() < 1e-3
    assert np.abs(rows[0].astype(float) - rows[2]).max() < 1e-3 and (rows[0] @ rows[1]) < 0.5
    assert encoder.encode(frames[:0]).shape == (0, 1280)
    assert np.isfinite(encoder.encode(np.zeros((1, 256, 454, 3), np.uint8))).all()


def test_resizing_and_normalisation_against_loops(encoder: NetworkEncoder) -> None:
    frames = np.random.RandomState(0).randint(0, 255, (1, 160, 200, 3), np.uint8)
    prepared = encoder.prepare(frames)
    assert prepared.shape == (1, 3, 160, 200)
    for y, x, c in ((0, 0, 0), (159, 199, 2), (31, 77, 1)):
        assert float(prepared[0, c, y, x]) == pytest.approx((frames[0, y, x, c] / 255 - 0.5) / 0.5, abs=1e-6)
    assert encoder.prepare(np.zeros((2, 256, 454, 3), np.uint8)).shape == (2, 3, 160, 283)  # as the decoder rounds
    assert encoder.prepare(np.zeros((1, 300, 100, 3), np.uint8)).shape == (1, 3, 480, 160)
    flat = encoder.prepare(np.full((1, 90, 70, 3), 255, np.uint8))
    assert torch.allclose(flat, torch.ones_like(flat))


def test_folded_batch_norms_are_the_same_function() -> None:
    model, images = lite0(), torch.randn(2, 3, 65, 96)
    with torch.inference_mode():
        plain = model(images)
        folded = fold_batch_norms(model)(images)
    assert (plain - folded).abs().max() < 1e-4 * plain.abs().max()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_against_loops(size: int, kernel: int, stride: int) -> None:
    conv = efficientnet._SameConv(1, 1, kernel, stride)
    image, weight = torch.randn(1, 1, size, size + 1), conv.weight.detach()
    with torch.no_grad():
        ours = conv(image)[0, 0]
    assert ours.shape == (-(-size // stride), -(-(size + 1) // stride))
    before = [max((n - 1) * stride + kernel - m, 0) // 2 for n, m in zip(ours.shape, (size, size + 1), strict=True)]
    for row in range(ours.shape[0]):
        for column in range(ours.shape[1]):
            total = 0.0
            for i in range(kernel):
                for j in range(kernel):
                    y, x = row * stride + i - before[0], column * stride + j - before[1]
                    if 0 <= y < size and 0 <= x < size + 1:
                        total += float(image[0, 0, y, x] * weight[0, 0, i, j])
            assert float(ours[row, column]) == pytest.approx(total, abs=1e-5)


def test_the_fingerprint_names_encoder_size_and_weights(tmp_path: Path, encoder: NetworkEncoder) -> None:
    path = find_weights("efficientnet-lite0")
    fingerprint = encoder.fingerprint
    assert (fingerprint.name, fingerprint.version) == ("efficientnet-lite0-160", "2")
    assert fingerprint.weights == weights_sha256([path]) and len(fingerprint.weights) == 64
    assert fingerprint.parameters["short_side"] == 160 and fingerprint.parameters["rows"] == "l2-normalised float16"
    assert visual_encoder_info("efficientnet-lite0") == ("visual_2d", 1280, fingerprint)
    assert (encoder.stream, encoder.window, encoder.rate_hz, encoder.batch_size) == ("visual_2d", 1, 1.0, 1)
    assert encoder.frames == FrameSpec(1.0, short_side=160)
    state = torch.load(path, weights_only=True)
    other_state = {**state, "_fc.bias": state["_fc.bias"] + 1}
    torch.save(other_state, tmp_path / "other.pth")
    other = load_visual_encoder("efficientnet-lite0", tmp_path / "other.pth")
    assert other.fingerprint.digest != fingerprint.digest
    assert visual_info("efficientnet-lite0-128").fingerprint.digest != fingerprint.digest
    save_file({key: value.contiguous() for key, value in other_state.items()}, tmp_path / "other.safetensors")
    same = load_visual_encoder("efficientnet-lite0", tmp_path / "other.safetensors")
    frames = np.full((1, 160, 160, 3), 90, np.uint8)
    assert np.array_equal(same.encode(frames), other.encode(frames))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet152", ("resnet152", 224)),
        ("EfficientNet-Lite0", ("efficientnet-lite0", 160)),
        ("efficientnet-lite0-224", ("efficientnet-lite0", 224)),
        ("resnet152-9999", None),
    ],
)
def test_names(name: str, expected: tuple[str, int] | None) -> None:
    assert split_encoder_name(name) == expected


@pytest.mark.parametrize(
    "name",
    ["resnet50", "", "efficientnet-lite0-", "efficientnet-lite0-10", "resnet152-9999", "hg:x", "hf", "resnet152:"],
)
def test_wrong_names(name: str) -> None:
    for call in (load_visual_encoder, visual_encoder_info):
        with pytest.raises(TrichordError, match=f"^unknown visual encoder '{name}'; expected efficientnet-lite0 and"):
            call(name)


def test_the_list_names_every_kind() -> None:
    names = list_visual_encoders()
    assert {"efficientnet-lite0[-SIDE]", "resnet152[-SIDE]", "hf:MODEL", "timm:MODEL", "resnext101-3d"} <= set(names)
    assert "tv:r3d_18" in names and names["tv:r3d_18"] == "torchvision, 512-d, one row per 16 pictures at 15 per second"
    assert all(line and "\n" not in line for line in names.values())


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_missing_devices(device: str) -> None:
    with pytest.raises(TrichordError, match=rf"device '{device}' cannot be used \(.+\); use cpu"):
        load_visual_encoder(device=device)


def test_wrong_weights(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=r"gone\.pth: does not exist; check --weights_2d or leave it out"):
        load_visual_encoder("resnet152", tmp_path / "gone.pth")
    (tmp_path / "a.pth").write_bytes(b"not weights")
    with pytest.raises(TrichordError, match=r"a\.pth: is not a readable weights file \(.+\); replace it"):
        load_visual_encoder("efficientnet-lite0", tmp_path / "a.pth")
    torch.save({"_fc.weight": torch.zeros(1)}, tmp_path / "b.pth")
    for name in ("efficientnet-lite0", "resnet152"):
        with pytest.raises(TrichordError, match=rf"b\.pth: these are not the weights of {name} \(.+--weights_2d"):
            load_visual_encoder(name, tmp_path / "b.pth")


def test_resnet152_offline_names_the_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "cache" / "torch" / "hub" / "checkpoints"
    with pytest.raises(TrichordError) as caught:
        visual_encoder_info("resnet152")
    message = str(caught.value)
    assert message.startswith(
        f"{folder}/resnet152-394f9c45.pth: the weights of resnet152 are missing and HF_HUB_OFFLINE"
    )
    assert message.endswith(
        "put https://download.pytorch.org/models/resnet152-394f9c45.pth there, or pass a copy with --weights_2d"
    )
    with pytest.raises(TrichordError, match="the weights of resnet152 are missing; put https"):
        find_weights("resnet152", download=False)
    folder.mkdir(parents=True)
    (folder / "resnet152-394f9c45.pth").touch()
    assert find_weights("resnet152") == folder / "resnet152-394f9c45.pth"


def test_resnet152_pools_the_last_feature_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.features.torchvision_compat import import_torchvision

    assert import_torchvision() is import_torchvision()
    model = import_torchvision().models.resnet152(weights=None).eval()
    monkeypatch.setattr(imagenet, "read_state", lambda path: model.state_dict())
    (tmp_path / "w.pth").write_bytes(b"stands for 240 MB")
    encoder = load_visual_encoder("resnet152-64", tmp_path / "w.pth")
    assert encoder.dim == 2048 and encoder.fingerprint.name == "resnet152-64"
    assert encoder.frames == FrameSpec(1.0, short_side=64, sampling="published")
    assert visual_info("resnet152", tmp_path / "w.pth").frames == FrameSpec(1.0, short_side=224, sampling="published")
    frames = np.random.RandomState(0).randint(0, 255, (2, 64, 100, 3), np.uint8)
    rows = encoder.encode(frames)
    x = torch.tensor(frames).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.inference_mode():
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    expected = F.normalize(x.mean((2, 3)), dim=1)
    assert rows.dtype == np.float16 and np.abs(rows - expected.numpy()).max() < 1e-3


def test_rows_do_not_depend_on_how_pictures_are_grouped(encoder: NetworkEncoder, pictures: np.ndarray) -> None:
    """Compared bit for bit, and from several threads at once, as the extractor calls the encoder."""
    frames = np.stack([np.roll(pictures[i % 2, ::2, ::2], i * 7, 1) for i in range(9)])
    whole = encoder.encode(frames)
    assert not np.array_equal(whole[0], whole[2])
    for cuts in ([1], [2, 3], [1, 4, 8], list(range(1, 9))):
        parts = np.split(frames, cuts)
        with ThreadPoolExecutor(3) as pool:
            assert np.array_equal(np.concatenate(list(pool.map(encoder.encode, parts))), whole)


def test_padding_of_a_batch_has_no_effect(encoder: NetworkEncoder, pictures: np.ndarray) -> None:
    """Runs the GPU implementation on the CPU: batches of at most 4, padded with black pictures to a power of two."""
    frames = np.concatenate([pictures] * 4)[:7, ::4, ::4]
    batched = replace(encoder, batch_size=4)
    sizes: list[int] = []
    batched.network = lambda images: (sizes.append(len(images)), encoder.network(images))[1]
    rows = batched.encode(frames)
    assert rows.shape == (7, 1280) and sizes == [4, 4]
    assert np.abs(rows.astype(np.float32) - encoder.encode(frames)).max() < 1e-3
    assert np.array_equal(batched.encode(frames), rows)
    sizes.clear()
    assert np.abs(batched.encode(frames[:1]).astype(np.float32) - rows[:1]).max() < 1e-3
    batched.encode(frames[:6])
    assert sizes == [1, 4, 2]


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (FrameSpec(short_side=20), (20, 35)),
        (FrameSpec(short_side=20, crop=20), (20, 20)),
        (FrameSpec(short_side=20, crop=12), (12, 12)),
        (FrameSpec(width=31, height=17), (17, 31)),
        (FrameSpec(width=31, height=27, crop=24), (24, 24)),
    ],
)
def test_pictures_of_other_sizes_are_fitted_as_the_decoder_would(spec: FrameSpec, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 40, 71) * 255
    ours = fitted(images, spec)
    assert ours.shape == (2, 3, *size) and ours.min() >= 0 and ours.max() <= 255
    assert fitted(ours, spec).data_ptr() == ours.data_ptr()  # the decoder's pictures are left as they are
    ramp = torch.arange(71.0).expand(1, 3, 40, 71)
    middle = fitted(ramp, spec)[0, 0].mean()
    assert float(middle) == pytest.approx(35, abs=1.2)  # cut from the middle, to half a pixel of the scaled picture


@given(st.integers(16, 90), st.integers(16, 90), st.integers(16, 40))
def test_fitted_pictures_have_the_size_that_the_specification_states(height: int, width: int, side: int) -> None:
    spec = FrameSpec(short_side=side)
    fitted_width, fitted_height = spec.size_of(width, height)
    ours = fitted(torch.full((1, 3, height, width), 77.0), spec)
    assert ours.shape == (1, 3, fitted_height, fitted_width) and min(ours.shape[2:]) == side
    assert torch.allclose(ours, torch.full_like(ours, 77.0), atol=1e-3)


def test_fingerprints_need_no_torch(tmp_path: Path) -> None:
    """The parent process of the extractor needs fingerprints but no network."""
    (tmp_path / "w.pth").write_bytes(b"any")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "m" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code = f"""
import sys
from pathlib import Path
from trichord.features.visual import visual_encoder_info
weights = Path({str(tmp_path / "w.pth")!r})
for name, file in (("efficientnet-lite0", None), ("resnet152", weights), ("resnext101-3d", weights),
                   ("tv:swin3d_b", weights), ({f"hf:{tmp_path / 'm'}"!r}, None)):
    print(visual_encoder_info(name, file)[2])
assert not {{"torch", "torchvision", "transformers", "timm"}} & set(sys.modules), sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert [line.split("/v")[0] for line in done.stdout.splitlines()] == [
        "efficientnet-lite0-160", "resnet152-224", "resnext101-3d", "tv:swin3d_b", "hf:m",
    ]  # fmt: skip


def test_the_package_is_cheap_to_import() -> None:
    code = "import sys, trichord.features; assert not {'torch', 'librosa', 'av', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
