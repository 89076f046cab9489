"""Masks on a model: weights at zero, and gradients that keep them there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError


class _MaskedGradient:
    """A forward pre-hook that sees to it that the weight it belongs to has its gradient masked.

    A gradient hook on a parameter is lost when the parameter is copied; a module's hook is copied with the module.
    So the module's hook puts the gradient hook where it is missing.
    """

    def __init__(self, attribute: str, mask: Tensor) -> None:
        self.attribute = attribute
        self.removed = ~mask

    def __call__(self, module: nn.Module, inputs: object) -> None:
        del inputs
        weight = getattr(module, self.attribute)
        if weight.requires_grad and self.mask_gradient not in (weight._backward_hooks or {}).values():
            weight.register_hook(self.mask_gradient)

    def mask_gradient(self, gradient: Tensor) -> Tensor:
        """Zero where the mask is False, also where the gradient is infinite."""
        if self.removed.device != gradient.device:
            self.removed = self.removed.to(gradient.device)
        return gradient.masked_fill(self.removed, 0)


class _MaskedModel:
    """A forward pre-hook of a whole model that calls those of its layers, whose own forward need not be called."""

    def __call__(self, model: nn.Module, inputs: object) -> None:
        for module in model.modules():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, _MaskedGradient):
                    hook(module, inputs)


def without_masks(model: nn.Module) -> nn.Module:
    """Take what `apply_masks` has hung on a model off it, in place (weights stay zero); returns it.

    Gradient hooks on its parameters are not looked for: a copy has none.
    """
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, (_MaskedGradient, _MaskedModel)):
                del module._forward_pre_hooks[key]
    return model


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights that `masks` (bool by parameter name, True = kept) prune to zero, and mask their gradients.

    Mutates the model: under any optimiser whose step for a zero gradient and a zero weight is zero (SGD with
    momentum and weight decay, Adam) the pruned weights stay exactly zero. Survives copy.deepcopy; the keys of
    state_dict stay as they are. Masks given a second time replace the first ones.

    Raises: PaiBenchError for a name that is no parameter, another shape, or masks that are not bool; then nothing
    of the model has changed.
    """
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise PaiBenchError(f"no parameter is called {name!r}", f"the model has: {', '.join(parameters)}")
        if mask.dtype != torch.bool or mask.shape != parameters[name].shape:
            raise PaiBenchError(
                f"the mask of {name} is {mask.dtype} {list(mask.shape)}",
                f"it must be torch.bool {list(parameters[name].shape)}, True = kept",
            )
    for name, mask in masks.items():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        parameter = parameters[name]
        mask = mask.detach().to(parameter.device)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _MaskedGradient) and hook.attribute == attribute:
                del module._forward_pre_hooks[key]
                for handle, old in list((parameter._backward_hooks or {}).items()):
                    if old == hook.mask_gradient:
                        del parameter._backward_hooks[handle]  # type: ignore[union-attr]
        with torch.no_grad():
            parameter.masked_fill_(~mask, 0)
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~mask, 0)
        hook = _MaskedGradient(attribute, mask)
        module.register_forward_pre_hook(hook)
        hook(module, None)
    if not any(isinstance(hook, _MaskedModel) for hook in model._forward_pre_hooks.values()):
        model.register_forward_pre_hook(_MaskedModel())


class MaskedGradients:
    """Zeroes the gradients of pruned weights, all in one fused operation; the weights start at zero and stay there."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters())
        # A layer that is kept whole needs no mask.
        partial = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        self._weights = [parameters[name] for name in partial]
        self._removed = [~mask.to(weight.device) for mask, weight in zip(partial.values(), self._weights, strict=True)]
        # In each weight's own order of memory, as its gradient is: else the fused operation takes them one by one.
        self._masks = [
            torch.zeros_like(w, requires_grad=False).masked_fill_(~r, 1)
            for r, w in zip(self._removed, self._weights, strict=True)
        ]
        self.reset()

    def reset(self) -> None:
        """Set the pruned weights to exactly zero."""
        with torch.no_grad():
            for weight, removed in zip(self._weights, self._removed, strict=True):
                weight.masked_fill_(removed, 0)

    def __call__(self) -> None:
        """Mask the gradients that a backward pass has just left."""
        gradients, masks = [weight.grad for weight in self._weights], self._masks
        if any(gradient is None for gradient in gradients):  # of a layer that the output does not depend on
            pairs = [(g, mask) for g, mask in zip(gradients, masks, strict=True) if g is not None]
            gradients, masks = [g for g, _ in pairs], [mask for _, mask in pairs]
        if gradients:
            torch._foreach_mul_(gradients, masks)  # type: ignore[arg-type]

    def intact(self) -> bool:
        """Whether every pruned weight is exactly zero."""
        return not any(bool(w[removed].any()) for w, removed in zip(self._weights, self._removed, strict=True))
