"""Overrides of torch functions, independent of how a model calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FunctionOverrides(TorchFunctionMode):
    """Context in which `others` maps each torch function to its replacement, which takes the same arguments."""

    def __init__(self, others: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._others = others

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        other = self._others.get(func, func)
        return other(*args, **(kwargs or {}))


def _unchanged(input: Tensor, *_: Any, **__: Any) -> Tensor:
    return input


IDENTITY_NORMS: dict[Callable[..., Any], Callable[..., Any]] = dict.fromkeys(
    (F.batch_norm, F.group_norm, F.instance_norm, F.layer_norm, F.rms_norm), _unchanged
)
"""Every norm of torch.nn.functional left out, its weight and bias too."""
