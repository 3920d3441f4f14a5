"""Image models of transformers (`hf:MODEL`) as visual encoders: CLIP, SigLIP, DINO, ViT, ConvNeXt and others.

The feature of a picture is the first of the following that the model has:
    1. `get_image_features`, the vector in the joint space (CLIP, SigLIP, ALIGN, ...);
    2. the output of the pooler, if its weights are in the checkpoint (DINOv2's normalized CLS token, ConvNeXt's mean, SigLIP's
       attention pooling; classifiers of the ViT family lack it, and transformers would initialize it at random);
    3. the CLS token of the last hidden state;
    4. the mean of the last hidden state over positions.
Models that would run code from their repository are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.features import model_files
from trichord.features.encoders import Fingerprint
from trichord.features.network_encoder import NetworkEncoder, VisualInfo, network_encoder, parameters_of
from trichord.features.weights import text_sha256
from trichord.files.reading import missing
from trichord.media.sampling import FrameSpec

if TYPE_CHECKING:
    import torch

OPTION, EXTRA = "--weights_2d", "hf"
_RATE_HZ = 1.0  # pictures per second
POOLING = "image features, else pooler, else CLS, else mean"
_CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")


def describe(name: str, weights: Path | None = None) -> VisualInfo:
    """Describe the encoder `hf:ORGANIZATION/NAME`, optionally followed by `@REVISION`, or `hf:/path/to/folder`.

    Args:
        name: The name of the encoder.
        weights: A folder to use instead of the model in the name.

    Raises:
        TrichordError: The model is missing and cannot be downloaded.
    """
    model = name.removeprefix("hf:")
    if weights is not None and not Path(weights).expanduser().is_dir():
        mend = f"with hf:MODEL, {OPTION} must be the folder of a saved model"
        raise missing(Path(weights).expanduser(), "folder", mend=mend)
    if not model:
        raise TrichordError(f"{name}: the model is missing; use hf:ORGANIZATION/NAME or hf:/path/to/folder")
    folder = model_files.find_model(str(weights or model), extra=EXTRA)
    if weights is None:
        name = f"hf:{model_files.own_name(model, folder)}"
    config, processor = model_files.read_settings(folder), _processor_of(folder)
    if "architecture" in config and "model_type" not in config:
        raise TrichordError(f"{folder}: is a timm model; use timm:{config['architecture']}")
    with model_files.reading_settings(folder):
        frames = frames_of(processor)
    configs = text_sha256(*(folder / file for file in _CONFIGS))
    parameters = parameters_of(frames, pooling=POOLING, configs=configs)
    fingerprint = Fingerprint(name, "1", parameters, model_files.weights_digest(folder))
    return VisualInfo("visual_2d", fingerprint, frames, files=(folder,))


def frames_of(processor: dict[str, Any]) -> FrameSpec:
    """Return the pictures of the size that an image processor scales to, so that it has nothing left to scale.

    If the size in its settings is not supported here, the short side is 256, and the processor scales the pictures.

    Args:
        processor: The content of preprocessor_config.json.

    Raises:
        ValueError: The settings contain a size that is not a positive integer.
    """
    size, centre = processor.get("size"), processor.get("do_center_crop", False)
    if isinstance(size, int):  # old files: a square, or the short side if the picture is cropped
        size = {"shortest_edge": size} if centre else {"height": size, "width": size}
    if not isinstance(size, dict) or not processor.get("do_resize", True):
        return FrameSpec(_RATE_HZ)
    if invalid := [
        value for value in size.values() if value is not None and not (isinstance(value, int) and value > 0)
    ]:
        raise ValueError(f"the size of its pictures is {invalid[0]!r:.40}")
    side = size.get("shortest_edge")
    if side and set(size) == {"shortest_edge"}:
        if "crop_pct" in processor or "ConvNext" in str(processor.get("image_processor_type")):
            if side >= 384:  # ConvNeXt's processor then changes the aspect ratio
                return FrameSpec(_RATE_HZ, width=side, height=side)
            return FrameSpec(_RATE_HZ, short_side=int(side / (processor.get("crop_pct") or 224 / 256)))
        return FrameSpec(_RATE_HZ, short_side=side)
    if set(size) == {"height", "width"}:
        return FrameSpec(_RATE_HZ, width=size["width"], height=size["height"])
    return FrameSpec(_RATE_HZ)


def build(info: VisualInfo, device: str = "cpu") -> NetworkEncoder:
    """Build the encoder.

    Raises:
        TrichordError: The model cannot be loaded completely, or is not an image model.
    """
    model_files.import_transformers(info.fingerprint.name)
    folder = info.files[0]
    model, has_pooler = _load(folder)
    processor = _image_processor(folder)
    forward, prepare = _pooled(model, has_pooler), _prepared(processor, device)
    try:
        return network_encoder(info, model, prepare, device, forward=forward)
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, TrichordError):
            raise
        problem = f"{type(model).__name__} returned no features for a picture ({one_line(error)[:120]})"
        raise TrichordError(f"{folder}: {problem}; choose an image model") from None


def _load(folder: Path) -> tuple[torch.nn.Module, bool]:
    """Return the model in float32, and whether its pooler was loaded from the checkpoint."""
    import torch
    from transformers import AutoModel

    with model_files.loading(folder):
        model, loaded = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    missing = [key for key in loaded["missing_keys"] if not key.startswith("pooler.")]
    if missing or loaded.get("mismatched_keys"):
        bad = missing or [str(key) for key in loaded["mismatched_keys"]]
        problem = f"the file lacks {len(bad)} parameters of {type(model).__name__}, such as {bad[0]}"
        raise TrichordError(f"{folder}: {problem}; download it again or choose another model")
    if hasattr(model, "get_image_features") and isinstance(getattr(model, "text_model", None), torch.nn.Module):
        model.text_model = None  # half of the memory, not needed for pictures
    return model, not any(key.startswith("pooler.") for key in loaded["missing_keys"])


def _image_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        try:
            return AutoImageProcessor.from_pretrained(folder, backend="torchvision", **options)
        except (ImportError, ValueError):  # some processors only support Pillow
            return AutoImageProcessor.from_pretrained(folder, backend="pil", **options)
    except Exception as error:  # transformers raises errors of many types
        problem = f"has no usable image processor ({one_line(error)[:160]})"
        raise TrichordError(
            f"{folder}: {problem}; add the preprocessor_config.json of the model to the folder"
        ) from None


def _prepared(processor: Any, device: str) -> Any:
    """Return a function from pictures (N, H, W, 3) uint8 to the inputs of the model."""

    def prepare(pictures: np.ndarray) -> dict[str, torch.Tensor]:
        pictures = np.require(pictures, requirements=["C", "W"])
        inputs = processor(images=list(pictures), return_tensors="pt", input_data_format="channels_last")
        return {key: value.to(device) for key, value in inputs.items()}

    return prepare


def _pooled(model: Any, has_pooler: bool) -> Any:
    """Return a function from the inputs of the model to features (N, F), chosen as the module docstring describes."""
    has_class_token = any(name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters())

    def forward(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if hasattr(model, "get_image_features"):
            output = model.get_image_features(**inputs)
            return getattr(output, "pooler_output", output)  # transformers 4 returns the tensor itself
        output = model(**inputs)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None and has_pooler:
            return pooled.flatten(1)
        hidden = output.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if has_class_token else hidden.mean(1)

    return forward


def _processor_of(folder: Path) -> dict[str, Any]:
    """Return the settings of the image processor; empty if there are none."""
    settings = model_files.read_settings(folder, "preprocessor_config.json")
    return settings or model_files.read_settings(folder, "processor_config.json").get("image_processor") or {}
