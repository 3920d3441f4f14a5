"""Networks for windows of pictures: `resnext101-3d` of the published features, and those of torchvision (`tv:MODEL`).

Sizes, rates and window lengths of torchvision's networks are those at which their Kinetics-400 weights were evaluated, according
to their documentation. The feature is the input of the classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trichord.errors import TrichordError
from trichord.features.encoders import Fingerprint
from trichord.features.network_encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NetworkEncoder,
    Preparation,
    Triple,
    VisualInfo,
    fit_state,
    fold_batch_norms,
    network_encoder,
    parameters_of,
)
from trichord.features.weights import cache_folder, named_file, read_state, torch_hub_file, weights_sha256
from trichord.media.sampling import FrameSpec

if TYPE_CHECKING:
    import torch

OPTION = "--weights_3d"
RESNEXT = "resnext101-3d"
_RESNEXT_FRAMES = FrameSpec(24.0, short_side=112, crop=112, sampling="published")
_RESNEXT_PREPARATION = Preparation((110.6, 103.2, 96.3), (1.0, 1.0, 1.0), scale=1.0)
_KINETICS_MEAN, _KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
_HUB = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class _Model:
    """A torchvision model: weights file, picture size before the crop (exact, or the short side), crop and window."""

    file: str
    head: str  # the name of the classifier, which is removed
    dim: int
    frames: FrameSpec
    window: int
    mean: Triple
    std: Triple


def _resnet(file: str) -> _Model:
    frames = FrameSpec(15.0, width=171, height=128, crop=112)
    return _Model(file, "fc", 512, frames, 16, _KINETICS_MEAN, _KINETICS_STD)


def _mvit(file: str) -> _Model:
    return _Model(file, "head", 768, FrameSpec(7.5, short_side=256, crop=224), 16, (0.45,) * 3, (0.225,) * 3)


def _swin(file: str, dim: int) -> _Model:
    return _Model(file, "head", dim, FrameSpec(15.0, short_side=256, crop=224), 32, IMAGENET_MEAN, IMAGENET_STD)


_S3D_FRAMES = FrameSpec(15.0, width=256, height=256, crop=224)
MODELS = {
    "r3d_18": _resnet("r3d_18-b3b3357e.pth"),
    "mc3_18": _resnet("mc3_18-a90a0ba3.pth"),
    "r2plus1d_18": _resnet("r2plus1d_18-91a641e6.pth"),
    "s3d": _Model("s3d-d76dad2f.pth", "classifier", 1024, _S3D_FRAMES, 128, _KINETICS_MEAN, _KINETICS_STD),
    "mvit_v1_b": _mvit("mvit_v1_b-dbeb1030.pth"),
    "mvit_v2_s": _mvit("mvit_v2_s-ae3be167.pth"),
    "swin3d_t": _swin("swin3d_t-7615ae03.pth", 768),
    "swin3d_s": _swin("swin3d_s-da41c237.pth", 768),
    "swin3d_b": _swin("swin3d_b_1k-24f7c7c6.pth", 1024),
}


def describe(name: str, weights: Path | None = None) -> VisualInfo:
    """Describe the encoder `resnext101-3d` or `tv:MODEL`.

    Args:
        name: The name of the encoder.
        weights: A weights file to use instead of the published one.

    Raises:
        TrichordError: The model is unknown, or its weights are missing.
    """
    if name == RESNEXT:
        path = _resnext_weights(weights)
        parameters = parameters_of(_RESNEXT_FRAMES, 16, mean=list(_RESNEXT_PREPARATION.mean), pooling="mean")
        fingerprint = Fingerprint(RESNEXT, "1", parameters, weights_sha256([path]))
        return VisualInfo("visual_3d", fingerprint, _RESNEXT_FRAMES, 16, 2048, (path,))
    model = MODELS.get(name.removeprefix("tv:"))
    if model is None:
        raise TrichordError(f"unknown visual encoder '{name}'; expected one of: {', '.join(f'tv:{m}' for m in MODELS)}")
    path = named_file(weights, OPTION) if weights is not None else torch_hub_file(_HUB + model.file, name, OPTION)
    parameters = parameters_of(model.frames, model.window, embedding=f"input of {model.head}")
    fingerprint = Fingerprint(name, "1", parameters, weights_sha256([path]))
    return VisualInfo("visual_3d", fingerprint, model.frames, model.window, model.dim, (path,))


def _resnext_weights(weights: Path | None) -> Path:
    """Return the published weights file. It has no URL for downloads, so it must be named or be in this library's cache."""
    if weights is not None:
        return named_file(weights, OPTION)
    path = cache_folder() / "resnext101.pth"
    if not path.is_file():
        problem = "the weights of resnext101-3d are missing; put resnext101.pth of the video_feature_extractor release"
        raise TrichordError(f"{path}: {problem} (Kinetics, 2048-d) there, or pass a copy with {OPTION}")
    return path


def build(info: VisualInfo, device: str = "cpu") -> NetworkEncoder:
    """Build the encoder.

    Raises:
        TrichordError: The weights belong to another network.
    """
    path, name = info.files[0], info.fingerprint.name
    state = read_state(path)
    if name == RESNEXT:
        from trichord.features.resnext3d import load_resnext101

        network = fold_batch_norms(load_resnext101(state, path))
        return network_encoder(info, network, _RESNEXT_PREPARATION, device)
    model = MODELS[name.removeprefix("tv:")]
    network = _torchvision_model(name, model, state, path)
    return network_encoder(info, network, Preparation(model.mean, model.std, interpolation="bilinear"), device)


def _torchvision_model(name: str, model: _Model, state: dict[str, torch.Tensor], path: Path) -> torch.nn.Module:
    """Build the network without its classifier."""
    import torch

    from trichord.features.torchvision_compat import import_torchvision

    with torch.device("meta"):
        network = import_torchvision().models.get_model(name.removeprefix("tv:"), weights=None)
    setattr(network, model.head, torch.nn.Identity())
    state = {key: value for key, value in state.items() if not key.startswith(f"{model.head}.")}
    fit_state(network, state, path, name, OPTION)
    return network
