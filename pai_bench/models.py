"""The papers' networks by name, and how their weights are drawn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError, unknown

Builder = Callable[[int, int, int], nn.Module]
"""(channels, size, classes) to a network for images [B, channels, size, size] with logits [B, classes]."""

_builders: dict[str, Builder] = {}


def register_model(name: str) -> Callable[[Builder], Builder]:
    """Decorator that makes a builder known as the model `name`; also for plugin files.

    Raises: ValueError when the name is taken.
    """

    def decorate(builder: Builder) -> Builder:
        if name in _builders:
            raise ValueError(f"model {name!r} is registered twice: by {_builders[name]!r} and by {builder!r}")
        _builders[name] = builder
        return builder

    return decorate


def names() -> list[str]:
    """All known models in alphabetical order."""
    return sorted(_builders)


def build(name: str, channels: int, size: int, classes: int) -> nn.Module:
    """A new network `name` for images [B, channels, size, size]; call `initialise` for weights that a seed decides.

    Raises: PaiBenchError for an unknown name, or images that are too small for it.
    """
    if name not in _builders:
        raise unknown("model", name, _builders)
    return _builders[name](channels, size, classes)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class LeNet300(nn.Module):
    """LeNet-300-100 (LeCun et al. 1998): two hidden layers on the flat image."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, 300)
        self.fc2 = nn.Linear(300, 100)
        self.linear = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.linear(F.relu(self.fc2(x)))
        return logits


class SmallConv(nn.Module):
    """Three 3x3 convolutions with BatchNorm, a global average and a classifier; ours, for quick runs."""

    def __init__(self, channels: int, widths: Sequence[int], strides: Sequence[int], classes: int) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = _conv(channels, first, stride=strides[0])
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = _conv(first, second, stride=strides[1])
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = _conv(second, third, stride=strides[2])
        self.bn3 = nn.BatchNorm2d(third)
        self.linear = nn.Linear(third, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class ZeroPadShortcut(nn.Module):
    """Option A of He et al. (2016): every second pixel, new channels of zeros on both sides; no weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


Shortcut = Callable[[int, int, int], nn.Module]
"""(inputs, outputs, stride) to a module."""


def _conv_shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network with a 3x3 stem of stride 1 and no pooling before the global average."""

    def __init__(self, channels: int, classes: int, widths: Sequence[int], blocks: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = _conv(channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = len(widths)
        inputs = widths[0]
        for stage, width in enumerate(widths, start=1):
            layers: list[nn.Module] = []
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                layers.append(BasicBlock(inputs, width, stride, shortcut))
                inputs = width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class VGG(nn.Module):
    """VGG with BatchNorm in the form for small images: biases in the convolutions, four poolings, one linear layer."""

    def __init__(self, channels: int, classes: int, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for number, group in enumerate(groups):
            if number:
                layers.append(nn.MaxPool2d(2))
            for width in group:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


@register_model("lenet-300-100")
def _lenet(channels: int, size: int, classes: int) -> nn.Module:
    return LeNet300(channels * size * size, classes)


@register_model("conv8")
def _conv8(channels: int, _size: int, classes: int) -> nn.Module:
    return SmallConv(channels, (16, 32, 32), (1, 2, 1), classes)


@register_model("conv28")
def _conv28(channels: int, _size: int, classes: int) -> nn.Module:
    return SmallConv(channels, (16, 32, 64), (2, 2, 2), classes)


@register_model("resnet20")
def _resnet20(channels: int, _size: int, classes: int) -> nn.Module:
    """ProsPr's and the ResNet paper's wiring: shortcuts without weights."""
    return ResNet(channels, classes, (16, 32, 64), 3, ZeroPadShortcut)


@register_model("resnet20-conv")
def _resnet20_conv(channels: int, _size: int, classes: int) -> nn.Module:
    """The wiring of Synaptic-Flow, NTK-SAP and PX: 1x1 convolutions in the shortcuts."""
    return ResNet(channels, classes, (16, 32, 64), 3, _conv_shortcut)


@register_model("resnet18")
def _resnet18(channels: int, _size: int, classes: int) -> nn.Module:
    """The papers' ResNet-18 for CIFAR (32x32) and Tiny-ImageNet (64x64) alike."""
    return ResNet(channels, classes, (64, 128, 256, 512), 2, _conv_shortcut)


def _vgg(name: str, deep: int, channels: int, size: int, classes: int) -> nn.Module:
    if size < 16:
        raise PaiBenchError(
            f"{name} halves the image four times, and {size}x{size} pixels are too few",
            "use images of 16x16 or more, or a model such as conv8",
        )
    return VGG(channels, classes, ([64] * 2, [128] * 2, [256] * deep, [512] * deep, [512] * deep))


@register_model("vgg16-bn")
def _vgg16(channels: int, size: int, classes: int) -> nn.Module:
    return _vgg("vgg16-bn", 3, channels, size, classes)


@register_model("vgg19-bn")
def _vgg19(channels: int, size: int, classes: int) -> nn.Module:
    return _vgg("vgg19-bn", 4, channels, size, classes)


Kinds = tuple[type[nn.Module], ...]


def _kaiming(model: nn.Module, kinds: Kinds, mode: Literal["fan_in", "fan_out"]) -> None:
    for module in model.modules():
        if isinstance(module, kinds):
            nn.init.kaiming_normal_(module.get_parameter("weight"), mode=mode, nonlinearity="relu")


def _zero_biases(model: nn.Module, kinds: Kinds) -> None:
    for module in model.modules():
        if isinstance(module, kinds) and isinstance(module.bias, Tensor):
            nn.init.zeros_(module.bias)


def _kaiming_fan_in(model: nn.Module) -> None:
    """Synaptic-Flow and FORCE."""
    _kaiming(model, (nn.Conv2d, nn.Linear), "fan_in")
    _zero_biases(model, (nn.Conv2d, nn.Linear))


def _ntk_sap(model: nn.Module) -> None:
    """NTK-SAP and PX: biases keep PyTorch's default."""
    _kaiming(model, (nn.Conv2d, nn.Linear), "fan_in")


def _openlth(model: nn.Module) -> None:
    """OpenLTH, and so Frankle et al.: as NTK-SAP, and the norms' weights are uniform in [0, 1)."""
    _ntk_sap(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
            nn.init.zeros_(module.bias)


def _grasp(model: nn.Module) -> None:
    _kaiming(model, (nn.Conv2d,), "fan_out")
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
    _zero_biases(model, (nn.Conv2d, nn.Linear))


def _prospr(model: nn.Module) -> None:
    """ProsPr's release draws each architecture in its own way; ResNet-18 and what it has not keep PyTorch's defaults.

    VGG is torchvision's with the head replaced after its weights were drawn; ResNet-20 keeps the default bias.
    """
    if isinstance(model, VGG):
        _kaiming(model, (nn.Conv2d,), "fan_out")
        _zero_biases(model, (nn.Conv2d,))
    elif isinstance(model, ResNet) and model.stages == 3:
        _kaiming(model, (nn.Conv2d, nn.Linear), "fan_in")


_SCHEMES: dict[str, Callable[[nn.Module], None]] = {
    "torch": lambda model: None,  # each module's own reset_parameters, which `initialise` calls first
    "kaiming-normal-fan-in": _kaiming_fan_in,
    "grasp": _grasp,
    "ntk-sap": _ntk_sap,
    "openlth": _openlth,
    "prospr": _prospr,
}


def schemes() -> list[str]:
    """All known initialisation schemes in alphabetical order."""
    return sorted(_SCHEMES)


def initialise(model: nn.Module, scheme: str, generator_seed: int) -> None:
    """Draw all weights and biases anew, in place, and reset the norms.

    The draws are made on the CPU in float32 and then copied, so that they depend neither on the model's device
    nor on its dtype; PyTorch's global generators are left as they were.

    Raises: PaiBenchError for an unknown scheme.
    """
    if scheme not in _SCHEMES:
        raise unknown("initialisation scheme", scheme, _SCHEMES)
    twin = copy.deepcopy(model).cpu().float()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # torch.manual_seed would also seed the accelerators' generators, which are not forked here.
        torch.default_generator.manual_seed(generator_seed)
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        _SCHEMES[scheme](twin)
    model.load_state_dict(twin.state_dict())
