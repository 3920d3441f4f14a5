"""A network as visual encoder: pictures are fitted, normalised and run in batches of few sizes.

On a CPU each picture or window is a batch of its own, so that rows do not depend on how pictures are grouped into calls:
larger ones change the order of sums (and EfficientNet is fastest so, a picture stays in the cache). On a GPU a batch that
is not full is filled with black pictures to a power of two: a video's rows follow from the video alone, since the driver
cuts it into the same batches each time, and a short clip costs little more than its length.

Shape letters: N rows, P pictures of a window, H and W picture height and width, F feature width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.features.encoders import Fingerprint
from trichord.media.sampling import FrameSpec

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GPU_BATCH, _GPU_BATCH_WINDOWS = 64, 16
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class VisualInfo:
    """What an encoder is, before its network is built.

    Attributes:
        stream: visual_2d or visual_3d.
        fingerprint: See `encoders.Fingerprint`.
        frames: The pictures it wants.
        window: Pictures per row.
        dim: Width of a row; None where only the network tells.
        files: Its weights, or the folder of them.
    """

    stream: str
    fingerprint: Fingerprint
    frames: FrameSpec
    window: int = 1
    dim: int | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Preparation:
    """From uint8 pictures to what a network takes: value * scale, minus `mean`, by `std`, per channel (RGB)."""

    mean: Triple
    std: Triple
    scale: float = 1 / 255
    interpolation: str = "bicubic"

    def __call__(self, pictures: np.ndarray, frames: FrameSpec, device: str) -> torch.Tensor:
        """(N, H, W, 3) -> (N, 3, h, w), (N, P, H, W, 3) -> (N, 3, P, h, w), float32, channels last in memory."""
        import torch

        images = torch.tensor(pictures.reshape(-1, *pictures.shape[-3:]), device=device).permute(0, 3, 1, 2).float()
        images = fitted(images, frames, self.interpolation)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        images = ((images / 255 if self.scale == 1 / 255 else images * self.scale) - mean) / std
        if pictures.ndim == 4:
            return images.contiguous(memory_format=torch.channels_last)
        windows = images.reshape(*pictures.shape[:2], *images.shape[1:]).transpose(1, 2)
        return windows.contiguous(memory_format=torch.channels_last_3d)


def fitted(images: torch.Tensor, frames: FrameSpec, interpolation: str = "bicubic") -> torch.Tensor:
    """Images (N, 3, H, W) in 0..255, scaled and cropped as `frames` says unless they are already (as the decoder's)."""
    import torch

    height, width = images.shape[-2:]
    if frames.crop is not None and (height, width) == (frames.crop, frames.crop):
        return images
    new_width, new_height = frames.size_of(width, height)
    if (new_height, new_width) != (height, width):
        size = [new_height, new_width]
        images = torch.nn.functional.interpolate(images, size=size, mode=interpolation, antialias=True).clamp_(0, 255)
    if frames.crop is not None:
        top, left = max(new_height - frames.crop, 0) // 2, max(new_width - frames.crop, 0) // 2
        images = images[..., top : top + frames.crop, left : left + frames.crop]
    return images


@dataclass
class NetworkEncoder:
    """A VisualEncoder. May be called from several threads at once.

    Attributes:
        info: What it is.
        network: Prepared pictures -> (N, F).
        prepare: uint8 pictures -> what `network` takes.
        dim: F.
        batch_size: Rows per call of the network.
    """

    info: VisualInfo
    network: Callable[[torch.Tensor], torch.Tensor] = field(repr=False)
    prepare: Callable[[np.ndarray], torch.Tensor] = field(repr=False)
    dim: int
    device: str = "cpu"
    batch_size: int = 1

    @property
    def stream(self) -> str:
        return self.info.stream

    @property
    def fingerprint(self) -> Fingerprint:
        return self.info.fingerprint

    @property
    def frames(self) -> FrameSpec:
        return self.info.frames

    @property
    def window(self) -> int:
        return self.info.window

    @property
    def rate_hz(self) -> float:
        return self.frames.rate_hz / self.window

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB, or (N, P, H, W, 3) where `window` is above 1 -> (N, F) float16 of L2 norm 1."""
        import torch

        is_window = self.window > 1
        if not (pictures.dtype == np.uint8 and pictures.ndim == 4 + is_window and pictures.shape[-1] == 3):
            raise ValueError(f"pictures are uint8 RGB, not {pictures.dtype} of shape {pictures.shape}")
        if is_window and pictures.shape[1] != self.window:
            raise ValueError(f"a window has {self.window} pictures")
        rows = np.zeros((len(pictures), self.dim), np.float16)
        with torch.inference_mode():
            for begin in range(0, len(pictures), self.batch_size):
                part = pictures[begin : begin + self.batch_size]
                end = begin + len(part)
                if missing := min(_power_of_two(len(part)), self.batch_size) - len(part):
                    part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.uint8)])
                features = torch.nn.functional.normalize(self.network(self.prepare(part)).float(), dim=1)
                rows[begin:end] = features[: end - begin].half().cpu().numpy()
        return rows


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def network_encoder(
    info: VisualInfo,
    network: torch.nn.Module,
    prepare: Callable[[np.ndarray], torch.Tensor] | Preparation,
    device: str = "cpu",
    forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> NetworkEncoder:
    """The encoder of a network in eval mode, moved to `device`; `forward` stands in for calling the network.

    Where `info` states no width, one picture is encoded to find it. Raises TrichordError for a network that gives
    something else for the same picture, such as a masked autoencoder.
    """
    import torch

    layout = torch.channels_last_3d if info.window > 1 else torch.channels_last
    network = network.eval().requires_grad_(False).to(device)
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim == (5 if info.window > 1 else 4):
                parameter.data = parameter.data.contiguous(memory_format=layout)
    if isinstance(prepare, Preparation):
        preparation = prepare
        prepare = lambda pictures: preparation(pictures, info.frames, device)  # noqa: E731
    on_cpu = torch.device(device).type == "cpu"
    batch_size = 1 if on_cpu else _GPU_BATCH_WINDOWS if info.window > 1 else _GPU_BATCH
    dim = info.dim
    encoder = NetworkEncoder(info, forward or network, prepare, dim or 1, device, batch_size)
    if dim is None:
        width, height = info.frames.size_of(320, 240)
        picture = np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)
        with torch.inference_mode():
            first, second = (encoder.network(prepare(picture[None])) for _ in range(2))
        if first.ndim != 2 or not torch.equal(first, second):
            what = "gives other features for the same picture each time" if first.ndim == 2 else "gives no vectors"
            raise TrichordError(f"{info.fingerprint.name}: {what}; choose another model")
        encoder.dim = first.shape[1]
    return encoder


def parameters_of(frames: FrameSpec, window: int = 1, **more: Any) -> dict[str, Any]:
    """Parameters of a fingerprint: what is decoded, the form of the rows, and whatever else."""
    spec = {key: value for key, value in asdict(frames).items() if value is not None}
    if frames.width is not None:
        del spec["short_side"]
    return {**spec, "window": window, "rows": "l2-normalised float16", **more}


def fold_batch_norms(network: torch.nn.Module) -> torch.nn.Module:
    """The same function in eval mode, faster: each batch norm becomes part of the convolution that stands before it."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in list(network.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return network


def fit_state(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, name: str, option: str) -> None:
    """Load `state` into a network made on the meta device; every key must fit, but for counts that old files lack.

    Raises TrichordError for weights of another network.
    """
    import torch

    counts = {k: torch.tensor(0) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counts, **state}, strict=True, assign=True)
    except RuntimeError as error:
        what = f"these weights are not those of {name} ({one_line(error)[:160]})"
        raise TrichordError(f"{path}: {what}; give the right file with {option}") from None
