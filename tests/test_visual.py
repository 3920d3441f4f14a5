"""Visual encoders: known pictures are recognised, rows are normalised, wrong weights and names get one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from trichord.errors import TrichordError
from trichord.features import efficientnet, visual
from trichord.features.visual import ImageEncoder, find_weights, load_visual_encoder, split_encoder_name

PALACE_LIKE = {442, 483, 497, 538, 663, 698, 832}  # bell cote, castle, church, dome, monastery, palace, stupa
DAISY = 985


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """china.jpg and flower.jpg of scikit-learn, (2, 427, 640, 3)."""
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    encoder = load_visual_encoder()
    assert isinstance(encoder, ImageEncoder)
    return encoder


def lite0() -> efficientnet.EfficientNetLite0:
    return efficientnet.load_efficientnet_lite0(torch.load(find_weights("efficientnet-lite0"), weights_only=True))


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite0-224"])
def test_known_pictures_are_recognised_from_the_features(pictures: np.ndarray, name: str) -> None:
    encoder = load_visual_encoder(name)
    assert isinstance(encoder, ImageEncoder)
    with torch.inference_mode():
        features = encoder.network(encoder._prepared(pictures))
        top = lite0()._fc(features).topk(2).indices.tolist()
    assert set(top[0]) <= PALACE_LIKE and top[1][0] == DAISY


def test_rows_are_normalised_half_precision_and_depend_on_their_picture_only(
    encoder: ImageEncoder, pictures: np.ndarray
) -> None:
    frames = np.concatenate([pictures, pictures[:1], pictures[:, ::-1]])[:, ::2, ::2]
    rows = encoder.encode(frames)
    assert rows.shape == (5, 1280) == (5, encoder.dim) and rows.dtype == np.float16
    assert np.abs(np.linalg.norm(rows.astype(np.float64), axis=1) - 1).max() < 1e-3
    assert np.abs(rows[0].astype(float) - rows[2]).max() < 1e-3 and (rows[0] @ rows[1]) < 0.5
    assert encoder.encode(frames[:0]).shape == (0, 1280)
    assert np.isfinite(encoder.encode(np.zeros((1, 256, 454, 3), np.uint8))).all()


def test_resizing_and_normalisation_against_loops(encoder: ImageEncoder) -> None:
    frames = np.random.RandomState(0).randint(0, 255, (1, 160, 200, 3), np.uint8)
    prepared = encoder._prepared(frames)
    assert prepared.shape == (1, 3, 160, 200)
    for y, x, c in ((0, 0, 0), (159, 199, 2), (31, 77, 1)):
        assert float(prepared[0, c, y, x]) == pytest.approx((frames[0, y, x, c] / 255 - 0.5) / 0.5, abs=1e-6)
    assert encoder._prepared(np.zeros((2, 256, 454, 3), np.uint8)).shape == (2, 3, 160, 284)
    assert encoder._prepared(np.zeros((1, 300, 100, 3), np.uint8)).shape == (1, 3, 480, 160)
    flat = encoder._prepared(np.full((1, 90, 70, 3), 255, np.uint8))
    assert torch.allclose(flat, torch.ones_like(flat))


def test_folded_batch_norms_are_the_same_function() -> None:
    model, images = lite0(), torch.randn(2, 3, 65, 96)
    with torch.inference_mode():
        plain = model(images)
        folded = efficientnet.fold_batch_norms(model)(images)
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


def test_the_fingerprint_names_encoder_size_and_weights(tmp_path: Path, encoder: ImageEncoder) -> None:
    assert encoder.name == "efficientnet-lite0-160" and encoder.rate_hz == 1.0
    assert encoder.fingerprint.startswith("efficientnet-lite0-160/v1/")
    state = torch.load(find_weights("efficientnet-lite0"), weights_only=True)
    other_state = {**state, "_fc.bias": state["_fc.bias"] + 1}
    torch.save(other_state, tmp_path / "other.pth")
    other = load_visual_encoder("efficientnet-lite0", tmp_path / "other.pth")
    assert other.fingerprint != encoder.fingerprint
    assert load_visual_encoder("efficientnet-lite0-128").fingerprint != encoder.fingerprint
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
    ],
)
def test_names(name: str, expected: tuple[str, int]) -> None:
    assert split_encoder_name(name) == expected


@pytest.mark.parametrize("name", ["resnet50", "", "efficientnet-lite0-", "efficientnet-lite0-10", "resnet152-9999"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(
        TrichordError, match=f"unknown visual encoder '{name}'; known are efficientnet-lite0 and resnet152"
    ):
        load_visual_encoder(name)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(TrichordError, match=rf"device '{device}' cannot be used \(.+\); use cpu"):
        load_visual_encoder(device=device)


def test_wrong_weights(tmp_path: Path) -> None:
    with pytest.raises(TrichordError, match=r"gone\.pth: no such weights file; check --weights or leave it out"):
        load_visual_encoder("resnet152", tmp_path / "gone.pth")
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(TrichordError, match=rf"{name}: is not a readable weights file \(.+\); replace it"):
            load_visual_encoder("efficientnet-lite0", tmp_path / name)
    torch.save({"_fc.weight": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(TrichordError, match=r"b\.pth: these weights are not those of efficientnet-lite0 \(.+--weights"):
        load_visual_encoder("efficientnet-lite0", tmp_path / "b.pth")
    torch.save({"epoch": 3}, tmp_path / "c.pth")
    with pytest.raises(TrichordError, match=r"c\.pth: holds no plain state dict; save the model's state_dict\(\)"):
        load_visual_encoder("efficientnet-lite0", tmp_path / "c.pth")


def test_weights_never_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    torch.save({"_fc.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(TrichordError, match="is not a readable weights file"):
        load_visual_encoder("efficientnet-lite0", tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_resnet152_offline_says_which_file_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(TrichordError) as caught:
        load_visual_encoder("resnet152")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/checkpoints/resnet152-394f9c45.pth: the weights of resnet152 are needed")
    assert "put https://download.pytorch.org/models/resnet152-394f9c45.pth there, or name a copy" in message
    assert "\n" not in message
    with pytest.raises(TrichordError, match="and it is not there; put https"):
        find_weights("resnet152", download=False)
    (tmp_path / "checkpoints" / "resnet152-394f9c45.pth").touch()
    assert find_weights("resnet152") == tmp_path / "checkpoints" / "resnet152-394f9c45.pth"


def test_resnet152_pools_the_last_feature_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trichord.features.torchvision_compat import import_torchvision

    assert import_torchvision() is import_torchvision()
    model = import_torchvision().models.resnet152(weights=None).eval()
    monkeypatch.setattr(visual, "_read_weights", lambda path: model.state_dict())
    (tmp_path / "w.pth").write_bytes(b"stands for 240 MB")
    encoder = load_visual_encoder("resnet152-64", tmp_path / "w.pth")
    assert encoder.dim == 2048 and encoder.name == "resnet152-64"
    frames = np.random.RandomState(0).randint(0, 255, (2, 64, 100, 3), np.uint8)
    rows = encoder.encode(frames)
    x = torch.tensor(frames).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.inference_mode():
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        x = model.layer4(model.layer3(model.layer2(model.layer1(x))))
    expected = F.normalize(x.mean((2, 3)), dim=1)
    assert rows.dtype == np.float16 and np.abs(rows - expected.numpy()).max() < 1e-3


def test_the_package_is_cheap_to_import() -> None:
    code = "import sys, trichord.features; assert not {'torch', 'librosa', 'av', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
