"""Small networks without a family: for quick runs, for digits, and of the lottery ticket papers."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError
from pai_bench.models.layers import conv, require_size, scaled
from pai_bench.models.registry import register_model

SMALLEST_LENET5 = 16
"""Smallest image of which LeNet-5-Caffe's convolutions and poolings leave a pixel."""


class LeNet300(nn.Module):
    """LeNet-300-100 (LeCun et al. 1998): two hidden layers on the flat image."""

    def __init__(self, inputs: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        first, second = scaled(300, width), scaled(100, width)
        self.fc1 = nn.Linear(inputs, first)
        self.fc2 = nn.Linear(first, second)
        self.linear = nn.Linear(second, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.linear(F.relu(self.fc2(x)))
        return logits


class LeNet5Caffe(nn.Module):
    """LeNet-5-Caffe: two 5x5 convolutions of 20 and 50 channels, each with a pooling, then 500 hidden units.

    The convolutions have no activation, as in namhoonlee/snip-public (network.py) and in Caffe's example.
    """

    def __init__(self, channels: int, size: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        first, second, hidden = (scaled(units, width) for units in (20, 50, 500))
        self.conv1 = nn.Conv2d(channels, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        side = ((size - 4) // 2 - 4) // 2
        self.fc1 = nn.Linear(second * side * side, hidden)
        self.linear = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        logits: Tensor = self.linear(F.relu(self.fc1(x.flatten(1))))
        return logits


class SmallConv(nn.Module):
    """Three 3x3 convolutions with BatchNorm, a global average and a classifier; ours, for quick runs."""

    def __init__(self, channels: int, widths: Sequence[int], strides: Sequence[int], classes: int) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = conv(channels, first, stride=strides[0])
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = conv(first, second, stride=strides[1])
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = conv(second, third, stride=strides[2])
        self.bn3 = nn.BatchNorm2d(third)
        self.linear = nn.Linear(third, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class LotteryConv(nn.Module):
    """Conv-4 and Conv-6 of Frankle and Carbin 2019: pairs of 3x3 convolutions and a pooling, then three linear layers.

    `norms` puts a BatchNorm after each hidden layer.
    """

    def __init__(
        self, channels: int, size: int, classes: int, widths: Sequence[int], norms: bool, width: float = 1.0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for outputs in (scaled(number, width) for number in widths):
            for _ in range(2):
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
                layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if norms else [nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        head: list[nn.Module] = []
        inputs *= (size // 2 ** len(widths)) ** 2
        hidden = scaled(256, width)
        for _ in range(2):
            head.append(nn.Linear(inputs, hidden))
            head += [nn.BatchNorm1d(hidden), nn.ReLU()] if norms else [nn.ReLU()]
            inputs = hidden
        self.classifier = nn.Sequential(*head, nn.Linear(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


@register_model("lenet-300-100")
def _lenet(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    return LeNet300(channels * size * size, classes, width)


@register_model("lenet-5-caffe")
def _lenet5_caffe(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    if size < SMALLEST_LENET5:
        raise PaiBenchError(
            f"lenet-5-caffe needs images of {SMALLEST_LENET5}x{SMALLEST_LENET5} pixels or more, not {size}x{size}",
            "use larger images, or a model such as conv8",
        )
    return LeNet5Caffe(channels, size, classes, width)


@register_model("conv8")
def _conv8(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    return SmallConv(channels, [scaled(n, width) for n in (16, 32, 32)], (1, 2, 1), classes)


@register_model("conv28")
def _conv28(channels: int, _size: int, classes: int, width: float = 1.0) -> nn.Module:
    return SmallConv(channels, [scaled(n, width) for n in (16, 32, 64)], (2, 2, 2), classes)


@register_model("conv4-lth")
def _conv4_lth(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    require_size("conv4-lth", size, 2)
    return LotteryConv(channels, size, classes, (64, 128), norms=False, width=width)


@register_model("conv6-lth")
def _conv6_lth(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    require_size("conv6-lth", size, 3)
    return LotteryConv(channels, size, classes, (64, 128, 256), norms=False, width=width)


@register_model("conv6-bn")
def _conv6_bn(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """The Conv-6 of eliacunegatti/mge-snn."""
    require_size("conv6-bn", size, 3)
    return LotteryConv(channels, size, classes, (64, 128, 256), norms=True, width=width)
