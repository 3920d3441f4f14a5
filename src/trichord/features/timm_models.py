"""Image models of timm (`timm:MODEL`, such as `timm:resnet50.a1_in1k`) as visual encoders.

The feature is the model's own pooled output without the classifier (`num_classes=0`). Size, crop, mean and std are the
model's (`resolve_data_config`). The table of models is timm's, so that even a fingerprint needs timm, hence torch.
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


def describe(name: str, weights: Path | None = None) -> VisualInfo:
    """`timm:MODEL[.TAG]`. Raises TrichordError for a model that timm lacks and for weights that are missing."""
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
        raise TrichordError(f"timm:{model}: no weights of it are published; name a file with {OPTION}")
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


def frames_of(data: dict[str, Any], rate_hz: float = 1.0) -> FrameSpec:
    """timm's evaluation transform: short side to size / crop_pct, then the middle; `squash` scales both sides."""
    height, width = data["input_size"][1:]
    if height != width:
        return FrameSpec(rate_hz, width=width, height=height)
    side = math.floor(height / data["crop_pct"])
    if data.get("crop_mode") == "squash":
        return FrameSpec(rate_hz, width=side, height=side, crop=height)
    return FrameSpec(rate_hz, short_side=side, crop=height)


def build(info: VisualInfo, device: str = "cpu") -> NetworkEncoder:
    """The encoder. Raises TrichordError for weights that do not fit."""
    model, config = _config_of(info.fingerprint.name)
    data = _data_of(model, config)
    network = _network(model, config.get("num_classes") or 0, info.files[0])
    preparation = Preparation(tuple(data["mean"]), tuple(data["std"]), interpolation=_interpolation(data))
    return network_encoder(info, network, preparation, device)


def _network(model: str, num_classes: int, path: Path) -> torch.nn.Module:
    """The model without its classifier; the file may hold one or not, all other keys must fit."""
    import pickle

    from safetensors import SafetensorError

    from trichord.files.torch_files import check_torch_file

    check_torch_file(path)
    timm, reason = _timm(), ""
    for classes in dict.fromkeys((num_classes, 0)):  # timm is strict only where the number of classes is the file's
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
        f"{path}: these weights are not those of timm:{model} ({reason}); give the right file with {OPTION}"
    )


def _config_of(name: str) -> tuple[str, dict[str, Any]]:
    """The model's name with its tag, and timm's table entry."""
    timm, model = _timm(), name.removeprefix("timm:")
    found = None
    if timm.is_model(model.partition(".")[0]):
        found = timm.get_pretrained_cfg(model, allow_unregistered=False) if _has_tag(timm, model) else None
    if found is None:
        near = timm.list_models(f"*{model.partition('.')[0]}*", pretrained=True)[:4] if model else []
        hint = f"near it: {', '.join(near)}" if near else "`timm.list_models()` names them"
        raise TrichordError(f"timm:{model}: timm {timm.__version__} has no such model; {hint}")
    config = found.to_dict()
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
            f"timm:{model}: takes {data['input_size'][0]} channels, pictures have 3; choose another model"
        )
    return data


def _interpolation(data: dict[str, Any]) -> str:
    return "bilinear" if data.get("interpolation") in ("bilinear", "random") else "bicubic"


def _timm() -> ModuleType:
    """The timm module. Raises TrichordError where it is not installed."""
    from trichord.features.torchvision_compat import import_torchvision

    import_torchvision()  # timm imports it, which may fail without this
    try:
        import timm
    except ImportError:
        raise TrichordError("timm:MODEL needs the package timm; run: pip install timm") from None
    return timm
