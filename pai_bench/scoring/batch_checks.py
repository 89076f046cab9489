"""Checks of the scoring batches of a caller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError


def checked(batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a batch as the caller's data give it; `device` is the device of the model.

    Raises: PaiBenchError for anything but a pair of tensors, for a batch without samples or values, and for types that
        networks and losses do not take.
    """
    remedy = "batches are pairs (x, y) of tensors: inputs [B, …], and class indices [B] or probabilities [B, classes]"
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
        kinds = [type(part).__name__ for part in batch] if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise PaiBenchError(f"a scoring batch is {kinds}, not a pair of tensors", remedy)
    x, y = batch
    if x.dtype == torch.uint8:
        raise PaiBenchError("scoring batches of uint8 images", "give them as floats, normalised as in training")
    if x.is_complex():
        raise PaiBenchError(f"scoring batches of complex inputs ({x.dtype})", "give real numbers: x.real or x.abs()")
    shapes = f"a scoring batch has inputs {list(x.shape)} and targets {list(y.shape)}"
    if not x.ndim or not y.ndim:
        raise PaiBenchError(f"{shapes}: it is a single sample", f"pass a DataLoader instead of a data set; {remedy}")
    if not len(x) or not len(y):
        raise PaiBenchError(f"{shapes}: it has no samples", "leave that batch out")
    if (x.is_meta or y.is_meta) and device.type != "meta":
        raise PaiBenchError("scoring batches on the meta device have no values", "pass tensors with values")
    tokens = y.ndim == 1 and x.ndim >= 2 and len(y) == x.shape[0] * x.shape[1]  # [B·T] for inputs [B, T]
    if (len(x) != len(y) and not tokens) or (y.ndim == 2 and y.shape[1] == 1 and not y.is_floating_point()):
        raise PaiBenchError(shapes, remedy)
    return x, y
