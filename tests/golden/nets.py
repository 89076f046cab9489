"""The networks of the golden cases, with the parameter names that the cases use."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, then one segment of blocks per (width, count) of the plan, 1x1-conv shortcuts, pooling, classifier."""

    def __init__(self, plan: list[tuple[int, int]]) -> None:
        super().__init__()
        width = plan[0][0]
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        blocks = []
        for segment, (outputs, count) in enumerate(plan):
            for position in range(count):
                blocks.append(Block(width, outputs, 2 if segment and not position else 1))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3)))


class PaddedBlock(Block):
    """ProsPr's block: the shortcut of a stride of two is a subsampled input, zero-padded in the channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.shortcut = nn.Sequential()
        self.pad = outputs // 4 if stride != 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x))


class ResNet20A(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for position, (inputs, outputs) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            stride = 1 if position == 1 else 2
            blocks = [PaddedBlock(inputs, outputs, stride), *(PaddedBlock(outputs, outputs, 1) for _ in range(2))]
            setattr(self, f"layer{position}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


class LeNet300(nn.Module):
    """SNIP's TensorFlow LeNet; inputs [B, 28, 28, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(F.relu(self.w2(F.relu(self.w1(x.flatten(1))))))


def build(name: str) -> nn.Module:
    """The golden network of that name."""
    if name == "tinyres":
        return ResNet([(8, 1), (16, 1)])
    if name == "resnet20":
        return ResNet([(16, 3), (32, 3), (64, 3)])
    if name == "resnet20A":
        return ResNet20A()
    if name == "tinyvgg":
        names = ("conv1", "bn1", "relu1", "pool1", "conv2", "bn2", "relu2", "pool2", "flatten", "fc1", "relu3", "fc2")
        pool = [nn.ReLU(), nn.MaxPool2d(2)]
        first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        convolutions = [first, nn.BatchNorm2d(8), *pool, second, nn.BatchNorm2d(12), *pool]
        layers = [*convolutions, nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 10)]
        return nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
    if name == "mlp":
        layers = [nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)]
        return nn.Sequential(*layers)
    if name == "lenet300":
        return LeNet300()
    raise KeyError(name)


def load(model: nn.Module, arrays: dict[str, Tensor]) -> None:
    """Give the model the weights and buffers of a case; those that the case does not name keep their defaults."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for key, value in arrays.items():
            own[key].copy_(value)
