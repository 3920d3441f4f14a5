"""DAVEnet, the spectrogram network of AVLnet and MCN (Rouditchenko et al., AVLnet, 2021).

Shape letters: B clips, M mel bins, C channels, F spectrogram frames, T output steps = ceil(F / 16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from trichord.layers.batch_norm import BatchNorm2d
from trichord.layers.packed_conv import time_convolution

KERNEL = 9


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, initialized from normal(0, sqrt(2 / (k_h k_w outputs)))."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(0, kernel[1] // 2), bias=False)
    if not conv.weight.is_meta:  # there, torch imports its compiler to do nothing, which takes seconds
        nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / (kernel[0] * kernel[1] * outputs)))
    return conv


def _low_precision(x: torch.Tensor) -> torch.dtype | None:
    """Return the data type in which autocast computes convolutions on the device of `x`, or None without autocast."""
    device = x.device.type
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else None


def _convolve(conv: nn.Conv2d, x: torch.Tensor, packed: bool) -> torch.Tensor:
    """Apply a 1 x 1 or 1 x 9 convolution. `packed` requires a bfloat16 tensor on the CPU in the channels-last format."""
    if not packed:
        return cast(torch.Tensor, conv(x))
    stride = conv.stride[1]
    if conv.kernel_size[1] > 1:
        return time_convolution(x, conv.weight, stride)
    rows = x.squeeze(2).transpose(1, 2)[:, ::stride]
    return functional.linear(rows, conv.weight.flatten(1)).transpose(1, 2).unsqueeze(2)


def output_steps(num_frames: int) -> int:
    """Return the number of output steps for `num_frames` spectrogram frames: ceil(num_frames / 16).

    Example:
        >>> from trichord.layers.davenet import output_steps
        >>> output_steps(100)
        7
    """
    return -(-num_frames // 16)


class _Valid(NamedTuple):
    """The valid steps at one layer, that is, the steps that are not padding.

    Attributes:
        rows: Indices of the valid steps in the flattened (B * T) steps of all clips.
        lengths: Number of valid steps of each clip if it is faster to take them clip by clip; None to take them by `rows`.
    """

    rows: torch.Tensor
    lengths: list[int] | None


def _valid(lengths_B: torch.Tensor, num_steps: int, *, by_clip: bool) -> _Valid:
    steps = torch.arange(num_steps, device=lengths_B.device)
    rows = (steps < lengths_B[:, None]).flatten().nonzero().squeeze(1)
    return _Valid(rows, lengths_B.tolist() if by_clip else None)


def _normalise(norm: BatchNorm2d, x_BC1T: torch.Tensor, valid: _Valid | None) -> torch.Tensor:
    """Normalize the valid steps and set all other steps to zero, as if the sequence ended before them.

    If `valid` is None, all steps are valid.
    """
    if valid is None:
        return cast(torch.Tensor, norm(x_BC1T))
    clips, channels, _, steps = x_BC1T.shape
    if valid.lengths is not None:
        ends = list(zip(x_BC1T, valid.lengths, strict=True))
        normalized = norm(torch.cat([x_C1T[..., :n] for x_C1T, n in ends], -1)[None])[0]
        parts = zip(normalized.split(valid.lengths, -1), valid.lengths, strict=True)
        joined = torch.cat([y for part, n in parts for y in (part, part.new_zeros(channels, 1, steps - n))], -1)
        return joined.view(channels, clips, 1, steps).transpose(0, 1).contiguous()
    flat = x_BC1T.squeeze(2).transpose(1, 2).reshape(clips * steps, channels)
    normalized = norm(flat.index_select(0, valid.rows)[:, :, None, None])
    out = normalized.new_zeros(clips * steps, channels).index_copy(0, valid.rows, normalized.flatten(1))
    return out.view(clips, steps, channels).transpose(1, 2).unsqueeze(2)


class _Block(nn.Module):
    """Two 1 x 9 convolutions with a shortcut. The shortcut is a 1 x 1 convolution if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, (1, KERNEL), stride)
        self.bn1 = BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, (1, KERNEL))
        self.bn2 = BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, (1, 1), stride), BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor, valid: _Valid | None, packed: bool) -> torch.Tensor:
        y = functional.relu(_normalise(self.bn1, _convolve(self.conv1, x, packed), valid))
        y = _normalise(self.bn2, _convolve(self.conv2, y, packed), valid)
        if self.downsample is not None:
            conv, norm = cast(nn.Conv2d, self.downsample[0]), cast(BatchNorm2d, self.downsample[1])
            x = _normalise(norm, _convolve(conv, x, packed), valid)
        return functional.relu(y + x)


class DAVEnet(nn.Module):
    """DAVEnet, a residual network that maps spectrograms to a sequence of features.

    A convolution over all mel bins is followed by four stages of two residual blocks. Each stage halves the time axis
    (Rouditchenko et al., AVLnet, 2021).

    Args:
        mel_bins: Height of the spectrograms, M.
        channels: Widths of the four stages. The first is also the width of the first convolution, and the last is C.

    Attributes:
        fast: Whether convolutions below float32 are computed in the fastest way. If false, their modules are called, so that hooks
            of all modules run.

    Raises:
        ValueError: If `channels` does not hold four widths.

    Example:
        >>> import torch
        >>> from trichord.nn import DAVEnet
        >>> network = DAVEnet(mel_bins=40, channels=(8, 8, 16, 16))
        >>> network(torch.zeros(2, 40, 100)).shape
        torch.Size([2, 16, 7])
    """

    def __init__(self, mel_bins: int = 40, channels: Sequence[int] = (128, 256, 512, 1024)) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"DAVEnet has four stages, but {len(channels)} widths were given; give four")
        self.fast = True
        self.mel_bins = mel_bins
        self.channels = tuple(channels)
        self.conv1 = _conv(1, channels[0], (mel_bins, 1))
        self.bn1 = BatchNorm2d(channels[0])
        widths = (channels[0], *channels)
        for i in range(4):
            first, second = _Block(widths[i], widths[i + 1], 2), _Block(widths[i + 1], widths[i + 1], 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(first, second))

    def forward(self, spectrogram: torch.Tensor, num_frames: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the features of each step.

        Args:
            spectrogram: Spectrograms of shape (B, M, F).
            num_frames: Number of valid frames of each clip, of shape (B,). Later frames are padding: every layer treats them as
                zeros beyond the end of the clip and leaves them out of the batch statistics. The first ceil(num_frames / 16) steps
                are then equal to those of the clip without padding, in train and eval mode, up to the rounding of the convolutions,
                and later steps are zero. None treats all frames as valid, so that padding influences the last valid steps.

        Returns:
            Features of shape (B, C, T), T = ceil(F / 16). They are not negative.

        Example:
            >>> import torch
            >>> from trichord.nn import DAVEnet
            >>> network = DAVEnet(mel_bins=40, channels=(8, 8, 16, 16)).eval()
            >>> features = network(torch.zeros(2, 40, 100), num_frames=torch.tensor([100, 32]))
            >>> features.shape, bool(features[1, :, 2:].any())
            (torch.Size([2, 16, 7]), False)
        """
        total = whole = spectrogram.shape[-1]
        lengths = None
        if num_frames is not None:
            lengths = num_frames.to(spectrogram.device, torch.int64).clamp(0, total)
            if len(lengths):
                # Frames beyond the end of the longest clip are padding. One frame is kept if no clip has any.
                total = max(int(lengths.max()), min(total, 1))
                spectrogram = spectrogram[..., :total]
            if bool((lengths == total).all()):
                lengths = None
        x, packed = self._first(spectrogram)
        # Valid steps are taken clip by clip if this copies long rows, and by index on a GPU and in the channels-last format.
        by_clip = not packed and spectrogram.device.type == "cpu"
        valid = None if lengths is None else _valid(lengths, total, by_clip=by_clip)
        x = functional.relu(_normalise(self.bn1, x, valid))
        for i in range(1, 5):
            total = -(-total // 2)
            if lengths is not None:
                lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
                valid = _valid(lengths, total, by_clip=by_clip)
            for block in cast(nn.Sequential, self.get_submodule(f"layer{i}")):
                x = block(x, valid, packed)
        features = cast(torch.Tensor, x.squeeze(2))
        return functional.pad(features, (0, output_steps(whole) - total)) if total < output_steps(whole) else features

    def _first(self, spectrogram: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Return the output of the first convolution, and whether the other convolutions use `packed_conv`."""
        low = _low_precision(spectrogram)
        if not self.fast or low is None:
            return self.conv1(spectrogram.unsqueeze(1)), False
        # The convolution over all mel bins is a linear map of each frame. Its output is in the channels-last format.
        x = functional.linear(spectrogram.transpose(1, 2), self.conv1.weight.flatten(1))
        return x.transpose(1, 2).unsqueeze(2), low == torch.bfloat16 and spectrogram.device.type == "cpu"
