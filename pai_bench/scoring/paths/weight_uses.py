"""The products of signals and weights in a model, for counting its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pai_bench.scoring.paths.functions import Reach
from pai_bench.scoring.paths.network import Replay
from pai_bench.scoring.paths.operations import FACTORS, PRODUCTS
from pai_bench.scoring.paths.tracing import Graph, Kind, Node, Slot


@dataclass(frozen=True)
class Use:
    """One product of a signal with a weight: how often each element is used, how many there are, how many are kept."""

    positions: int
    size: int
    kept: int


def weight_uses(graph: Graph, parameters: Mapping[str, Tensor]) -> list[Use]:
    """Return the convolutions and matrix products of a weight with a signal, a constant or another weight.

    `parameters` holds zeros and ones by name.
    """
    replayed = Replay(graph, Reach(), parameters, None)
    found: list[Use] = []
    for node in graph.nodes:
        if all(slot is None or graph.kinds[slot] in (Kind.WEIGHT, Kind.NEUTRAL) for slot in node.outputs):
            replayed.compute(node)
        if node.name == "mul" or node.name not in PRODUCTS:
            continue
        keys = [key for key in ("input", "weight", *FACTORS) if isinstance(node.arguments.get(key), (Slot, Tensor))]
        if node.name in ("addmm", "addmv", "baddbmm"):
            keys = [key for key in keys if key != "self"]
        weights = [key for key in keys if replayed.kind(node.arguments[key]) is Kind.WEIGHT]
        # A constant (the first hidden state of a recurrent layer, a table of positions) is multiplied like a signal.
        signals = [key for key in keys if key not in weights]
        # A product of two signals, as in attention, involves no weight that pruning could save.
        if len(signals) == 1 and len(weights) == 1:
            signal = node.arguments[signals[0]]
            shape = graph.shapes[signal.index] if isinstance(signal, Slot) else tuple(signal.shape)
            weight = replayed.value(node.arguments[weights[0]])
            positions = _positions(graph, node, weights[0], weight, shape)
            found.append(Use(positions, weight.numel(), int(weight.count_nonzero())))
        elif len(weights) == 2 and node.name != "convolution":
            found.append(_product(*(replayed.value(node.arguments[key]) for key in weights)))
    return found


def _product(first: Tensor, second: Tensor) -> Use:
    """Return the multiply-adds in a matrix product of two weights (low-rank updates, tables that a network computes).

    Those with a factor that is zero in either weight are pruned.
    """
    dense = torch.ones_like(first) @ torch.ones_like(second)
    kept = (first != 0).to(first.dtype) @ (second != 0).to(second.dtype)
    return Use(1, int(dense.double().sum()), int(kept.double().sum()))


def _positions(graph: Graph, node: Node, key: str, weight: Tensor, signal: tuple[int, ...]) -> int:
    if node.name == "convolution":  # once per position of the output, of the input when transposed
        shape = signal if node.arguments["transposed"] else node.shapes[0]
        return math.prod(shape) // weight.shape[0]
    if weight.dim() < 2:
        return math.prod(signal) // weight.shape[0]
    if len(signal) < 2:
        return 1
    return signal[-2] if key in ("mat2", "batch2", "other") else signal[-1]
