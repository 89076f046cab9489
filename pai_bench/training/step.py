"""Choice of the training step: eager, or captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from pai_bench.recipes import Train
from pai_bench.training.eager_step import Step
from pai_bench.training.graph_step import GraphStep

__all__ = ["GraphStep", "Step", "make_step"]


def make_step(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    settings: Train,
    alone: Callable[[], bool] = lambda: True,
    changing: bool = False,
) -> Step:
    """Create the step for the recipe's settings: captured on a GPU, unless `cuda_graph` is false.

    `alone` returns True while no other cell trains on the device. `changing`: the masks will change.
    """
    if settings.cuda_graph and next(model.parameters()).device.type == "cuda":
        return GraphStep(model, masks, settings, alone, changing)
    return Step(model, masks, settings, changing)
