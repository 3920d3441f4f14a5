"""3-D ResNeXt-101 (Hara et al., arXiv 1711.09577), the network of the published 3-D features: 16 pictures to 2048 numbers.

Modules have the names in the published Kinetics weights, `resnext101.pth`. The setting of the published extractor: 24 pictures
per second chosen like FFmpeg's fps filter, short side 112, center crop of 112 x 112, the mean of Kinetics subtracted from values
in 0..255, and the last window padded with black pictures before the subtraction.
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
    """Bottleneck block: 1x1x1, grouped 3x3x3 and 1x1x1 convolutions, each with a batch norm.

    The shortcut is a convolution if the shape changes (type B).
    """

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
    """3-D ResNeXt with average pooling. The published weights also contain a classifier, `fc`.

    Args:
        layers: (blocks, planes) of the four layers. A block has 2 * planes output channels.
        cardinality: The number of groups of the 3x3x3 convolutions.
        num_classes: The number of outputs of the classifier.
    """

    def __init__(
        self, layers: tuple[tuple[int, int], ...] = _LAYERS, cardinality: int = 32, num_classes: int = 400
    ) -> None:
        super().__init__()
        if len(layers) != 4:
            raise ValueError("expected four layers")
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
        """Compute pooled features (B, 2048) of windows (B, 3, P, H, W), RGB minus the mean."""
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3, 4))


def load_resnext101(state: dict[str, Tensor], path: Path) -> ResNeXt3D:
    """Build the network with published weights, in eval mode.

    The classifier `fc` may have any number of classes, because features do not need it.

    Raises:
        TrichordError: A key of the weights does not match the network.
    """
    num_classes = len(state["fc.weight"]) if "fc.weight" in state else 400
    with torch.device("meta"):
        network = ResNeXt3D(num_classes=num_classes)
    fit_state(network, state, path, "resnext101-3d", "--weights_3d")
    return network.eval()
