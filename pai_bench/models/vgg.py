"""VGG with BatchNorm in the forms of the papers: other depths, with and without biases, one or three linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pai_bench.models.layers import require_size, scaled
from pai_bench.models.registry import register_model

Groups = Sequence[Sequence[int]]
"""The widths of the convolutions between two poolings, group by group."""


def _groups(first: int, deep: int) -> Groups:
    """Return groups with `first` convolutions in each of the first two and `deep` in the other three."""
    return [64] * first, [128] * first, [256] * deep, [512] * deep, [512] * deep


def _scaled(groups: Groups, width: float) -> Groups:
    return [[scaled(size, width) for size in group] for group in groups]


class VGG(nn.Module):
    """VGG with BatchNorm in the form for small images: four poolings, a global average, one linear layer.

    With a `classifier` of its own the network has five poolings, and the classifier reads what they leave.
    """

    def __init__(
        self, channels: int, classes: int, groups: Groups, bias: bool = True, classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for number, group in enumerate(groups):
            if number:
                layers.append(nn.MaxPool2d(2))
            for width in group:
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
        self.flat = classifier is not None
        if self.flat:
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = classifier or nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        logits: Tensor = self.classifier(x.flatten(1) if self.flat else x.mean((2, 3)))
        return logits


def _register(name: str, groups: Groups, bias: bool = True) -> None:
    @register_model(name)
    def build(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
        require_size(name, size, 4)
        return VGG(channels, classes, _scaled(groups, width), bias)


_register("vgg11-bn", _groups(1, 2))
_register("vgg16-bn", _groups(2, 3))
_register("vgg19-bn", _groups(2, 4))
# GraSP's and FORCE's convolutions have no biases, which BatchNorm makes idle.
_register("vgg16-bn-nobias", _groups(2, 3), bias=False)
_register("vgg19-bn-nobias", _groups(2, 4), bias=False)


@register_model("vgg16-bn-tinyimagenet")
def _vgg16_tinyimagenet(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """Synaptic-Flow's and NTK-SAP's VGG-16 for 64x64 images: three linear layers with dropout."""
    require_size("vgg16-bn-tinyimagenet", size, 5)
    hidden = scaled(1024, width)
    classifier = nn.Sequential(
        nn.Linear(scaled(512, width) * (size // 32) ** 2, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, classes),
    )
    return VGG(channels, classes, _scaled(_groups(2, 3), width), classifier=classifier)


@register_model("vgg-d")
def _vgg_d(channels: int, size: int, classes: int, width: float = 1.0) -> nn.Module:
    """SNIP's VGG-D as in mil-ad/snip: linear layers of 512, each with BatchNorm after the ReLU."""
    require_size("vgg-d", size, 5)
    hidden = scaled(512, width)
    classifier = nn.Sequential(
        nn.Linear(scaled(512, width) * (size // 32) ** 2, hidden),
        nn.ReLU(),
        nn.BatchNorm1d(hidden),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.BatchNorm1d(hidden),
        nn.Linear(hidden, classes),
    )
    return VGG(channels, classes, _scaled(_groups(2, 3), width), classifier=classifier)
