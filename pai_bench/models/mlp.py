"""Multilayer perceptrons with three hidden layers of equal width, of the Cubist Spiral experiments."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.models.layers import scaled
from pai_bench.models.registry import register_model

WIDTHS = (3, 4, 8, 16, 32, 64, 256)
"""Widths among those of stephenqz/sparsest (3 to 256)."""


class MLP(nn.Module):
    """Three hidden layers with ReLU and biases (Zhang and Papyan 2024, FourLayerMLP.py)."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, width)
        self.linear = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc3(F.relu(self.fc2(x))))
        logits: Tensor = self.linear(x)
        return logits


def _register(name: str, units: int) -> None:
    @register_model(name)
    def build(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
        return MLP(channels * size * size, scaled(units, width), classes)

    build.__doc__ = f"Three hidden layers of {units} units (Zhang and Papyan 2024)."


_register("mlp-3x3", 3)
_register("mlp-4x3", 4)
_register("mlp-8x3", 8)
_register("mlp-16x3", 16)
_register("mlp-32x3", 32)
_register("mlp-64x3", 64)
_register("mlp-256x3", 256)
