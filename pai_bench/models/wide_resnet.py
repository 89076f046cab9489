"""Wide residual networks (Zagoruyko and Komodakis 2016): WRN-depth-width, activation before convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.models.layers import conv, scaled
from pai_bench.models.registry import register_model


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice; where the shape changes, a 1x1 convolution of the activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs)
        self.shortcut = None if inputs == outputs else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        sum_: Tensor = out + (x if self.shortcut is None else self.shortcut(active))
        return sum_


class WideResNet(nn.Module):
    """WRN-`depth`-`width` without dropout; 16, 32 and 64 channels times `width` in three stages.

    `scale` multiplies all widths, also the one of the first convolution.
    """

    def __init__(self, channels: int, classes: int, depth: int, width: int, scale: float = 1.0) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        inputs = scaled(16, scale)
        self.conv1 = conv(channels, inputs)
        for stage in (1, 2, 3):
            outputs = scaled(16 * width * 2 ** (stage - 1), scale)
            layers: list[nn.Module] = []
            for position in range(blocks):
                stride = 2 if stage > 1 and position == 0 else 1
                layers.append(PreActivationBlock(inputs, outputs, stride))
                inputs = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.bn1 = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.linear(F.relu(self.bn1(x)).mean((2, 3)))
        return logits


def _register(name: str, depth: int, factor: int) -> None:
    @register_model(name)
    def build(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
        return WideResNet(channels, classes, depth, factor, width)


_register("wrn-28-2", 28, 2)
# SNIP's paper names these three.
_register("wrn-16-8", 16, 8)
_register("wrn-16-10", 16, 10)
_register("wrn-22-8", 22, 8)
