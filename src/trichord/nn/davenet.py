"""DAVEnet, the spectrogram network of AVLnet and MCN (Rouditchenko et al., AVLnet, 2021).

Shape letters: B clips, M mel bins, C channels, F spectrogram frames, T output steps = ceil(F / 16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

KERNEL = 9


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1) -> nn.Conv2d:
    """A bias-free convolution, initialised from normal(0, sqrt(2 / (k_h k_w outputs)))."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(0, kernel[1] // 2), bias=False)
    nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / (kernel[0] * kernel[1] * outputs)))
    return conv


def output_steps(num_frames: int) -> int:
    """Number of output steps for `num_frames` spectrogram frames: ceil(num_frames / 16)."""
    return -(-num_frames // 16)


def _valid_rows(lengths_B: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Positions, in a (B * num_steps) list of steps, of those before each clip's length."""
    steps = torch.arange(num_steps, device=lengths_B.device)
    return (steps < lengths_B[:, None]).flatten().nonzero().squeeze(1)


def _normalise(norm: nn.BatchNorm2d, x_BC1T: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    """Batch norm over the steps `rows` only; all other steps become zero, as if the sequence ended before them.

    `rows` None: plain batch norm. Fewer than two steps have no batch statistics; the running ones are used then.
    """
    if rows is None:
        return cast(torch.Tensor, norm(x_BC1T))
    clips, channels, _, steps = x_BC1T.shape
    flat = x_BC1T.squeeze(2).transpose(1, 2).reshape(clips * steps, channels)
    picked = flat.index_select(0, rows)[:, :, None, None]
    if norm.training and rows.numel() < 2:
        picked = functional.batch_norm(
            picked, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
    else:
        picked = norm(picked)
    out = picked.new_zeros(clips * steps, channels).index_copy(0, rows, picked.flatten(1))
    return out.view(clips, steps, channels).transpose(1, 2).unsqueeze(2)


class _Block(nn.Module):
    """Two 1 x 9 convolutions with a shortcut; the shortcut is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, (1, KERNEL), stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, (1, KERNEL))
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, (1, 1), stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        y = functional.relu(_normalise(self.bn1, self.conv1(x), rows))
        y = _normalise(self.bn2, self.conv2(y), rows)
        if self.downsample is not None:
            x = _normalise(cast(nn.BatchNorm2d, self.downsample[1]), self.downsample[0](x), rows)
        return functional.relu(y + x)


class DAVEnet(nn.Module):
    """Spectrogram (B, M, F) -> features (B, C, T), T = ceil(F / 16), non-negative.

    A convolution over all mel bins, then four stages of two residual blocks; each stage halves the time axis.

    Args:
        mel_bins: M, height of the spectrogram.
        channels: widths of the four stages; the first is also the width of the first convolution. C is the last.
    """

    def __init__(self, mel_bins: int = 40, channels: Sequence[int] = (128, 256, 512, 1024)) -> None:
        super().__init__()
        assert len(channels) == 4, "DAVEnet has four stages"
        self.mel_bins = mel_bins
        self.channels = tuple(channels)
        self.conv1 = _conv(1, channels[0], (mel_bins, 1))
        self.bn1 = nn.BatchNorm2d(channels[0])
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
        total = spectrogram.shape[-1]
        lengths = None
        if num_frames is not None:
            lengths = num_frames.to(spectrogram.device, torch.int64).clamp(0, total)
            if bool((lengths == total).all()):
                lengths = None
        rows = None if lengths is None else _valid_rows(lengths, total)
        x = functional.relu(_normalise(self.bn1, self.conv1(spectrogram.unsqueeze(1)), rows))
        for i in range(1, 5):
            total = -(-total // 2)
            if lengths is not None:
                lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
                rows = _valid_rows(lengths, total)
            for block in cast(nn.Sequential, self.get_submodule(f"layer{i}")):
                x = block(x, rows)
        return x.squeeze(2)
