"""Forward hooks that keep the pruned weights of a model at zero and mask their gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError


class Pass:
    """State that the hooks of one model share: `entered` is True during a forward pass of the whole model."""

    def __init__(self) -> None:
        self.entered = False


class LayerMask:
    """Forward pre-hook of a layer: sets the pruned entries of one weight to zero and masks its gradient.

    The module holds the hook, not the parameter: copy.deepcopy drops the hooks of a parameter, and load_state_dict with
    assign=True replaces the parameter. The hook of the whole model does the work of all layers at once; this one acts
    where a layer is called by itself.
    """

    def __init__(self, name: str, attribute: str, mask: Tensor, weight: nn.Parameter, shared: Pass) -> None:
        self.name = name
        self.attribute = attribute
        self.whole = bool(mask.all())
        self.removed = ~mask
        self.factor = torch.zeros_like(weight, requires_grad=False).masked_fill_(mask, 1)
        self.shared = shared

    def __call__(self, module: nn.Module, inputs: object) -> None:
        del inputs
        if getattr(module, "_is_replica", False):
            # A replica of DataParallel has tensors that depend on the original parameters, not parameters.
            weight = getattr(module, self.attribute)
            setattr(module, self.attribute, weight * self.factor.to(weight))
        elif not (self.whole or self.shared.entered):
            self.values(module).mul_(self.factor)

    def values(self, module: nn.Module) -> Tensor:
        """The weight's values, to be changed in place without a new version: graphs that hold it remain valid.

        `factor` has their device, dtype and strides afterwards, and the gradient hook is in place.
        """
        weight = module._parameters.get(self.attribute)
        if not isinstance(weight, nn.Parameter):
            raise PaiBenchError(
                f"{self.name} has a mask, but is not a parameter in this forward pass (torch.func.functional_call,"
                " vmap or grad, weight_norm, torch.nn.utils.prune)",
                "call pai_bench.remove_masks on a copy of the model, and pass weights times masks",
            )
        if weight.dtype != self.factor.dtype or weight.device != self.factor.device:
            self.factor = torch.zeros_like(weight, requires_grad=False).copy_(self.factor)
            self.removed = self.removed.to(weight.device)
        if weight.requires_grad and self.mask_gradient not in (weight._backward_hooks or {}).values():
            weight.register_hook(self.mask_gradient)  # type: ignore[no-untyped-call]
        return weight.data

    def mask_gradient(self, gradient: Tensor) -> Tensor:
        """Zero where the mask is False, also where the gradient is infinite."""
        if self.removed.device != gradient.device:
            self.removed = self.removed.to(gradient.device)
        return gradient.masked_fill(self.removed, 0)


class ModelMasks:
    """Hooks of a whole model: all masked weights in one fused operation, without waiting for the device.

    They also cover layers whose own forward is not called, such as the output projection of attention.
    """

    def __init__(self, model: nn.Module, shared: Pass) -> None:
        self.layers = [(module, mask) for module, mask in layer_masks(model) if not mask.whole]
        self.shared = shared

    def before_forward(self, model: nn.Module, inputs: object) -> None:
        if getattr(model, "_is_replica", False):
            for module, mask in layer_masks(model):
                mask(module, inputs)
            return
        if torch.compiler.is_exporting():
            raise PaiBenchError(
                "torch.export cannot trace a model with masks", "call pai_bench.remove_masks first; the zeros remain"
            )
        self.zero()
        self.shared.entered = True

    def after_forward(self, *_: object) -> None:
        self.shared.entered = False

    def before_state_dict(self, model: nn.Module, prefix: str, keep_vars: bool) -> None:
        """The optimiser may have moved weights since the last forward pass; a checkpoint has the zeros."""
        del model, prefix, keep_vars
        self.zero()

    def after_load(self, model: nn.Module, keys: object) -> None:
        """Zero the pruned weights after load_state_dict."""
        del model, keys
        self.zero()

    def zero(self) -> None:
        """Set all pruned weights to zero."""
        if self.layers:
            values = [mask.values(module) for module, mask in self.layers]
            torch._foreach_mul_(values, [mask.factor for _, mask in self.layers])


def layer_masks(model: nn.Module) -> Iterator[tuple[nn.Module, LayerMask]]:
    """The layers of a model that have masks, with their hooks."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, LayerMask):
                yield module, hook
