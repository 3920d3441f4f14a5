"""A network as a visual encoder: pictures are scaled, normalized and processed in batches of few sizes.

On a CPU each picture or window is a batch of its own, so that rows do not depend on how pictures are grouped into calls; larger
batches change the order of summation. (EfficientNet is also fastest this way, because a picture fits into the processor's cache.)
On a GPU an incomplete batch is padded with black pictures to a power of two. Rows then depend on the video only, because the
driver always splits it into the same batches, and short clips remain cheap.

Shape letters: N rows, P pictures per window, H and W height and width of a picture, F feature width.
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
    """The description of an encoder before its network is built.

    Attributes:
        stream: visual_2d or visual_3d.
        fingerprint: See `encoders.Fingerprint`.
        frames: How pictures are sampled, scaled and cropped.
        window: Pictures per row.
        dim: The width of a row; None if only the network determines it.
        files: The weights, or the folder that contains them.
    """

    stream: str
    fingerprint: Fingerprint
    frames: FrameSpec
    window: int = 1
    dim: int | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Preparation:
    """The transform from uint8 pictures to the input of a network: (value * scale - mean) / std per channel (RGB)."""

    mean: Triple
    std: Triple
    scale: float = 1 / 255
    interpolation: str = "bicubic"

    def __call__(self, pictures: np.ndarray, frames: FrameSpec, device: str) -> torch.Tensor:
        """Transform (N, H, W, 3) to (N, 3, h, w), or (N, P, H, W, 3) to (N, 3, P, h, w), float32, channels last in memory."""
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
    """Scale and crop images (N, 3, H, W) in 0..255 as `frames` specifies, unless the decoder has done so already."""
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
    """A VisualEncoder that runs a network. It may be called from several threads at once.

    Attributes:
        info: The description of the encoder.
        network: Computes features (N, F) of prepared pictures.
        prepare: Turns uint8 pictures into the input of `network`.
        dim: The feature width F.
        device: The device of the network.
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
        """The name of the stream that the rows belong to."""
        return self.info.stream

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder."""
        return self.info.fingerprint

    @property
    def frames(self) -> FrameSpec:
        """How pictures are sampled, scaled and cropped."""
        return self.info.frames

    @property
    def window(self) -> int:
        """Pictures per row."""
        return self.info.window

    @property
    def rate_hz(self) -> float:
        """Rows per second."""
        return self.frames.rate_hz / self.window

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Encode pictures.

        Args:
            pictures: uint8 RGB (N, H, W, 3), or (N, P, H, W, 3) if `window` is greater than 1.

        Returns:
            (N, F) float16 with L2 norm 1.
        """
        import torch

        is_window = self.window > 1
        if not (pictures.dtype == np.uint8 and pictures.ndim == 4 + is_window and pictures.shape[-1] == 3):
            raise ValueError(f"pictures must be uint8 RGB, not {pictures.dtype} of shape {pictures.shape}")
        if is_window and pictures.shape[1] != self.window:
            raise ValueError(f"a window must have {self.window} pictures")
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
    """Return the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def network_encoder(
    info: VisualInfo,
    network: torch.nn.Module,
    prepare: Callable[[np.ndarray], torch.Tensor] | Preparation,
    device: str = "cpu",
    forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> NetworkEncoder:
    """Build an encoder from a network.

    Args:
        info: The description of the encoder. If it has no width, one picture is encoded to determine it.
        network: The network, which is put into eval mode and moved to `device`.
        prepare: Turns uint8 pictures into the input of the network.
        device: The device to compute on.
        forward: Computes features of prepared pictures; None calls the network.

    Raises:
        TrichordError: The network returns no vectors, or different features for the same picture, as a masked autoencoder does.
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
            problem = (
                "returns different features for the same picture each time"
                if first.ndim == 2
                else "does not return vectors"
            )
            raise TrichordError(f"{info.fingerprint.name}: {problem}; choose another model")
        encoder.dim = first.shape[1]
    return encoder


def parameters_of(frames: FrameSpec, window: int = 1, **more: Any) -> dict[str, Any]:
    """Return the parameters of a fingerprint: how pictures are decoded, the form of the rows, and any others."""
    spec = {key: value for key, value in asdict(frames).items() if value is not None}
    if frames.width is not None:
        del spec["short_side"]
    return {**spec, "window": window, "rows": "l2-normalised float16", **more}


def fold_batch_norms(network: torch.nn.Module) -> torch.nn.Module:
    """Merge each batch norm into the preceding convolution, which is faster and equivalent in eval mode."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in list(network.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return network


def fit_state(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, name: str, option: str) -> None:
    """Load `state` into a network on the meta device. All keys must match, except batch counts, which old files lack.

    Args:
        network: The network.
        state: The weights by key.
        path: The file of the weights, for the error message.
        name: The name of the encoder, for the error message.
        option: The option that selects the file, for the error message.

    Raises:
        TrichordError: The weights belong to another network.
    """
    import torch

    counts = {k: torch.tensor(0) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counts, **state}, strict=True, assign=True)
    except RuntimeError as error:
        problem = f"these are not the weights of {name} ({one_line(error)[:160]})"
        raise TrichordError(f"{path}: {problem}; pass the correct file with {option}") from None
