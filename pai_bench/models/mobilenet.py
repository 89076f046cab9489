"""MobileNetV2 (Sandler et al. 2018) in the form for small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.models.layers import conv, scaled
from pai_bench.models.registry import register_model

# (expansion, outputs, blocks, stride of the first); the second and the third would be 2 and the stem's too on ImageNet.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and linear 1x1 convolution; at stride 1 a shortcut, by 1x1 where channels change."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.conv1 = conv(inputs, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = conv(hidden, hidden, stride=stride, groups=hidden)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = conv(hidden, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        sum_: Tensor = out if self.shortcut is None else out + self.shortcut(x)
        return sum_


class MobileNetV2(nn.Module):
    """kuangliu/pytorch-cifar's MobileNetV2: strides for 32x32, ReLU, an expansion and 1x1 shortcuts in every block."""

    def __init__(self, channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        inputs, last = scaled(32, width), scaled(1280, width)
        self.conv1 = conv(channels, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        layers: list[nn.Module] = []
        for expansion, size, blocks, stride in STAGES:
            outputs = scaled(size, width)
            for position in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, expansion, stride if position == 0 else 1))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.conv2 = conv(inputs, last, 1)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


@register_model("mobilenetv2")
def _mobilenetv2(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    return MobileNetV2(channels, classes, width)
