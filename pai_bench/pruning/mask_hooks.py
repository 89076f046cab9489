"""Hooks that keep the pruned weights of a model at zero and mask their gradients."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from pai_bench.errors import PaiBenchError


class Pass:
    """State that the hooks of one model share: `entered` is True during a forward pass of the whole model."""

    def __init__(self) -> None:
        self.entered = False


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type by the bytes of an element."""


class LayerMask:
    """Forward pre-hook of a layer: sets the pruned entries of one weight to zero and masks its gradient.

    The module holds the hook, not the parameter: copy.deepcopy drops the hooks of a parameter, and load_state_dict with
    assign=True replaces the parameter. The hook of the whole model does the work of all layers at once; this one acts
    where a layer is called by itself, and after load_state_dict and before state_dict.

    A pruned weight that is infinite or NaN becomes zero too, because the bits are multiplied as integers: 0 x NaN would
    be NaN, and filling each weight through a bool mask is not fused and takes several times as long.
    """

    def __init__(self, name: str, attribute: str, mask: Tensor, weight: nn.Parameter, shared: Pass) -> None:
        self.name = name
        self.attribute = attribute
        self.whole = bool(mask.all())
        self.removed = ~mask
        self.dtype = weight.dtype
        self.factor = _factor(self.removed, weight)
        self.shared = shared
        watch_optimizers()

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore a pickled hook, possibly in a process that has not applied masks itself."""
        self.__dict__.update(state)
        watch_optimizers()

    def __call__(self, module: nn.Module, inputs: object) -> None:
        del inputs
        if getattr(module, "_is_replica", False):
            # A replica of DataParallel has tensors that depend on the original parameters, not parameters.
            weight = getattr(module, self.attribute)
            setattr(module, self.attribute, weight.masked_fill(self.removed.to(weight.device), 0))
        elif not (self.whole or self.shared.entered):
            zero([(self, self.weight(module))])

    def after_load(self, module: nn.Module, keys: object) -> None:
        """Set to zero what load_state_dict has copied into pruned entries."""
        del keys
        zero([(self, self.weight(module))])

    def before_state_dict(self, module: nn.Module, prefix: str, keep_vars: bool) -> None:
        """Set the pruned entries, which may have been written to since the last forward pass, to zero."""
        del prefix, keep_vars
        zero([(self, self.weight(module))])

    def weight(self, module: nn.Module) -> nn.Parameter:
        """The masked parameter. `factor` is on its device afterwards, and the gradient hook is in place.

        Raises: PaiBenchError where the weight is not a parameter.
        """
        weight = module._parameters.get(self.attribute)
        if not isinstance(weight, nn.Parameter):
            raise PaiBenchError(
                f"{self.name} has a mask, but is not a parameter in this forward pass (torch.func.functional_call,"
                " vmap or grad, weight_norm, torch.nn.utils.prune)",
                "call pai_bench.remove_masks on a copy of the model, and pass weights times masks",
            )
        if weight.device != self.factor.device or weight.dtype != self.dtype:
            self.removed = self.removed.to(weight.device)
            self.dtype = weight.dtype
            self.factor = _factor(self.removed, weight)
        if weight.requires_grad and self.mask_gradient not in (weight._backward_hooks or {}).values():
            weight.register_hook(self.mask_gradient)
        return weight

    def mask_gradient(self, gradient: Tensor) -> Tensor:
        """Zero where the mask is False, also where the gradient is infinite."""
        if self.removed.device != gradient.device:
            self.removed = self.removed.to(gradient.device)
        return gradient.masked_fill(self.removed, 0)


def _factor(removed: Tensor, weight: Tensor) -> Tensor:
    """Return ones for kept and zeros for pruned entries: integers like `_integers(weight)`, in its memory format."""
    factor = torch.ones_like(_integers(weight.data), requires_grad=False)
    return factor.masked_fill_(removed.unsqueeze(-1) if factor.dim() > weight.dim() else removed, 0)


def _integers(values: Tensor) -> Tensor:
    """Return the bits of a tensor as integers, without a copy; complex128 gets a last dimension of its two parts."""
    if values.dtype == torch.complex128:
        values = torch.view_as_real(values)
    return values.view(_INTEGERS[values.dtype.itemsize])


def zero(masked: Sequence[tuple[LayerMask, nn.Parameter]]) -> None:
    """Set all pruned entries of these weights to zero in one fused operation, without waiting for the device.

    The values change without a new version of the parameter, so that graphs which hold it remain valid. Compiled code
    would write the values with a new version: there, the parameter gets other storage, and the graph of an earlier
    forward pass keeps the one that it has saved.
    """
    if not masked:
        return
    factors = [mask.factor for mask, _ in masked]
    values = [_integers(weight.data) for _, weight in masked]
    if not torch.compiler.is_compiling():
        torch._foreach_mul_(values, factors)
        return
    for (_, weight), zeroed in zip(masked, torch._foreach_mul(values, factors), strict=True):
        weight.data = (
            torch.view_as_complex(zeroed.view(torch.float64))
            if weight.dtype == torch.complex128
            else zeroed.view(weight.dtype)
        )


@functools.cache
def watch_optimizers() -> None:
    """Call `after_step` after each step of every torch.optim.Optimizer, from now on in this process."""
    # A hook for all optimisers, because masks are applied without any reference to the caller's optimiser.
    register_optimizer_step_post_hook(after_step)


def after_step(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
    """Set pruned weights to zero that an optimiser with a history has moved.

    The gradient hook of a parameter leads to its mask; a parameter without hooks costs one look-up.
    """
    del args, kwargs
    zero(
        [
            (hook.__self__, parameter)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if (hooks := parameter._backward_hooks)
            for hook in hooks.values()
            if isinstance(getattr(hook, "__self__", None), LayerMask) and not hook.__self__.whole
        ]
    )


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
        zero([(mask, mask.weight(module)) for module, mask in self.layers])
        self.shared.entered = True

    def after_forward(self, *_: object) -> None:
        self.shared.entered = False


def layer_masks(model: nn.Module) -> Iterator[tuple[nn.Module, LayerMask]]:
    """The layers of a model that have masks, with their hooks."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, LayerMask):
                yield module, hook
