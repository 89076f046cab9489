"""Layouts of tensors that share a storage."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

Layout = tuple[Any, ...]
"""Shape, strides and offset of a tensor in its storage, in elements."""


def layout_of(tensor: Tensor) -> Layout:
    """Return the layout of a tensor."""
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def storage_of(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage."""
    return int(tensor.untyped_storage()._cdata)


def overlay(base: Tensor, src: Tensor, layouts: tuple[Layout, Layout, int]) -> Tensor:
    """Return the tensor `base` after `src` was written to a view of the same storage; both with their layouts."""
    own, others, size = layouts
    places = torch.arange(size, device=src.device)
    mine, theirs = (places.as_strided(*layout).reshape(-1) for layout in (own, others))
    flat = torch.zeros(size, dtype=src.dtype, device=src.device)
    flat = flat.scatter(0, mine, base.to(src.dtype).expand(own[0]).reshape(-1))
    flat = flat.scatter(0, theirs, src.expand(others[0]).reshape(-1))
    return flat[mine].reshape(own[0])


def overlap(first: Layout, second: Layout) -> bool:
    """Return True if two layouts of one storage, with elements of one size, share an element."""
    if 0 in first[0] or 0 in second[0]:
        return False
    ends = [
        offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        for shape, strides, offset in (first, second)
    ]
    start = max(first[2], second[2])
    if start > min(ends):
        return False
    marks = np.zeros(max(ends) + 1, dtype=bool)
    views = [as_strided(marks[offset:], shape, strides) for shape, strides, offset in (first, second)]
    views[0][...] = True
    return bool(views[1].any())
