"""Numeric precision of the forward pass: the precision of products, autocast, the order of pixels in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.core.outputs import logits


@contextmanager
def float32_products(kind: str) -> Iterator[None]:
    """Compute float32 products on a GPU as "ieee" or "tf32" inside the context, whatever the defaults.

    PyTorch's own default is TF32 in convolutions and recurrent layers. It has old switches beside the new ones, and
    raises where somebody (a model that turns cuDNN off, say) reads an old one that does not agree: both are set.
    """
    old, new = (torch.backends.cuda.matmul, torch.backends.cudnn), _PRODUCTS
    before = [_switch(backend) for backend in old], [backend.fp32_precision for backend in new]
    _set(old, [kind == "tf32"] * len(old), new, [kind] * len(new))
    try:
        yield
    finally:
        _set(old, before[0], new, before[1])


def products(precision: str) -> str:
    """Return the kind of float32 products ("ieee" or "tf32") of a recipe's `train.precision`."""
    return "tf32" if precision == "tf32" else "ieee"


def in_channels_last(precision: str, requested: bool, device: torch.device) -> bool:
    """Return True if a network trains in the channels-last format: if `requested`, and in TF32 on a GPU.

    The tensor cores work in this format; in another one cuDNN transposes around every convolution.
    """
    return requested or (precision == "tf32" and device.type == "cuda")


_PRODUCTS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]


def _switch(backend: Any) -> bool | None:
    """Return the value of a legacy precision switch; None if the caller set the new switches to another value."""
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:
        return None


def _set(old: Sequence[Any], switches: Sequence[bool | None], new: Sequence[Any], kinds: Sequence[str]) -> None:
    """Set the old switches, and then the new ones, which the old ones move."""
    for backend, switch in zip(old, switches, strict=True):
        if switch is not None:
            backend.allow_tf32 = switch
    for backend, kind in zip(new, kinds, strict=True):
        backend.fp32_precision = kind


def laid_out(model: nn.Module, channels_last: bool) -> nn.Module:
    """Convert the weights of convolutions to the memory format that `forward` uses, and return the model."""
    # As a dict, because the types of torch 2.11 lack this argument.
    layout: dict[str, Any] = {"memory_format": torch.channels_last}
    return model.to(**layout) if channels_last else model


def forward(model: Callable[[Tensor], Any], x: Tensor, bfloat16: bool = False, channels_last: bool = False) -> Tensor:
    """Return the logits in float32 (see `outputs.logits`); with `bfloat16`, the forward pass runs under autocast."""
    if channels_last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    if not bfloat16:
        return logits(model(x))
    # Without its cache of cast weights, which a captured graph could not renew; each weight is cast once either way.
    with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
        outputs = model(x)
    # Losses need float32: bfloat16 has only eight significant bits.
    return logits(outputs).float()
