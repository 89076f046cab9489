"""Five small networks for the laws of methods, with the symmetries of their hidden units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pai_bench.core.randomness import torch_seeded
from pai_bench.scoring import Batch

CLASSES = 4
SHAPE = (1, 4, 4)
"""Shape of an input."""


@dataclass(frozen=True)
class Units:
    """Hidden units (channels) whose order or scale does not change what a network computes."""

    rows: tuple[str, ...]
    """Parameters and buffers with one entry a unit in their first dimension; empty where the order matters."""
    columns: tuple[str, ...]
    """Weights that read the units in their second dimension, several columns a unit where the units were flattened."""
    scaled: tuple[str, ...] = ()
    """Parameters that may be multiplied by c > 0 while the columns are divided by c."""
    norms: bool = False
    """True if the scaled parameters are gains and biases of norms, False for weights and biases."""


@dataclass(frozen=True)
class Network:
    """A kind of network for images of SHAPE and CLASSES classes."""

    name: str
    make: Callable[[], nn.Module]
    units: tuple[Units, ...]

    def build(self, device: torch.device) -> nn.Module:
        """Build the network; weights, biases and the statistics of norms follow from a fixed seed."""
        with torch_seeded(2026):
            network = self.make()
            for name, tensor in network.state_dict().items():
                if tensor.is_floating_point() and tensor.ndim == 1:
                    spread = torch.rand(tensor.shape)
                    positive = name.endswith(("running_var", "norm.weight")) or ("norm" in name and "weight" in name)
                    # Fresh networks have zeros and ones here, for which many mistakes in biases and norms go unnoticed.
                    tensor.copy_(0.5 + spread if positive else 0.4 * (spread - 0.5))
        return network.to(device)


def batches(device: torch.device, seed: int = 1, count: int = 2, size: int = 2) -> list[Batch]:
    """Return random batches of inputs [size, *SHAPE] and labels [size].

    Inputs are float64, because scoring does not copy them then, and writing to them would show.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, *SHAPE, generator=generator, dtype=torch.float64).to(device),
            torch.randint(CLASSES, (size,), generator=generator).to(device),
        )
        for _ in range(count)
    ]


def conv(inputs: int, outputs: int, side: int = 3, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, groups=groups, bias=bias)


def mlp() -> nn.Module:
    """Two hidden layers with biases."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, CLASSES))


class Block(nn.Module):
    """Two convolutions with BatchNorm beside an identity or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class Residual(nn.Module):
    """A stem, a block with an identity and one with a convolution beside it, and a global average."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(1, 4), nn.BatchNorm2d(4)
        self.first, self.second = Block(4, 4), Block(4, 5)
        self.linear = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(torch.relu(self.norm(self.conv(x)))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class VGG(nn.Module):
    """Two convolutions with biases, one of them with BatchNorm, a pooling, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(1, 4, bias=True), nn.BatchNorm2d(4)
        self.conv2 = conv(4, 5, bias=True)
        self.linear1, self.linear2 = nn.Linear(20, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        x = torch.relu(self.linear1(torch.max_pool2d(x, 2).flatten(1)))
        logits: Tensor = self.linear2(x)
        return logits


class Depthwise(nn.Module):
    """A convolution, a depthwise and a pointwise one, each with BatchNorm, and a global average."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(1, 5), nn.BatchNorm2d(5)
        self.depthwise, self.norm1 = conv(5, 5, groups=5), nn.BatchNorm2d(5)
        self.pointwise, self.norm2 = conv(5, 6, 1), nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.depthwise(torch.relu(self.norm(self.conv(x))))))
        x = torch.relu(self.norm2(self.pointwise(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class Transformer(nn.Module):
    """Rows of the image as tokens, one layer of attention with two heads and a hidden layer, norms before both."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True, norm_first=True)
        self.linear = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.layer(self.embed(x.squeeze(1))).mean(1))
        return logits


def _norm(name: str) -> tuple[str, ...]:
    return (f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var")


def _affine(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.{part}" for name in names for part in ("weight", "bias"))


NETWORKS = {
    network.name: network
    for network in (
        Network(
            "mlp",
            mlp,
            (
                Units(_affine("1"), ("3.weight",), _affine("1")),
                Units(_affine("3"), ("5.weight",), _affine("3")),
            ),
        ),
        Network(
            "residual",
            Residual,
            (
                *(
                    Units(
                        (f"{block}.conv1.weight", *_norm(f"{block}.norm1")),
                        (f"{block}.conv2.weight",),
                        _affine(f"{block}.norm1"),
                        norms=True,
                    )
                    for block in ("first", "second")
                ),
                Units(
                    ("conv.weight", *_norm("norm"), "first.conv2.weight", *_norm("first.norm2")),
                    ("first.conv1.weight", "second.conv1.weight", "second.shortcut.weight"),
                    _affine("norm", "first.norm2"),
                    norms=True,
                ),
            ),
        ),
        Network(
            "vgg",
            VGG,
            (
                Units((*_affine("conv1"), *_norm("norm1")), ("conv2.weight",), _affine("norm1"), norms=True),
                Units(_affine("conv2"), ("linear1.weight",), _affine("conv2")),
                Units(_affine("linear1"), ("linear2.weight",), _affine("linear1")),
            ),
        ),
        Network(
            "depthwise",
            Depthwise,
            (
                Units(
                    ("conv.weight", *_norm("norm"), "depthwise.weight", *_norm("norm1")),
                    ("pointwise.weight",),
                    _affine("norm1"),
                    norms=True,
                ),
                Units(("pointwise.weight", *_norm("norm2")), ("linear.weight",), _affine("norm2"), norms=True),
            ),
        ),
        Network(
            "transformer",
            Transformer,
            (
                Units(_affine("layer.linear1"), ("layer.linear2.weight",), _affine("layer.linear1")),
                Units((), ("layer.linear1.weight",), _affine("layer.norm2"), norms=True),
            ),
        ),
    )
}
"""The networks by name."""
