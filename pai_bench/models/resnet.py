"""Residual networks: those for CIFAR with three stages, those with four, for small images and for ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.models.layers import conv, scaled
from pai_bench.models.registry import register_model


class ZeroPadShortcut(nn.Module):
    """Option A of He et al. (2016): every second pixel, new channels of zeros on both sides; no weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # Attributes, because `shrink` removes channels of zeros on either side.
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


Shortcut = Callable[[int, int, int], nn.Module]
"""(inputs, outputs, stride) to a module."""


def conv_shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the shortcut of option B: a 1x1 convolution with BatchNorm."""
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ReLU after the sum."""

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if stride == 1 and inputs == width else shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut; ReLU after the sum."""

    expansion: ClassVar[int] = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network with one stage a width and a global average before the classifier.

    The stem is a 3x3 convolution of stride 1; `large` makes it ImageNet's 7x7 of stride 2 with a pooling.
    `width` multiplies all widths.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        shortcut: Shortcut = conv_shortcut,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        *,
        large: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        widths = [scaled(size, width) for size in widths]
        self.conv1 = conv(channels, widths[0], 7, 2) if large else conv(channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.stages = len(widths)
        inputs = widths[0]
        for stage, (outputs, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            layers: list[nn.Module] = []
            for position in range(count):
                stride = 2 if stage > 1 and position == 0 else 1
                layers.append(block(inputs, outputs, stride, shortcut))
                inputs = outputs * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


NARROW, DOUBLE, FOUR_STAGES = (16, 32, 64), (32, 64, 128), (64, 128, 256, 512)


@register_model("resnet20")
def _resnet20(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """ProsPr's and the ResNet paper's wiring: shortcuts without weights."""
    return ResNet(channels, classes, NARROW, (3, 3, 3), ZeroPadShortcut, width=width)


@register_model("resnet20-conv")
def _resnet20_conv(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """The wiring of Synaptic-Flow, NTK-SAP and PX: 1x1 convolutions in the shortcuts."""
    return ResNet(channels, classes, NARROW, (3, 3, 3), width=width)


@register_model("resnet20-wide")
def _resnet20_wide(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """Synaptic-Flow's wide-resnet20: twice the width."""
    return ResNet(channels, classes, DOUBLE, (3, 3, 3), width=width)


@register_model("resnet32")
def _resnet32(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """The ResNet-32 of Synaptic-Flow, NTK-SAP and mge-snn (0.46 M weights)."""
    return ResNet(channels, classes, NARROW, (5, 5, 5), width=width)


@register_model("resnet32-wide")
def _resnet32_wide(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """The network named ResNet-32 in GraSP and wide-resnet32 in Synaptic-Flow (1.86 M weights)."""
    return ResNet(channels, classes, DOUBLE, (5, 5, 5), width=width)


@register_model("resnet18")
def _resnet18(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """The papers' ResNet-18 for CIFAR (32x32) and Tiny-ImageNet (64x64) alike."""
    return ResNet(channels, classes, FOUR_STAGES, (2, 2, 2, 2), width=width)


@register_model("resnet18-imagenet")
def _resnet18_imagenet(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """ImageNet's stem; NTK-SAP uses it for Tiny-ImageNet too."""
    return ResNet(channels, classes, FOUR_STAGES, (2, 2, 2, 2), large=True, width=width)


@register_model("resnet50")
def _resnet50(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """The ResNet-50 of ProsPr and FORCE for CIFAR and Tiny-ImageNet."""
    return ResNet(channels, classes, FOUR_STAGES, (3, 4, 6, 3), block=Bottleneck, width=width)


@register_model("resnet50-imagenet")
def _resnet50_imagenet(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    """torchvision's ResNet-50."""
    return ResNet(channels, classes, FOUR_STAGES, (3, 4, 6, 3), block=Bottleneck, large=True, width=width)
