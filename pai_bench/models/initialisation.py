"""Initialisation schemes of the papers, by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from pai_bench.errors import unknown
from pai_bench.models.resnet import ResNet
from pai_bench.models.vgg import VGG

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


def _kaiming_fan_out(model: nn.Module) -> None:
    """Synaptic-Flow's ResNet for Tiny-ImageNet: convolutions only, linear layers keep PyTorch's default."""
    _kaiming(model, (nn.Conv2d,), "fan_out")


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
    "kaiming-normal-fan-out": _kaiming_fan_out,
    "grasp": _grasp,
    "ntk-sap": _ntk_sap,
    "openlth": _openlth,
    "prospr": _prospr,
}


def schemes() -> list[str]:
    """All known initialisation schemes in alphabetical order."""
    return sorted(_SCHEMES)


def initialise(model: nn.Module, scheme: str, generator_seed: int) -> None:
    """Re-initialise all weights and biases in place, and reset the norms.

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
        reset_parameters(twin)
        _SCHEMES[scheme](twin)
    model.load_state_dict(twin.state_dict())


def reset_parameters(model: nn.Module) -> None:
    """Re-initialise every module by its own rule, from the global random generator.

    The method has a private name (`_reset_parameters`) in torch's attention and transformer modules. A module without
    it keeps its parameters.
    """
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()
