"""Effective sparsity of masked networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pai_bench.core.randomness import own_randomness
from pai_bench.pruning.model_copies import copy_to_score
from pai_bench.scoring import diagnosis
from pai_bench.scoring.paths.functions import Reach
from pai_bench.scoring.paths.network import replay
from pai_bench.scoring.paths.tracing import Graph, trace


def effective_masks(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the masks (bool by name) of kept weights on a path of kept weights from the input to the output.

    Vysogorets and Kempe 2023 (arXiv 2107.02306), on the path network of the model (see pai_bench.path_network) for one
    input of `shape` (without the batch dimension), in zeros and ones on the CPU. Weights that lie on no path of the
    dense network either (of a head that is used in training alone, or that see nothing but padding) count as
    effective, so that the dense network has an effective sparsity of 0.
    """
    return EffectivePaths(model, list(masks), shape).masks(masks)


class EffectivePaths:
    """The paths of one model, recorded once for many masks of its parameters `names`."""

    def __init__(self, model: nn.Module, names: Sequence[str], shape: tuple[int, ...]) -> None:
        """Take the model, the names of its masked parameters, and the shape of an input without batch dimension."""
        # On the CPU zeros stay exact; some kernels of GPUs turn exact zeros into rounding errors.
        try:
            self._graph, network = record_forward(model, shape, torch.float64)
        except diagnosis.RAISED:
            # A model that converts its signals to float32 cannot be called in float64.
            self._graph, network = record_forward(model, shape, torch.float32)
        self._ones = {name: torch.ones_like(p) for name, p in network.named_parameters()}
        self._names = list(names)
        self._shape = shape
        self._dense: dict[str, Tensor] | None = None

    def masks(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The kept weights that are effective (see `effective_masks`), bool by name."""
        kept = {name: mask.detach().cpu() for name, mask in masks.items()}
        reached = self.reached(kept)
        if any(bool((kept[name] & ~reached[name]).any()) for name in masks):
            if self._dense is None:
                self._dense = self._reached(self._ones)
            reached = {name: reached[name] | ~self._dense[name] for name in masks}
        return {name: mask & reached[name].to(mask.device) for name, mask in masks.items()}

    def reached(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that a path of kept weights uses, or would if they were kept; bool by name, on the CPU."""
        return self._reached(
            {**self._ones, **{name: mask.detach().cpu().to(self._ones[name]) for name, mask in masks.items()}}
        )

    def _reached(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _reached(self._graph, parameters, self._names, self._shape)


def record_forward(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Graph, nn.Module]:
    """Return the operations of a forward pass of one sample in eval mode, and the copy of the model on the CPU."""
    diagnosis.check_values(model)
    # Without masks, whose hooks write to weights: the trace must not record that.
    network = copy_to_score(model).cpu().to(dtype).eval()
    with own_randomness():
        return trace(network, torch.ones(1, *shape, dtype=dtype)), network


def _reached(
    graph: Graph, parameters: Mapping[str, Tensor], names: Sequence[str], shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """Return the weights that are on a path through the network of these parameters (zeros and ones), or would be."""
    leaves = {name: value.clone().requires_grad_(name in names) for name, value in parameters.items()}
    with torch.enable_grad():
        dtype = next(iter(leaves.values())).dtype
        total = replay(graph, Reach(), leaves, torch.ones(1, *shape, dtype=dtype)).sum()
        if not total.requires_grad:
            return {name: torch.zeros_like(leaves[name], dtype=torch.bool) for name in names}
        weights = [leaves[name] for name in names]
        gradients = torch.autograd.grad(total, weights, materialize_grads=True)
    # The gradient of a 0/1 path network by a weight is positive exactly where a path passes through that weight.
    return {name: g > 0 for name, g in zip(names, gradients, strict=True)}
