"""EfficientNet-Lite0 (Tan & Le, arXiv 1905.11946; the Lite variant has ReLU6 and no squeeze-and-excitation).

Modules have the names in the published PyTorch weights. These were converted from TensorFlow, hence the asymmetric "same"
padding and the batch-norm epsilon.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# repeats, kernel, stride of the first repeat, expansion, output channels
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: ceil(size / stride) outputs, with the odd pixel right and below."""

    def __init__(self, num_in: int, num_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(num_in, num_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        rows, columns = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(x, self.weight, self.bias, stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Inverted residual block: expand, depthwise convolution, project."""

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = num_in * expansion
        self.expands, self.adds = expansion != 1, stride == 1 and num_in == num_out
        if self.expands:
            self._expand_conv, self._bn0 = _SameConv(num_in, wide), _norm(wide)
        self._depthwise_conv, self._bn1 = _SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _SameConv(wide, num_out), _norm(num_out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with average pooling. The published weights also contain a classifier, `_fc`."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _SameConv(3, 32, 3, 2), _norm(32)
        blocks, width = [], 32
        for repeats, kernel, stride, expansion, out in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(width, out, kernel, stride if repeat == 0 else 1, expansion))
                width = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _SameConv(width, 1280), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Compute pooled features (B, 1280) of images (B, 3, H, W), RGB in [-1, 1]."""
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)), inplace=True).mean((2, 3))
