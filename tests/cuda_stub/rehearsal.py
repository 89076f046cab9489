"""Preparation of a process in which tests/gpu.py or tests/cuda is rehearsed on the stub: an import, or a plug-in.

Processes of pai-bench load this file with `--plugin`. Kernels of the stub compute nothing, so what needs their numbers
to go on is computed on the host: the choice and the number of kept weights. Scores and captured steps are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from pai_bench.pruning import granularity, pruner, selection
from pai_bench.results import ties
from pai_bench.training import evaluation
from pai_bench.training.graph_step import GraphStep
from tests.cuda_stub import device  # noqa: F401 (takes the place of cuDNN's convolutions)


def _on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors on one device that computes on the host, and returns tensors on this device."""

    def computed(*arguments: Any, **options: Any) -> Any:
        given = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)]
        arguments, options = tree_map_only(Tensor, Tensor.cpu, (arguments, options))
        found = function(*arguments, **options)
        return tree_map_only(Tensor, Tensor.cuda, found) if any(tensor.is_cuda for tensor in given) else found

    return computed


def _ones_like(tensor: Tensor, **options: Any) -> Tensor:
    """Return masks of ones by a copy from the host, because no kernel fills the memory, which may contain anything."""
    if tensor.is_cuda and options.get("dtype", tensor.dtype) == torch.bool:
        return torch.ones(tensor.shape, dtype=torch.bool).to(tensor.device)
    return _plain_ones_like(tensor, **options)


def _unchecked(
    method: str, scores: Mapping[str, Tensor], weights: Mapping[str, Tensor], *more: Any
) -> dict[str, Tensor]:
    del more  # what a refusal would name
    return {name: scores[name].detach() for name in weights}


def _tested(accuracy: float, finite: bool, by_class: tuple[float | None, ...] = ()) -> evaluation.Tested:
    del by_class  # counts that no kernel has made can be below zero
    return Tested(accuracy, finite)


def _sum(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
    if not (tensor.is_cuda and tensor.dtype == torch.bool):
        return _plain_sum(tensor, *arguments, **options)
    found = _plain_sum(tensor.cpu(), *arguments, **options)
    # A scalar that is read from the stub's device is zero.
    return found.cuda() if found.dim() else found


_plain_sum, _plain_ones_like, Tested = Tensor.sum, torch.ones_like, evaluation.Tested
if not hasattr(ties.at_cut, "__wrapped__"):  # both imported and loaded as a plug-in
    ties.at_cut = _on_host(ties.at_cut)
    ties.at_cut.__wrapped__ = True  # type: ignore[attr-defined]
    granularity.to_masks = _on_host(selection.to_masks)
    torch.ones_like = _ones_like
    pruner.checked_scores = _unchecked
    evaluation.Tested = _tested  # type: ignore[assignment, misc]
    Tensor.sum = _sum  # type: ignore[assignment, method-assign]
    GraphStep._agrees = lambda *arguments: True  # type: ignore[method-assign]
