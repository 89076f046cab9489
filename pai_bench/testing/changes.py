"""Changes of a scoring problem under which a method may claim to keep its masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pai_bench.scoring import Batch, prunable
from pai_bench.scoring.losses import Loss, cross_entropy
from pai_bench.testing.networks import Network, Units


@dataclass(frozen=True)
class Setting:
    """A model, its scoring batches and the loss."""

    model: nn.Module
    batches: list[Batch]
    loss: Loss | str = "cross-entropy"


Renaming = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Function from tensors by weight of the original problem to the tensors that are expected after the change."""


def changed(what: str, network: Network, setting: Setting) -> tuple[Setting, Renaming] | None:
    """Return the changed problem and the order of its weights; None where the network has no such change.

    The model of `setting` is changed in place.
    """
    generator = torch.Generator().manual_seed(7)
    if what == "sample-order":
        return replace(setting, batches=[(x.flip(0), y.flip(0)) for x, y in setting.batches]), dict
    if what in ("loss-scale", "loss-sign"):
        # A power of two, which changes no digit of a gradient.
        factor = 4.0 if what == "loss-scale" else -1.0
        return replace(setting, loss=lambda outputs, targets: factor * cross_entropy(outputs, targets)), dict
    if what in ("weights", "weight-signs"):
        with torch.no_grad():
            for weight in prunable(setting.model).values():
                signs = 2.0 * torch.randint(2, weight.shape, generator=generator) - 1
                sizes = torch.rand(weight.shape, generator=generator) + 0.5 if what == "weights" else 1.0
                weight.mul_((signs * sizes).to(weight))
        return setting, dict
    tensors = setting.model.state_dict()
    if what == "permutation":
        found = [units for units in network.units if units.rows]
        orders = [torch.randperm(len(tensors[units.rows[0]]), generator=generator) for units in found]

        def renamed(given: dict[str, Tensor]) -> dict[str, Tensor]:
            result = dict(given)
            for units, order in zip(found, orders, strict=True):
                result |= _permuted(result, units, order)
            return result

        setting.model.load_state_dict(renamed(dict(tensors)))
        return (setting, renamed) if found else None
    found = [units for units in network.units if units.scaled and units.norms == (what == "norm-rescaling")]
    for units in found:
        size = len(tensors[units.scaled[0]])
        # Powers of two, which change no digit of a product.
        factors = 2.0 ** torch.randint(-3, 4, (size,), generator=generator)
        _rescale(tensors, units, factors)
    return (setting, dict) if found else None


def _permuted(tensors: dict[str, Tensor], units: Units, order: Tensor) -> dict[str, Tensor]:
    found = {name: tensors[name][order.to(tensors[name].device)] for name in units.rows if name in tensors}
    for name in (name for name in units.columns if name in tensors):
        weight = tensors[name]
        grouped = weight.reshape(len(weight), len(order), -1)
        found[name] = grouped[:, order.to(weight.device)].reshape(weight.shape)
    return found


def _rescale(tensors: dict[str, Tensor], units: Units, factors: Tensor) -> None:
    for name in units.scaled:
        tensors[name].mul_(factors.to(tensors[name]).view(-1, *[1] * (tensors[name].ndim - 1)))
    for name in units.columns:
        grouped = tensors[name].view(len(tensors[name]), len(factors), -1)
        grouped.div_(factors.to(grouped).view(1, -1, 1))
