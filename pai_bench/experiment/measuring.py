"""Measurement of a pruned network before and after its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pai_bench.datasets.loading import InMemoryDataset, StreamingDataset
from pai_bench.experiment.run import Run
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.flops import flops
from pai_bench.pruning.measures import CHANNELS, GRAPH, Measures, attempted, channel_measures, graph_measures
from pai_bench.training.callbacks import Callback
from pai_bench.training.evaluation import evaluate


@dataclass(frozen=True)
class Structure:
    """Measurements of a masked network that do not depend on its training."""

    effective: Mapping[str, Tensor]
    """Masks without the kept weights that lie on no path from input to output."""
    flops: tuple[int, int]
    """FLOPs of a forward pass, dense and sparse."""
    measures: Measures


def measure(network: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Structure:
    """Measure a network (before or after training) under masks; `shape` is that of an input."""
    graph = attempted(graph_measures, GRAPH, network, masks, shape)
    return Structure(effective_masks(network, masks, shape), flops(network, masks, shape), graph)


def untrained_accuracy(
    network: nn.Module,
    dataset: InMemoryDataset | StreamingDataset,
    run: Run,
    callback: Callback,
    saved: Mapping[str, Any],
) -> float:
    """Return the test accuracy of a masked network before its training (fraction), or the one of a checkpoint."""
    known = saved.get("untrained_accuracy")
    if known is None:
        known = evaluate(network, dataset, run.recipe, run.cell.seed, -1, callback).accuracy
    return float(known)


def measure_trained(network: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Measures:
    """Measure what depends on the trained biases and norms."""
    return attempted(channel_measures, CHANNELS, network, masks, shape)
