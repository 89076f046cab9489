"""Scores kept by what they follow from, so that a process computes none of them twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from pai_bench.measures import Cost

Scored = tuple[dict[str, Tensor], Cost]
"""Tensors by parameter name, and what it took to compute them."""

LIMIT = 2**30
"""Bytes of host memory: a hundred scores of ResNet-20 in float64, or six of VGG-16."""


class ScoreCache:
    """The scores (or masks) used last, in host memory, as many as fit into `limit` bytes."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[str, Scored] = OrderedDict()

    def get(self, key: str, compute: Callable[[], Scored], device: torch.device) -> Scored:
        """What `compute` returns, bit for bit, on `device`; `key` must name all that it depends on."""
        if key in self._kept:
            self._kept.move_to_end(key)
            tensors, cost = self._kept[key]
            return {name: tensor.to(device) for name, tensor in tensors.items()}, cost
        tensors, cost = compute()
        self._keep(key, {name: tensor.cpu() for name, tensor in tensors.items()}, cost)
        return tensors, cost

    def _keep(self, key: str, tensors: dict[str, Tensor], cost: Cost) -> None:
        size = _bytes(tensors)
        if size > self._limit:
            return
        self._kept[key] = tensors, cost
        self._bytes += size
        while self._bytes > self._limit:
            _, (oldest, _) = self._kept.popitem(last=False)
            self._bytes -= _bytes(oldest)


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
