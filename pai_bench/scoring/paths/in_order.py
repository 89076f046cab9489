"""Masks that are chosen layer by layer, each from the number of paths that lead to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pai_bench.scoring.paths.functions import PathCount
from pai_bench.scoring.paths.network import Replay
from pai_bench.scoring.paths.operations import PRODUCTS, slots
from pai_bench.scoring.paths.tracing import Graph, Kind, Node


@dataclass(frozen=True)
class Inputs:
    """The inputs of a layer."""

    paths: Tensor
    """Number of paths from the network's input to each channel or feature, summed over positions; float64 [C]."""
    groups: int
    """Groups of a convolution, else 1."""


def choose_in_order(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    names: Sequence[str],
    x: Tensor,
    choose: Callable[[str, Inputs], Tensor],
) -> dict[str, Tensor]:
    """Call `choose` for the weights `names` in the order of the forward pass; returns its masks, float64 by name.

    parameters: ones by name for weights that are not chosen; x: ones in the shape of an input. A weight that products
    use several times is chosen at the first; weights that none uses are not chosen.
    """
    replay = Replay(graph, PathCount(), dict(parameters), x)
    owner = {slot: name for name, slot in graph.parameters.items() if name in names}
    derived: dict[str, list[Node]] = {name: [] for name in names}
    chosen: dict[str, Tensor] = {}
    with torch.no_grad():
        for node in graph.nodes:
            used = [owner[part.index] for part in slots(node) if part.index in owner]
            outputs = [slot for slot in node.outputs if slot is not None]
            if all(graph.kinds[slot] is Kind.WEIGHT for slot in outputs):
                for name in used[:1]:
                    derived[name].append(node)
                    owner.update(dict.fromkeys(outputs, name))
            elif used and used[-1] not in chosen and node.name in PRODUCTS:
                signal = next(replay.values[part.index] for part in slots(node) if replay.is_signal(part))
                axis = 1 if node.name == "convolution" else signal.dim() - 1
                paths = signal.sum([d for d in range(signal.dim()) if d != axis])
                name = used[-1]
                chosen[name] = choose(name, Inputs(paths, int(node.arguments.get("groups", 1))))
                replay.values[graph.parameters[name]] = chosen[name]
                for earlier in derived[name]:
                    replay.compute(earlier)
            replay.compute(node)
    if graph.output is not None:
        graph.on_replay(replay.values[graph.output])
    return chosen
