"""Layers that a model calls inside a transform of torch.func."""

from __future__ import annotations

import torch

from pai_bench.errors import PaiBenchError


def is_transformed() -> bool:
    """Return True inside a transform of torch.func (vmap, grad, jvp, functionalize, …)."""
    # PyTorch has no public function for it; `torch.autograd.Function.apply` asks the same one.
    return bool(torch._C._are_functorch_transforms_active())


def check_outside_vmap(method: str, layer: str) -> None:
    """Check that the inputs of a layer, which is being called, are those of the whole batch.

    Raises: PaiBenchError inside torch.func.vmap, which hides the batch from the layer.
    """
    levels = torch._C._functorch.get_interpreter_stack() if is_transformed() else None
    if any(level.key() == torch._C._functorch.TransformType.Vmap for level in levels or ()):
        raise PaiBenchError(
            f"{method} reads the inputs of each layer, and torch.func.vmap hides those of layer {layer}",
            "call that layer on the whole batch, or score with another method (snip, synflow, prospr)",
        )
