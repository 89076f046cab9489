"""Masks on a model: applied, read back and removed; masked gradients in the harness's own training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError
from pai_bench.pruning.mask_hooks import LayerMask, ModelMasks, Pass, layer_masks, zero
from pai_bench.results.mask_forms import bare
from pai_bench.scoring.diagnosis import check_memory
from pai_bench.scoring.weights import prunable_weights

_REMOVED = "_pai_bench_removed"
"""Attribute of a layer: what masks had pruned before they were removed, bool by the name of the weight."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and torch.compile, or the model itself.

    Raises: PaiBenchError for a model with scripted modules, whose layers and hooks are not accessible.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise PaiBenchError(
            "the model contains modules of TorchScript (torch.jit)",
            "pass the model from before torch.jit.script or trace",
        )
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _located(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks under the names that `model` (unwrapped) itself uses.

    Raises: PaiBenchError for a name that is not a parameter of it, another shape, or masks that are not bool.
    """
    if not isinstance(masks, Mapping):
        raise PaiBenchError(
            f"the masks are an object of type {type(masks).__name__}",
            "pass what prune or load_masks returns: torch.bool by parameter name, True = kept",
        )
    # A weight that two layers share goes by either name.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    by_bare = {bare(name): name for name in parameters}
    found: dict[str, Tensor] = {}
    for given, mask in masks.items():
        name = given if given in parameters else by_bare.get(bare(given), "")
        if not name:
            if f"{given}_orig" in parameters:
                raise PaiBenchError(
                    f"{given} is already pruned by torch.nn.utils.prune",
                    "call torch.nn.utils.prune.remove on its layer first; pai_bench.masks_of has these masks",
                )
            raise PaiBenchError(
                f"no parameter is called {given!r}", f"the model has: {', '.join(dict(model.named_parameters()))}"
            )
        if parameters[name].is_meta:
            raise PaiBenchError(
                f"{name} is on the meta device and has no values",
                "call model.to_empty(device=…) and load the weights, then apply the masks",
            )
        if parameters[name].is_inference() and not torch.is_inference_mode_enabled():
            raise PaiBenchError(
                f"{name} was made in torch.inference_mode and cannot be changed",
                "copy the model outside of it: model = copy.deepcopy(model)",
            )
        shape = parameters[name].shape
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
            what = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise PaiBenchError(f"the mask of {given} is {what}", f"it must be torch.bool {list(shape)}, True = kept")
        found[name] = mask
    return found


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights that `masks` (bool by parameter name, True = kept) prune to zero, and keep them there.

    Mutates the model. Pruned weights are zero in every forward pass and in every state_dict, whatever has written to
    them. They are zero directly after each step of a torch.optim.Optimizer, also one with a history (momentum, Adam),
    and directly after load_state_dict; writes in place (nn.init functions, reset_parameters, vector_to_parameters,
    optimisers of other classes) are undone at the next forward pass. Pruned weights that are infinite or NaN become
    zero like all others. The gradients of pruned weights are zero.

    The masks survive copy.deepcopy, torch.save of the whole model, `to`, torch.compile and data-parallel wrappers. The
    keys of state_dict do not change, hence a checkpoint contains zeros but no masks: save them with `save_masks`.
    Names may have the prefixes `module.` and `_orig_mod.` or lack them. Masks given a second time replace the first.

    Raises: PaiBenchError for a name that is not a parameter, another shape, masks that are not bool, or parameters on
    the meta device; then nothing of the model has changed. A forward pass raises it where a masked weight is not a
    parameter (torch.func).
    """
    model = unwrapped(model)
    shared = Pass()
    located = _located(model, masks)
    check_memory(dict(model.named_parameters()))
    for name, mask in located.items():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        parameter = module._parameters[attribute]
        assert parameter is not None
        mask = mask.detach().to(parameter.device)
        _drop(module, attribute)
        module.__dict__.get(_REMOVED, {}).pop(attribute, None)
        with torch.no_grad():
            parameter.masked_fill_(~mask, 0)
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~mask, 0)
        hook = LayerMask(name, attribute, mask, parameter, shared)
        hook.weight(module)  # registers the gradient hook
        module.register_forward_pre_hook(hook)
        module.register_state_dict_pre_hook(hook.before_state_dict)
        module.register_load_state_dict_post_hook(hook.after_load)
    _drop_model_hooks(model)
    for _, hook in layer_masks(model):
        hook.shared = shared
    whole = ModelMasks(model, shared)
    model.register_forward_pre_hook(whole.before_forward)
    model.register_forward_hook(whole.after_forward, always_call=True)
    _forget_compiled()


def remove_masks(model: nn.Module) -> None:
    """Make pruning permanent: set the pruned weights to zero and remove all hooks of `apply_masks`.

    Mutates the model. From here on an optimiser may change these weights again. A model without masks stays as it is.
    A weight counts as pruned in a later `prune` while it is zero.
    """
    found = list(layer_masks(model))
    zero([(mask, mask.weight(module)) for module, mask in found])
    for module, mask in found:
        _drop(module, mask.attribute)
        module.__dict__.setdefault(_REMOVED, {})[mask.attribute] = mask.removed
    for module in model.modules():
        _drop_model_hooks(module)
    if found:
        _forget_compiled()


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the masks on a model, bool by parameter name (True = kept), as copies; empty where there are none.

    Names are those of the model inside DataParallel, DistributedDataParallel and torch.compile. Masks that
    torch.nn.utils.prune has put on it are listed too.
    """
    model = unwrapped(model)
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        inside = f"{prefix}." if prefix else ""
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, LayerMask):
                found[inside + hook.attribute] = ~hook.removed
        for key, buffer in module._buffers.items():
            attribute = key.removesuffix("_mask")
            if buffer is not None and key != attribute and f"{attribute}_orig" in module._parameters:
                found[inside + attribute] = buffer != 0
    return found


def starting_masks(model: nn.Module) -> dict[str, Tensor]:
    """Return the masks with which pruning of a model begins, bool by parameter name (True = kept).

    They are the masks on the model, and the zeros that remain of masks which `remove_masks` has removed. Other zeros
    count as kept: a weight may have been initialised with zero.
    """
    model = unwrapped(model)
    found = masks_of(model)
    for prefix, module in model.named_modules():
        for attribute, removed in module.__dict__.get(_REMOVED, {}).items():
            weight = module._parameters.get(attribute)
            if weight is not None and weight.shape == removed.shape:
                found[f"{prefix}.{attribute}" if prefix else attribute] = (weight != 0) | ~removed.to(weight.device)
    return found


def sparsity(model: nn.Module) -> float:
    """Return the fraction of the prunable weights of a model that its masks prune, between 0 and 1; 0.0 without masks.

    Counts the masks of `apply_masks`, not zeros. The prunable weights are those that `prune` counts without `only` and
    `exclude`; a masked weight that is frozen now (requires_grad=False) counts too. The model inside DataParallel,
    DistributedDataParallel or torch.compile is measured.

    Raises: PaiBenchError for a model without prunable weights, or with a layer of torch.nn.utils.prune.
    """
    model = unwrapped(model)
    masks = masks_of(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    every = {id(weight) for weight in prunable_weights(model, only="*").values()}
    counted = {id(weight): weight.numel() for weight in prunable_weights(model).values()}
    pruned: dict[int, int] = {}
    for name, mask in masks.items():
        # By identity: a shared weight has several names, and counts once.
        if (key := id(parameters[name])) in every:
            counted[key] = mask.numel()
            pruned[key] = int((~mask).sum())
    return sum(pruned.values()) / sum(counted.values())


def _drop(module: nn.Module, attribute: str) -> None:
    """Take the hooks of one weight off a module and its parameter."""
    parameter = module._parameters.get(attribute)
    gradients = {} if parameter is None else parameter._backward_hooks or {}
    for hooks in (*_registries(module), gradients):
        for key, hook in list(hooks.items()):
            owner = _owner(hook)
            if isinstance(owner, LayerMask) and owner.attribute == attribute:
                del hooks[key]


def _drop_model_hooks(module: nn.Module) -> None:
    """Take the hooks for a whole model off this module."""
    for hooks in _registries(module):
        for key, hook in list(hooks.items()):
            if isinstance(_owner(hook), ModelMasks):
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)


def _registries(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Return the dicts of a module that hold its hooks."""
    return (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._state_dict_pre_hooks,
        module._load_state_dict_post_hooks,
    )


def _owner(hook: object) -> object:
    """Return the hook itself, or the object whose method it is."""
    return getattr(hook, "__self__", hook)


def _forget_compiled() -> None:
    """Discard compiled code, because code compiled before does not call hooks that are registered later."""
    if "torch._dynamo" in sys.modules:
        # Only if the compiler has been loaded, because loading it takes seconds.
        torch.compiler.reset()


class MaskedGradients:
    """Zeroes the gradients of pruned weights, all in one fused operation; the weights start at zero and stay there."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], changing: bool = False) -> None:
        """Take the model and its masks; `changing`: `refresh` will be called."""
        parameters = dict(model.named_parameters())
        # A layer that is kept whole, and stays so, needs no mask.
        partial = {name: mask for name, mask in masks.items() if changing or not bool(mask.all())}
        self._names = list(partial)
        self._weights = [parameters[name] for name in partial]
        self._removed = [~mask.to(weight.device) for mask, weight in zip(partial.values(), self._weights, strict=True)]
        # In each weight's own order of memory, as its gradient is: else the fused operation takes them one by one.
        self._masks = [
            torch.zeros_like(w, requires_grad=False).masked_fill_(~r, 1)
            for r, w in zip(self._removed, self._weights, strict=True)
        ]
        self.reset()

    @torch.no_grad()
    def refresh(self, masks: Mapping[str, Tensor]) -> None:
        """Take other masks. The tensors keep their addresses, which captured CUDA graphs contain."""
        for name, removed, factor in zip(self._names, self._removed, self._masks, strict=True):
            torch.logical_not(masks[name], out=removed)
            factor.copy_(masks[name])
        self.reset()

    def reset(self) -> None:
        """Set the pruned weights to exactly zero."""
        with torch.no_grad():
            for weight, removed in zip(self._weights, self._removed, strict=True):
                weight.masked_fill_(removed, 0)

    def __call__(self) -> None:
        """Mask the gradients of the last backward pass."""
        gradients, masks = [weight.grad for weight in self._weights], self._masks
        if any(gradient is None for gradient in gradients):  # of a layer that the output does not depend on
            pairs = [(g, mask) for g, mask in zip(gradients, masks, strict=True) if g is not None]
            gradients, masks = [g for g, _ in pairs], [mask for _, mask in pairs]
        if gradients:
            # A product and not masked_fill, of which there is no fused operation.
            torch._foreach_mul_(gradients, masks)  # type: ignore[arg-type]

    def intact(self) -> bool:
        """Return True if every pruned weight is exactly zero."""
        return not any(bool(w[removed].any()) for w, removed in zip(self._weights, self._removed, strict=True))
