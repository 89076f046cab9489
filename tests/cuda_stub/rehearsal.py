"""Preparation of a process in which tests/gpu.py or tests/cuda is rehearsed on the stub: an import, or a plug-in.

A process of pai-bench loads this file with `--plugin`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from pai_bench.experiment import runner
from pai_bench.pruning import functions, pruner, selection
from pai_bench.training.graph_step import GraphStep
from tests.cuda_stub import device  # noqa: F401 (takes the place of cuDNN's convolutions)


def _on_host(function: Any) -> Any:
    """Return a function of tensors on the device that computes on the host: kernels of the stub compute nothing."""

    def computed(*arguments: Any, **options: Any) -> Any:
        moved = tree_map_only(Tensor, Tensor.cpu, (arguments, options))
        return tree_map_only(Tensor, lambda tensor: tensor.cuda(), function(*moved[0], **moved[1]))

    return computed


GraphStep._agrees = lambda *arguments: True  # type: ignore[method-assign]
for module in (selection, pruner, runner, functions):
    for name in ("to_masks", "masks_at"):
        if hasattr(module, name):
            setattr(module, name, _on_host(getattr(module, name)))
