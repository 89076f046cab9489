"""How exactly a network is computed: the precision of products, autocast, the order of pixels in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def float32_products(kind: str) -> Iterator[None]:
    """Compute float32 products on a GPU as "ieee" or "tf32" inside, whatever PyTorch's defaults and the caller say.

    PyTorch's own default is TF32 in convolutions alone.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = kind
    try:
        yield
    finally:
        for backend, old in zip(backends, before, strict=True):
            backend.fp32_precision = old


def laid_out(model: nn.Module, channels_last: bool) -> nn.Module:
    """The model itself, its convolutions' weights in the order that `forward` works with; no value changes."""
    return model.to(memory_format=torch.channels_last) if channels_last else model


def forward(model: nn.Module, x: Tensor, bfloat16: bool = False, channels_last: bool = False) -> Tensor:
    """The logits; with `bfloat16` what autocast makes of the model, in float32 at the end."""
    if channels_last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    if not bfloat16:
        logits: Tensor = model(x)
        return logits
    # Without its cache of cast weights, which a captured graph could not renew; each weight is cast once either way.
    with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
        logits = model(x)
    return logits.float()
