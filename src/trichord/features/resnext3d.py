"""3-D ResNeXt-101 (Hara et al., arXiv 1711.09577) of the published 3-D features: 16 pictures to 2048 numbers.

Module names are those of the published Kinetics weights, `resnext101.pth`. The published extractor's setting: 24
pictures per second as FFmpeg's fps filter chooses them, short side 112, a square of 112 from the middle, the mean of
Kinetics subtracted from 0..255 values, the last window filled with black pictures before that.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trichord.features.network_encoder import fit_state

_EXPANSION = 2
_LAYERS = ((3, 128), (4, 256), (23, 512), (3, 1024))  # blocks, planes


class _Block(nn.Module):
    """Bottleneck: 1x1x1, grouped 3x3x3, 1x1x1, each with a batch norm; the shortcut is a convolution where the shape
    changes (type B)."""

    def __init__(self, num_in: int, planes: int, stride: int, cardinality: int) -> None:
        super().__init__()
        middle, num_out = cardinality * (planes // 32), planes * _EXPANSION
        self.conv1, self.bn1 = nn.Conv3d(num_in, middle, 1, bias=False), nn.BatchNorm3d(middle)
        self.conv2 = nn.Conv3d(middle, middle, 3, stride, 1, groups=cardinality, bias=False)
        self.bn2 = nn.BatchNorm3d(middle)
        self.conv3, self.bn3 = nn.Conv3d(middle, num_out, 1, bias=False), nn.BatchNorm3d(num_out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or num_in != num_out:
            self.downsample = nn.Sequential(nn.Conv3d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm3d(num_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNeXt3D(nn.Module):
    """Windows (B, 3, P, H, W), RGB minus the mean -> pooled features (B, 2048). The published weights have a classifier, `fc`, too.

    Args:
        layers: (blocks, planes) of the four layers; a block gives 2 * planes channels.
        cardinality: Groups of the 3x3x3 convolutions.
    """

    def __init__(
        self, layers: tuple[tuple[int, int], ...] = _LAYERS, cardinality: int = 32, num_classes: int = 400
    ) -> None:
        super().__init__()
        if len(layers) != 4:
            raise ValueError("ResNeXt-101 has four layers")
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        width = 64
        for number, (num_blocks, planes) in enumerate(layers, start=1):
            blocks = []
            for block in range(num_blocks):
                stride = 2 if number > 1 and block == 0 else 1
                blocks.append(_Block(width, planes, stride, cardinality))
                width = planes * _EXPANSION
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3, 4))


def load_resnext101(state: dict[str, Tensor], path: Path) -> ResNeXt3D:
    """The network with published weights, in eval mode. Raises TrichordError if a key does not fit; `fc` of any
    number of classes is taken, the features do not need it."""
    num_classes = len(state["fc.weight"]) if "fc.weight" in state else 400
    with torch.device("meta"):
        network = ResNeXt3D(num_classes=num_classes)
    fit_state(network, state, path, "resnext101-3d", "--weights_3d")
    return network.eval()
