"""Initialisation schemes of the papers, by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from pai_bench.core.randomness import torch_seeded
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
    """Initialise as Synaptic-Flow and FORCE do."""
    _kaiming(model, (nn.Conv2d, nn.Linear), "fan_in")
    _zero_biases(model, (nn.Conv2d, nn.Linear))


def _kaiming_fan_out(model: nn.Module) -> None:
    """Initialise as Synaptic-Flow's ResNet for Tiny-ImageNet: only convolutions; linear layers keep the default."""
    _kaiming(model, (nn.Conv2d,), "fan_out")


def _ntk_sap(model: nn.Module) -> None:
    """Initialise as NTK-SAP and PX do: biases keep PyTorch's default."""
    _kaiming(model, (nn.Conv2d, nn.Linear), "fan_in")


def _openlth(model: nn.Module) -> None:
    """Initialise as OpenLTH, and so Frankle et al.: as NTK-SAP, with weights of norms uniform in [0, 1)."""
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
    """Initialise each architecture as ProsPr's release does; ResNet-18 and other networks keep PyTorch's defaults.

    Its VGG is torchvision's, with a head replaced after the weights were drawn; ResNet-20 keeps the default bias.
    """
    if isinstance(model, VGG):
        _kaiming(model, (nn.Conv2d,), "fan_out")
        _zero_biases(model, (nn.Conv2d,))
    elif isinstance(model, ResNet) and model.stages == 3:
        _kaiming(model, (nn.Conv2d, nn.Linear), "fan_in")


def _matrices(model: nn.Module) -> Iterator[tuple[Tensor, int, int]]:
    """Yield each weight of conv, linear and recurrent layers with its fan-in and fan-out as TensorFlow counts them.

    The input and the hidden matrix of a recurrent layer are one kernel there, so their fan-in is the sum of both.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight
            area = weight[0, 0].numel()
            yield weight, weight.shape[1] * area, weight.shape[0] * area
        elif isinstance(module, nn.RNNBase):
            for layer in module.all_weights:
                # The first two entries are the matrices; biases and projections follow.
                into, hidden = layer[:2]
                fan_in = into.shape[1] + hidden.shape[1]
                yield from ((weight, fan_in, len(weight)) for weight in (into, hidden))


def _zero_all_biases(model: nn.Module) -> None:
    _zero_biases(model, (nn.Conv2d, nn.Linear))
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(parameter)


TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of the standard normal distribution truncated at two of its standard deviations."""


def _variance_scaling(scale: float, mode: Literal["fan_in", "fan_avg"]) -> Callable[[nn.Module], None]:
    """Return TensorFlow's variance_scaling_initializer: a truncated normal with variance scale / fan; biases zero."""

    def draw(model: nn.Module) -> None:
        for weight, fan_in, fan_out in _matrices(model):
            fan = fan_in if mode == "fan_in" else (fan_in + fan_out) / 2
            # Truncation reduces the deviation; TensorFlow divides by this factor to restore the requested variance.
            std = math.sqrt(scale / fan) / TRUNCATED_STD
            nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std)
        _zero_all_biases(model)

    return draw


def _fixed_variance(std: float, truncated: bool) -> Callable[[nn.Module], None]:
    """Return a normal initialiser whose standard deviation does not depend on the layer; biases zero."""

    def draw(model: nn.Module) -> None:
        for weight, _, _ in _matrices(model):
            if truncated:
                nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std)
            else:
                nn.init.normal_(weight, 0.0, std)
        _zero_all_biases(model)

    return draw


_SCHEMES: dict[str, Callable[[nn.Module], None]] = {
    "torch": lambda model: None,  # each module's own reset_parameters, which `initialise` calls first
    "kaiming-normal-fan-in": _kaiming_fan_in,
    "kaiming-normal-fan-out": _kaiming_fan_out,
    "grasp": _grasp,
    "ntk-sap": _ntk_sap,
    "openlth": _openlth,
    "prospr": _prospr,
    "variance-scaling": _variance_scaling(1.0, "fan_in"),  # SNIP's release: "vs"
    "glorot-truncated": _variance_scaling(1.0, "fan_avg"),  # SNIP: VS-X
    "he-truncated": _variance_scaling(2.0, "fan_in"),  # SNIP: VS-H
    "normal": _fixed_variance(0.1, truncated=False),  # SNIP: RN
    "truncated-normal": _fixed_variance(0.1, truncated=True),  # SNIP: TN
}


def schemes() -> list[str]:
    """Return all known initialisation schemes in alphabetical order."""
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
    with torch_seeded(generator_seed), torch.no_grad():
        reset_parameters(twin)
        _SCHEMES[scheme](twin)
    # The state includes the reset statistics of norms.
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
