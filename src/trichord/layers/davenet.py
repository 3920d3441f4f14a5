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
    """A bias-free convolution, initialised from normal(0, sqrt(2 / (k_h k_w outputs)))."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(0, kernel[1] // 2), bias=False)
    nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / (kernel[0] * kernel[1] * outputs)))
    return conv


def _low_precision(x: torch.Tensor) -> torch.dtype | None:
    """The type that autocast computes convolutions in on the device of `x`; None: that of `x`."""
    device = x.device.type
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else None


def _convolve(conv: nn.Conv2d, x: torch.Tensor, packed: bool) -> torch.Tensor:
    """`conv(x)`, 1 x 1 or 1 x 9. `packed`: x is bfloat16 in channels-last, on a CPU."""
    if not packed:
        return cast(torch.Tensor, conv(x))
    stride = conv.stride[1]
    if conv.kernel_size[1] > 1:
        return time_convolution(x, conv.weight, stride)
    rows = x.squeeze(2).transpose(1, 2)[:, ::stride]
    return functional.linear(rows, conv.weight.flatten(1)).transpose(1, 2).unsqueeze(2)


def output_steps(num_frames: int) -> int:
    """Number of output steps for `num_frames` spectrogram frames: ceil(num_frames / 16)."""
    return -(-num_frames // 16)


class _Valid(NamedTuple):
    """Which steps are sound, at one layer."""

    rows: torch.Tensor
    """Positions, in a (B * T) list of steps, of those before each clip's length."""
    lengths: list[int] | None
    """Steps of each clip, where taking them clip by clip is faster; None: by `rows`."""


def _valid(lengths_B: torch.Tensor, num_steps: int, *, by_clip: bool) -> _Valid:
    steps = torch.arange(num_steps, device=lengths_B.device)
    rows = (steps < lengths_B[:, None]).flatten().nonzero().squeeze(1)
    return _Valid(rows, lengths_B.tolist() if by_clip else None)


def _normalise(norm: BatchNorm2d, x_BC1T: torch.Tensor, valid: _Valid | None) -> torch.Tensor:
    """Batch norm over the valid steps only; all other steps become zero, as if the sequence ended before them.

    `valid` None: all are.
    """
    if valid is None:
        return cast(torch.Tensor, norm(x_BC1T))
    clips, channels, _, steps = x_BC1T.shape
    if valid.lengths is not None:
        ends = list(zip(x_BC1T, valid.lengths, strict=True))
        picked = norm(torch.cat([x_C1T[..., :n] for x_C1T, n in ends], -1)[None])[0]
        parts = zip(picked.split(valid.lengths, -1), valid.lengths, strict=True)
        joined = torch.cat([y for part, n in parts for y in (part, part.new_zeros(channels, 1, steps - n))], -1)
        return joined.view(channels, clips, 1, steps).transpose(0, 1).contiguous()
    flat = x_BC1T.squeeze(2).transpose(1, 2).reshape(clips * steps, channels)
    picked = norm(flat.index_select(0, valid.rows)[:, :, None, None])
    out = picked.new_zeros(clips * steps, channels).index_copy(0, valid.rows, picked.flatten(1))
    return out.view(clips, steps, channels).transpose(1, 2).unsqueeze(2)


class _Block(nn.Module):
    """Two 1 x 9 convolutions with a shortcut; the shortcut is a 1 x 1 convolution where the shape changes."""

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
    """Spectrogram (B, M, F) -> features (B, C, T), T = ceil(F / 16), non-negative.

    A convolution over all mel bins, then four stages of two residual blocks; each stage halves the time axis.

    Args:
        mel_bins: M, height of the spectrogram.
        channels: widths of the four stages; the first is also the width of the first convolution. C is the last.

    Attributes:
        fast: Below float32, convolutions are computed in the fastest way. False calls their modules instead, so that hooks of
            all modules run.
    """

    def __init__(self, mel_bins: int = 40, channels: Sequence[int] = (128, 256, 512, 1024)) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError("DAVEnet has four stages")
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
        """Features of each step.

        With `num_frames` (B,), the frames from `num_frames` on are padding: at every layer they count as the zeros
        beyond the end of a shorter clip and they are left out of the batch statistics. So the first
        ceil(num_frames / 16) steps are those of the clip without its padding, in train and eval mode alike (to the
        rounding of the convolution), and the later steps are zeros. Without it every frame is taken as sound, and
        padding reaches into the last valid steps.
        """
        total = whole = spectrogram.shape[-1]
        lengths = None
        if num_frames is not None:
            lengths = num_frames.to(spectrogram.device, torch.int64).clamp(0, total)
            if len(lengths):
                # All beyond the longest clip is padding. One step of it is kept where there is nothing else.
                total = max(int(lengths.max()), min(total, 1))
                spectrogram = spectrogram[..., :total]
            if bool((lengths == total).all()):
                lengths = None
        x, packed = self._first(spectrogram)
        # Clip by clip it is a copy of long rows; in channels-last, and on a GPU, by positions.
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
        """The first convolution, and whether the others take the way of `packed_conv`."""
        low = _low_precision(spectrogram)
        if not self.fast or low is None:
            return self.conv1(spectrogram.unsqueeze(1)), False
        # Over all mel bins at once it is a linear map of a frame, and rows of channels are the channels-last format.
        x = functional.linear(spectrogram.transpose(1, 2), self.conv1.weight.flatten(1))
        return x.transpose(1, 2).unsqueeze(2), low == torch.bfloat16 and spectrogram.device.type == "cpu"
