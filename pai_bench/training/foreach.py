"""Operations on all tensors of a network in one kernel instead of one kernel per layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_CAST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers whose weight and bias autocast casts in every forward pass, and does nothing else with."""


class FewerKernels:
    """A forward and backward pass of a network with one kernel for all counters of its batch norms, and, in bfloat16,
    one for the casts of all weights and one for the casts of their gradients.

    The numbers are the same. Affected are layers of PyTorch's own classes that run exactly once in a forward pass (the
    first pass counts) and share no parameter; all others stay as they are.
    """

    def __init__(self, model: nn.Module, bfloat16: bool, compiled: bool = False) -> None:
        """Take the network; one that is `compiled` keeps all of its kernels, which the compiler has fused."""
        self._bfloat16 = bfloat16
        plain = not compiled and not any(
            hasattr(module, "_orig_mod") or module._compiled_call_impl for module in model.modules()
        )
        owners = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
        self._candidates = [module for module in model.modules() if plain and self._affected(module, owners)]
        self._ready = False
        self._norms: list[nn.Module] = []
        self._counters: list[Tensor] = []
        self._places: list[tuple[nn.Module, str]] = []
        self._weights: list[nn.Parameter] = []
        self._casts: list[nn.Parameter] = []

    def _affected(self, module: nn.Module, owners: Counter[int]) -> bool:
        if isinstance(module, _BatchNorm):
            plain = type(module).forward is _BatchNorm.forward and module.momentum is not None
            return plain and module.num_batches_tracked is not None
        return self._bfloat16 and type(module) in _CAST and all(owners[id(p)] == 1 for p in module.parameters())

    def run(self, forward: Callable[[], Tensor]) -> Tensor:
        """Compute the loss with `forward`, and its gradients; parameters must have no gradients before."""
        if not self._ready:
            loss = self._counted(forward)
            loss.backward()
            return loss
        with self._in_place():
            loss = forward()
        if self._counters:
            # BatchNorm itself would launch one kernel per layer for this integer.
            torch._foreach_add_(self._counters, 1)
        loss.backward()
        if self._casts:
            used = [(w, c.grad) for w, c in zip(self._weights, self._casts, strict=True) if c.grad is not None]
            for weight, _ in used:
                # Gradients are None before the pass, and the copy needs memory to write to.
                weight.grad = torch.empty_like(weight)
            torch._foreach_copy_([weight.grad for weight, _ in used], [cast for _, cast in used])  # type: ignore[misc]
        return loss

    def _counted(self, forward: Callable[[], Tensor]) -> Tensor:
        """Run a plain forward pass and note which layers run exactly once."""
        calls: Counter[nn.Module] = Counter()
        with ExitStack() as stack:
            for module in self._candidates:
                handle = module.register_forward_pre_hook(lambda module, inputs: calls.update([module]))
                stack.callback(handle.remove)
            loss = forward()
        once = [module for module in self._candidates if calls[module] == 1]
        self._norms = [module for module in once if isinstance(module, _BatchNorm) and module.training]
        self._counters = [module._buffers["num_batches_tracked"] for module in self._norms]  # type: ignore[misc]
        for module in once:
            if not isinstance(module, _BatchNorm):
                for name, weight in module._parameters.items():
                    if weight is not None and weight.requires_grad and weight.dtype == torch.float32:
                        self._places.append((module, name))
                        self._weights.append(weight)
                        self._casts.append(nn.Parameter(weight.detach().to(torch.bfloat16)))
        self._ready = True
        return loss

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Put the casts in the place of the weights, and take the counters away, for a forward pass."""
        if self._casts:
            with torch.no_grad():
                torch._foreach_copy_(self._casts, self._weights)  # type: ignore[arg-type]
            for cast in self._casts:
                cast.grad = None
        try:
            for (module, name), cast in zip(self._places, self._casts, strict=True):
                module._parameters[name] = cast
            for module in self._norms:
                module._buffers["num_batches_tracked"] = None
            yield
        finally:
            for (module, name), weight in zip(self._places, self._weights, strict=True):
                module._parameters[name] = weight
            for module, counter in zip(self._norms, self._counters, strict=True):
                module._buffers["num_batches_tracked"] = counter
