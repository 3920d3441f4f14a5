"""Image models of timm (`timm:MODEL`, such as `timm:resnet50.a1_in1k`) as visual encoders.

The feature is the pooled output of the model without its classifier (`num_classes=0`). Size, crop, mean and standard deviation
are those of the model (`resolve_data_config`). The table of models is part of timm, so even a fingerprint needs timm and torch.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trichord.errors import TrichordError, one_line
from trichord.features.encoders import Fingerprint
from trichord.features.network_encoder import NetworkEncoder, Preparation, VisualInfo, network_encoder, parameters_of
from trichord.features.weights import hugging_face_file, named_file, weights_sha256
from trichord.media.sampling import FrameSpec

if TYPE_CHECKING:
    import torch

OPTION = "--weights_2d"
_RATE_HZ = 1.0  # pictures per second


def describe(name: str, weights: Path | None = None) -> VisualInfo:
    """Describe the encoder `timm:MODEL[.TAG]`.

    Args:
        name: The name of the encoder.
        weights: A weights file to use instead of the published one.

    Raises:
        TrichordError: timm has no such model, or its weights are missing.
    """
    model, config = _config_of(name)
    data = _data_of(model, config)
    frames = frames_of(data)
    if weights is not None:
        path = named_file(weights, OPTION)
    elif config.get("hf_hub_id"):
        hub_id = config["hf_hub_id"]
        repo = f"{hub_id}{model}" if hub_id.endswith("/") else hub_id
        path = hugging_face_file(repo, ("model.safetensors", "pytorch_model.bin"), f"timm:{model}", OPTION)
    else:
        raise TrichordError(f"timm:{model}: it has no published weights; pass a weights file with {OPTION}")
    parameters = parameters_of(
        frames,
        mean=list(data["mean"]),
        std=list(data["std"]),
        interpolation=_interpolation(data),
        pooling="the model's",
    )
    return VisualInfo(
        "visual_2d", Fingerprint(f"timm:{model}", "1", parameters, weights_sha256([path])), frames, files=(path,)
    )


def frames_of(data: dict[str, Any]) -> FrameSpec:
    """Return the evaluation transform of timm: short side to size / crop_pct, then a center crop; `squash` scales both sides."""
    height, width = data["input_size"][1:]
    if height != width:
        return FrameSpec(_RATE_HZ, width=width, height=height)
    side = math.floor(height / data["crop_pct"])
    if data.get("crop_mode") == "squash":
        return FrameSpec(_RATE_HZ, width=side, height=side, crop=height)
    return FrameSpec(_RATE_HZ, short_side=side, crop=height)


def build(info: VisualInfo, device: str = "cpu") -> NetworkEncoder:
    """Build the encoder.

    Raises:
        TrichordError: The weights belong to another network.
    """
    model, config = _config_of(info.fingerprint.name)
    data = _data_of(model, config)
    network = _network(model, config.get("num_classes") or 0, info.files[0])
    preparation = Preparation(tuple(data["mean"]), tuple(data["std"]), interpolation=_interpolation(data))
    return network_encoder(info, network, preparation, device)


def _network(model: str, num_classes: int, path: Path) -> torch.nn.Module:
    """Build the model without its classifier. The file may contain a classifier or not; all other keys must match."""
    import pickle

    from safetensors import SafetensorError

    from trichord.files.torch_files import check_torch_file

    check_torch_file(path)
    timm, reason = _timm(), ""
    for classes in dict.fromkeys(
        (num_classes, 0)
    ):  # timm checks keys strictly only if the number of classes matches the file
        overlay = {"file": str(path), "num_classes": classes, "custom_load": False}
        try:
            network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes)
        except (
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            EOFError,
            SafetensorError,
            pickle.UnpicklingError,
        ) as error:
            reason = reason or one_line(error)[:160]
            continue
        network.reset_classifier(0)
        return network
    raise TrichordError(
        f"{path}: these are not the weights of timm:{model} ({reason}); pass the correct file with {OPTION}"
    )


def _config_of(name: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the model with its tag, and its entry in timm's table."""
    timm, model = _timm(), name.removeprefix("timm:")
    entry = None
    if timm.is_model(model.partition(".")[0]):
        entry = timm.get_pretrained_cfg(model, allow_unregistered=False) if _has_tag(timm, model) else None
    if entry is None:
        similar = timm.list_models(f"*{model.partition('.')[0]}*", pretrained=True)[:4] if model else []
        hint = f"similar names: {', '.join(similar)}" if similar else "`timm.list_models()` lists all models"
        raise TrichordError(f"timm:{model}: timm {timm.__version__} has no such model; {hint}")
    config = entry.to_dict()
    architecture = model.partition(".")[0]
    return (f"{architecture}.{config['tag']}" if config.get("tag") else architecture), config


def _has_tag(timm: ModuleType, model: str) -> bool:
    architecture, _, tag = model.partition(".")
    return not tag or model in timm.list_models(f"{architecture}.*", pretrained=True, include_tags=True)


def _data_of(model: str, config: dict[str, Any]) -> dict[str, Any]:
    _timm()
    from timm.data import resolve_data_config

    data = resolve_data_config({}, pretrained_cfg=config)
    if data["input_size"][0] != 3:
        raise TrichordError(
            f"timm:{model}: expects {data['input_size'][0]} channels, but pictures have 3; choose another model"
        )
    return data


def _interpolation(data: dict[str, Any]) -> str:
    return "bilinear" if data.get("interpolation") in ("bilinear", "random") else "bicubic"


def _timm() -> ModuleType:
    """Return the timm module.

    Raises:
        TrichordError: timm is not installed.
    """
    from trichord.features.torchvision_compat import import_torchvision

    import_torchvision()  # timm imports torchvision, which may fail otherwise
    try:
        import timm
    except ImportError:
        raise TrichordError("timm:MODEL needs the package timm; run: pip install timm") from None
    return timm
