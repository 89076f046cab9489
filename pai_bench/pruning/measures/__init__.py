"""Measures of a masked network: connectivity of its units and nodes, cut edges, and removable channels.

All are exact counts. They need no data: the graph comes from the operations of one forward pass (see
`pai_bench.scoring.paths.tracing`), the channels from `torch.fx`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import record_forward
from pai_bench.pruning.measures.removable import removable_channels

if TYPE_CHECKING:
    from pai_bench.pruning.measures.recording import Network

GRAPH = (
    *("units", "disconnected_units", "one_sided_units", "nodes", "edges"),
    *("sink_nodes", "source_nodes", "disconnected_nodes", "cut_edges"),
)
CHANNELS = ("channels", "removable_channels", "removable_channels_folded")


@dataclass(frozen=True)
class Measures:
    """Measures by name, and the reasons of those that are absent."""

    values: Mapping[str, float] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: Measures) -> Measures:
        return Measures({**self.values, **other.values}, {**self.absent, **other.absent})


def graph_measures(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Measures:
    """Return the measures of the graph of a masked model; `shape` is that of an input without batch dimension.

    Nodes are the elements of the input and of the results of all layers with weights, at every position; a kept weight
    makes an edge at every position where it does not read padding. Summands of one sum are one node; what a pool
    combines is read by all edges that follow. Cunegatti et al. 2024 (arXiv 2305.16886), the input-aware multipartite
    graph; here identity shortcuts are part of it, and inputs and outputs count as neither sources nor sinks.

    nodes, edges: their numbers. sink_nodes: nodes with edges into them and none out, except outputs; source_nodes:
    nodes with edges out of them alone, except inputs; disconnected_nodes: nodes without edges. cut_edges: edges whose
    removal increases the number of connected components (bridges). units: channels of layers, except inputs and
    outputs; disconnected_units: those without any kept weight; one_sided_units: those with kept weights on one side
    alone (incoming or outgoing).
    """
    # Cells can run where SciPy is not installed; these measures are absent from their results.
    from pai_bench.pruning.measures.bridges import TooManyEdges, cut_edges
    from pai_bench.pruning.measures.recording import Recording

    graph, network = record_forward(model, shape, torch.float64)
    ones = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    kept = {name: mask.detach().cpu().double() for name, mask in masks.items()}
    recorded = Recording(graph, {**ones, **kept}).network()
    found = Measures(_connectivity(recorded))
    listed = {"convolution", "matrix"}
    others = [layer for layer in recorded.layers if layer.kind not in listed]
    if others:
        return found | Measures(absent={"cut_edges": f"no rule for {others[0].kind} in {others[0].where}"})
    try:
        return found | Measures({"cut_edges": cut_edges(recorded.layers, recorded.nodes)})
    except TooManyEdges:
        return found | Measures(absent={"cut_edges": "the graph has too many edges"})


def channel_measures(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Measures:
    """Return the numbers of channels, and of removable ones, of a masked model (see `removable_channels`)."""
    found = removable_channels(model, masks, shape)
    return Measures(dict(zip(CHANNELS, (found.channels, found.plain, found.folded), strict=True)))


def attempted(
    measure: Callable[[nn.Module, Mapping[str, Tensor], tuple[int, ...]], Measures],
    names: tuple[str, ...],
    model: nn.Module,
    masks: Mapping[str, Tensor],
    shape: tuple[int, ...],
) -> Measures:
    """Call `measure`; after an error, return the reason why all of `names` are absent: a measure never stops a run."""
    try:
        return measure(model, masks, shape)
    except PaiBenchError as error:
        reason = error.cause
    except torch.AcceleratorError:  # of any earlier kernel: the process cannot use the GPU again
        raise
    except Exception as error:  # the network is the user's, and may do anything
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return Measures(absent=dict.fromkeys(names, reason))


def _connectivity(network: Network) -> dict[str, int]:
    """Count nodes and units by their edges."""
    from pai_bench.pruning.measures.units import merged

    numbers = np.arange(1, network.nodes.count + 1)
    numbers = numbers[network.nodes.is_plain(numbers)]
    groups = network.nodes.groups()
    into, out = (
        np.bincount(groups[numbers], degrees[numbers], minlength=len(groups)) > 0
        for degrees in (network.into, network.out)
    )
    is_input, is_output = (
        np.isin(np.arange(len(groups)), groups[ends[ends > 0]]) for ends in (network.inputs, network.outputs)
    )
    exists = np.isin(np.arange(len(groups)), groups[numbers])
    pairs = [(network.channel[one], network.channel[other]) for one, other in network.nodes.merged_pairs()]
    units = merged(int(network.channel.max()) + 1, pairs)[network.channel]
    ends = np.isin(units, units[np.concatenate([network.inputs, network.outputs])])
    hidden = numbers[~ends[numbers]]
    fed, read = (
        np.bincount(units[hidden], degrees[hidden], minlength=len(units)) > 0 for degrees in (network.into, network.out)
    )
    inner = np.isin(np.arange(len(fed)), units[hidden])
    return {
        "units": int(inner.sum()),
        "disconnected_units": int((inner & ~fed & ~read).sum()),
        "one_sided_units": int((inner & (fed != read)).sum()),
        "nodes": int(exists.sum()),
        "edges": int(network.into[numbers].sum()),
        "sink_nodes": int((exists & into & ~out & ~is_output).sum()),
        "source_nodes": int((exists & out & ~into & ~is_input).sum()),
        "disconnected_nodes": int((exists & ~into & ~out).sum()),
    }
