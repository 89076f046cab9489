"""Counters of dispatched operators, bytes and arithmetic operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pai_bench.core.dispatch import DispatchMode


class _Traffic(DispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operators += 1
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result


def count(work: Callable[[], Any]) -> tuple[int, int, int]:
    """Operators except views, the bytes that they read and write, and floating point operations."""
    with _Traffic() as traffic:
        work()
    with FlopCounterMode(display=False) as flops:
        work()
    return traffic.operators, traffic.bytes, flops.get_total_flops()
