"""The graph of a masked network, from the operations of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.pruning.measures.units import Ints, Layer, Nodes
from pai_bench.scoring.convolutions import along
from pai_bench.scoring.paths.functions import PathCount
from pai_bench.scoring.paths.network import Replay
from pai_bench.scoring.paths.operations import FACTORS, NORMS, PRODUCTS, SHAPES, UNARY
from pai_bench.scoring.paths.tracing import Graph, Kind, Node, Slot

SUMS = {"add", "sub", "rsub", "lerp", "where", "mul", "div", "copy"}
"""Operations on elements in the same position."""
POOLS = {"avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d"}
ADAPTIVE = {"_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_max_pool2d"}
REDUCTIONS = {"mean", "sum", "amax", "max", "amin", "min", "logsumexp"}


@dataclass(frozen=True, eq=False)
class Network:
    """The graph of a masked network; arrays by number of a node, from 1 on."""

    nodes: Nodes
    layers: list[Layer]
    into: Ints
    """Number of edges into each node."""
    out: Ints
    """Number of edges out of each node; of a joint node too."""
    channel: Ints
    """Channel of each plain node, 0 for none."""
    inputs: Ints
    """Nodes of the input."""
    outputs: Ints
    """Nodes of the logits."""


class Recording:
    """Builder of a `Network`: walks over the recorded operations with the nodes of every element."""

    def __init__(self, graph: Graph, parameters: Mapping[str, Tensor]) -> None:
        """Take the operations, and all parameters by name: zeros and ones, float64 on the CPU.

        Raises: PaiBenchError for an operation without a rule, or a network without a path from inputs of real numbers.
        """
        if graph.input is None or graph.output is None:
            raise PaiBenchError("the inputs are not real, or do not reach the outputs", "leave the measures out")
        self._graph = graph
        self._replay = Replay(graph, PathCount(), parameters, None)
        self._nodes = Nodes()
        self._layers: list[Layer] = []
        self._into: list[tuple[Ints, Ints]] = []
        self._out: list[tuple[Ints, Ints]] = []
        self._channels: list[tuple[Ints, Ints]] = []
        self._last_channel = 0
        shape = graph.shapes[graph.input]
        self._set(graph.input, self._new(shape, 1 if len(shape) > 1 else 0))
        self._inputs = self._get(graph.input).ravel()
        for node in graph.nodes:
            self._record(node)

    def network(self) -> Network:
        """Return the graph."""
        count = self._nodes.count + 1
        into, out, channel = (np.zeros(count, dtype=np.int64) for _ in range(3))
        for target, parts in ((into, self._into), (out, self._out)):
            for numbers, values in parts:
                np.add.at(target, numbers, values)
        for numbers, values in self._channels:
            channel[numbers] = values
        members, joint = self._nodes.expanded(np.arange(count), np.arange(count))[::-1]
        plain = members == joint
        np.add.at(out, members[~plain], out[joint[~plain]])
        assert self._graph.output is not None
        outputs = self._get(self._graph.output).ravel()
        read = self._nodes.expanded(outputs, outputs)[1]
        return Network(self._nodes, self._layers, into, out, channel, self._inputs, read)

    def _new(self, shape: Sequence[int], axis: int) -> Ints:
        """Return new nodes for a tensor whose channels lie along `axis`."""
        nodes = self._nodes.new(int(np.prod(shape, dtype=np.int64))).reshape(shape)
        channels = np.arange(self._last_channel + 1, self._last_channel + shape[axis] + 1)
        self._last_channel += shape[axis]
        wide = channels.reshape([-1 if d == axis else 1 for d in range(len(shape))])
        self._channels.append((nodes.ravel(), np.broadcast_to(wide, shape).ravel()))
        return nodes

    def _get(self, slot: int) -> Ints:
        return self._replay.values[slot].long().numpy()

    def _set(self, slot: int, nodes: Ints) -> None:
        # Numbers of nodes pass through the shape operations as float64, in which integers up to 2^53 are exact.
        self._replay.values[slot] = torch.from_numpy(np.array(nodes, dtype=np.float64))

    def _signals(self, node: Node) -> Iterator[tuple[str, int]]:
        for key, argument in node.arguments.items():
            for part in argument if isinstance(argument, (list, tuple)) else [argument]:
                if self._replay.is_signal(part):
                    yield key, part.index

    def _record(self, node: Node) -> None:
        slots = [slot for slot in node.outputs if slot is not None]
        signals = list(self._signals(node))
        if not signals or all(self._graph.kinds[slot] in (Kind.WEIGHT, Kind.NEUTRAL) for slot in slots):
            self._replay.compute(node)
            return
        if node.name in SHAPES:
            self._replay.compute(node)
            return
        first = self._get(signals[0][1])
        shape = next(s for slot, s in zip(node.outputs, node.shapes, strict=True) if slot is not None)
        if node.name in PRODUCTS and node.name != "mul":
            found = self._layer(node, signals, slots[0], shape)
        # Elementwise functions connect each element with itself alone, and add no node.
        elif node.name in UNARY or node.name in NORMS or "batch_norm" in node.name:
            found = first
        elif node.name in SUMS:
            parts = [np.broadcast_to(self._get(slot), shape) for _, slot in signals]
            found = parts[0].ravel()
            for part in parts[1:]:
                merges = node.name not in ("mul", "div")
                both = np.stack([found, part.ravel()], 1)
                found = self._nodes.merge(found, part.ravel()) if merges else self._nodes.join(both)
            found = found.reshape(shape)
        elif node.name in POOLS | ADAPTIVE | REDUCTIONS:
            found = self._nodes.join(_members(node, first, shape)).reshape(shape)
        else:
            raise PaiBenchError(f"no rule for {node.name} in {node.layer or 'the model'}", "leave the measures out")
        for slot in slots:
            if self._graph.shapes[slot] == found.shape:
                self._set(slot, found)
            else:  # statistics of a norm
                self._replay.values[slot] = torch.zeros(self._graph.shapes[slot], dtype=torch.float64)

    def _layer(self, node: Node, signals: list[tuple[str, int]], slot: int, shape: tuple[int, ...]) -> Ints:
        """Return new nodes for the result of a product with a weight, and count the edges."""
        keys = [key for key in ("input", "weight", *FACTORS) if isinstance(node.arguments.get(key), Slot)]
        if node.name in ("addmm", "addmv", "baddbmm"):
            keys.remove("self")
        weights = [key for key in keys if self._replay.kind(node.arguments[key]) is Kind.WEIGHT]
        signals = [signal for signal in signals if signal[0] in keys]
        added = self._replay.is_signal(node.arguments.get("self")) and "self" not in keys
        if len(signals) != 1 or len(weights) != 1 or added:
            raise PaiBenchError(
                f"no rule for a product of two signals in {node.layer or 'the model'}", "leave them out"
            )
        source = signals[0][1]
        before = self._get(source)
        multiplicity = torch.from_numpy(self._nodes.multiplicity()[before]).double().requires_grad_()
        self._replay.values[source] = multiplicity
        self._replay.compute(node)
        into = self._replay.values[slot]
        out = torch.zeros_like(multiplicity)
        if into.requires_grad:
            # A layer of zeros and ones is linear: its gradient by an input counts the edges that leave it.
            (out,) = torch.autograd.grad(into.sum(), multiplicity)
        self._set(source, before)
        convolution = node.name == "convolution"
        found = self._new(shape, 1 if convolution else len(shape) - 1)
        self._into.append((found.ravel(), into.detach().long().numpy().ravel()))
        self._out.append((before.ravel(), out.long().numpy().ravel()))
        weight = self._replay.value(node.arguments[weights[0]]).numpy() != 0
        kind, options = node.name, ((), (), (), 1)
        if convolution and not node.arguments["transposed"] and before.ndim == weight.ndim:
            kind, rank = "convolution", weight.ndim - 2
            each = (tuple(along(node.arguments[key], rank)) for key in ("stride", "padding", "dilation"))
            options = (*each, int(node.arguments["groups"]))  # type: ignore[assignment]
            self._layers.append(Layer(kind, node.layer, before[0], weight, found[0], options))
        else:
            right = signals[0][0] in ("self", "mat1") and weight.ndim == 2
            kind = "transposed convolution" if convolution else node.name
            kind = "matrix" if node.name in ("mm", "addmm") and right else kind
            self._layers.append(Layer(kind, node.layer, before, weight, found))
        return found


def _members(node: Node, nodes: Ints, shape: tuple[int, ...]) -> Ints:
    """Return the nodes that each element of a pool or a mean combines, [elements, k] with 0 for none."""
    windows = [[np.array([place]) for place in range(side)] for side in nodes.shape]
    rank = next((d for d in (3, 2, 1) if f"{d}d" in node.name), 0)
    if node.name in REDUCTIONS:
        dims: Any = node.arguments.get("dim")
        listed = range(nodes.ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
        for dim in listed:
            windows[dim] = [np.arange(nodes.shape[dim])]
    elif node.name in ADAPTIVE:
        for axis, (side, outer) in enumerate(zip(nodes.shape, shape, strict=True)):
            if axis >= nodes.ndim - rank:
                windows[axis] = [np.arange(i * side // outer, -(-(i + 1) * side // outer)) for i in range(outer)]
    else:
        kernel = along(node.arguments["kernel_size"], rank)
        stride = along(node.arguments.get("stride") or kernel, rank)
        padding, dilation = (along(node.arguments.get(key) or d, rank) for key, d in (("padding", 0), ("dilation", 1)))
        for axis in range(rank):
            place = nodes.ndim - rank + axis
            windows[place] = [
                within[(within >= 0) & (within < nodes.shape[place])]
                for i in range(shape[place])
                for within in [i * stride[axis] - padding[axis] + np.arange(kernel[axis]) * dilation[axis]]
            ]
    widest = [max(map(len, axis)) for axis in windows]
    padded = np.pad(nodes, [(0, 1)] * nodes.ndim)  # the last index stands for nothing
    index = [
        np.array([np.pad(w, (0, wide - len(w)), constant_values=side) for w in axis])
        for axis, wide, side in zip(windows, widest, nodes.shape, strict=True)
    ]
    count = len(index)
    grids = [
        one.reshape([side if d == axis else 1 for side in one.shape for d in range(count)])
        for axis, one in enumerate(index)
    ]
    members: Ints = padded[tuple(grids)].reshape(int(np.prod([len(one) for one in index])), -1)
    return members
