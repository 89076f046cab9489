"""Random walks along the weights of a model's graph, from an input to the output and back.

A walk is at one element of one recorded tensor. A convolution or matrix product moves it with probabilities in
proportion to the absolute weights, between channels wherever they are; every other operation moves it by chance to an
element that depends on it (or on which it depends), so that a walk takes one branch at a sum or a fork.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pai_bench.scoring.paths.connections import ON_CPU, Operation, Place
from pai_bench.scoring.paths.functions import PathCount
from pai_bench.scoring.paths.network import Replay
from pai_bench.scoring.paths.operations import NORMS, SHAPES, UNARY, slots
from pai_bench.scoring.paths.tracing import Graph, Kind, Node, Slot
from pai_bench.scoring.paths.walk_steps import Convolve, Draws, Linked, Multiply, Step, Straight

IN_ORDER = {"view", "_unsafe_view", "reshape", "clone", "_to_copy", "squeeze", "unsqueeze", "alias", "detach"}
"""Operations on shapes that keep the order of the elements."""

_ELEMENTWISE = {*UNARY, *NORMS, "add", "sub", "rsub", "mul", "div", "lerp", "addcmul", "addcdiv", "masked_fill"}


class Walker:
    """Walks on the graph of one model. Weights are numbered through, in the order of the mapping."""

    def __init__(
        self, graph: Graph, parameters: Mapping[str, Tensor], weights: Sequence[str], generator: torch.Generator
    ) -> None:
        """Take the graph, all parameters by name (on the CPU), the names of the weights to walk along, and draws."""
        self._graph = graph
        self._draws = Draws(generator)
        values = {name: p.detach().double().abs() for name, p in parameters.items()}
        self._replay = Replay(graph, PathCount(), values, None)
        numbers = _numbers(graph, self._replay, values, weights)
        # NumPy indexes faster than torch.
        self._numbers = {slot: value.long().numpy() for slot, value in numbers.items()}
        self._weights = {slot: value.numpy() for slot, value in self._replay.values.items() if not value.is_meta}
        self._numbered = {slot for slot, value in self._numbers.items() if value.any()}
        self._producers = {slot: node for node in graph.nodes for slot in node.outputs if slot is not None}
        self._consumers: dict[int, list[Node]] = {}
        live = {graph.output}
        for node in reversed(graph.nodes):
            if any(slot in live for slot in node.outputs):
                for slot in dict.fromkeys(self._signals(node)):
                    live.add(slot)
                    self._consumers.setdefault(slot, []).append(node)
        self.steps: dict[int, Step | None] = {}
        """Steps that walks have taken, by the identity of the node."""

    def _signals(self, node: Node) -> list[int]:
        return [part.index for part in slots(node) if self._replay.is_signal(part)]

    def size(self, slot: int) -> int:
        """The number of channels (or features) of a tensor [1, C, …]."""
        shape = self._graph.shapes[slot]
        return shape[1] if len(shape) > 1 else 1

    def walk(self, turn: int, forward: bool) -> list[int]:
        """The numbers (from 0) of the weights of one walk in its order.

        It begins at a channel of the input, or backward at an output, round robin by `turn`, and at a random position.
        """
        slot, end = (self._graph.input, self._graph.output)[:: 1 if forward else -1]
        if slot is None:
            return []
        each = math.prod(self._graph.shapes[slot][2:])
        place: Place | None = (slot, turn % self.size(slot) * each + self._draws.below(each))
        edges: list[int] = []
        while place is not None and place[0] != end:
            if forward:
                nodes = self._consumers.get(place[0], [])
                node = nodes[self._draws.below(len(nodes))] if nodes else None
            else:
                node = self._producers.get(place[0])
            if node is None:
                break
            if id(node) not in self.steps:
                self.steps[id(node)] = self._step(node)
            step = self.steps[id(node)]
            place = None if step is None else step(place, forward, edges)
        return edges

    def _step(self, node: Node) -> Step | None:
        """Return the step through an operation; None if it has no end."""
        signals, shapes = self._signals(node), self._graph.shapes
        outputs = [slot for slot in node.outputs if slot is not None]
        if not signals or not outputs:
            return None
        ends = signals[0], outputs[0]
        plain = node.name in UNARY or node.name in NORMS or "batch_norm" in node.name
        if len(signals) == 1 and (node.name in IN_ORDER or (plain and shapes[ends[0]] == shapes[ends[1]])):
            return Straight(*ends)
        arguments = node.arguments
        weight = arguments.get("weight" if node.name == "convolution" else "mat2")
        if len(signals) == 1 and isinstance(weight, Slot) and weight.index in self._weights:
            own = weight.index, self._weights[weight.index], self._numbers[weight.index], self._draws
            if node.name == "convolution" and not arguments["transposed"]:
                return Convolve(ends, *own, arguments, {slot: shapes[slot][2:] for slot in ends})
            if node.name in ("mm", "addmm"):
                return Multiply(ends, *own)
        live = [slot for slot in outputs if slot in self._consumers or slot == self._graph.output]
        operation = Operation(self._replay, node, {slot: shapes[slot] for slot in signals}, live)
        numbers = {p.index: self._numbers[p.index] for p in slots(node) if p.index in self._numbered}
        return Linked(operation, numbers, self._draws)


def _numbers(graph: Graph, replay: Replay, values: Mapping[str, Tensor], weights: Sequence[str]) -> dict[int, Tensor]:
    """Return the numbers of all elements that depend on weights alone, from 1 and 0 for none, by slot.

    The replay of the values is extended by the same slots. Numbers are float64, in which all integers up to 2^53 are
    exact. An operation that changes each element by itself, as in a standardised weight, keeps the numbers.
    """
    first = 1
    numbers = {name: torch.zeros_like(p) for name, p in values.items()}
    for name in weights:
        last = first + values[name].numel()
        numbers[name] = torch.arange(first, last, **ON_CPU).view_as(values[name])
        first = last
    numbered = Replay(graph, PathCount(), numbers, None)
    for node in graph.nodes:
        if not all(slot is None or graph.kinds[slot] in (Kind.WEIGHT, Kind.NEUTRAL) for slot in node.outputs):
            continue
        replay.compute(node)
        if node.name in SHAPES:
            numbered.compute(node)
            continue
        kept: Tensor | None = None
        if node.name in _ELEMENTWISE or "batch_norm" in node.name:
            tracked = [numbered.values[part.index] for part in node.arguments.values() if isinstance(part, Slot)]
            tracked = [value for value in tracked if value.any()]
            kept = tracked[0] if len(tracked) == 1 else None
        for slot, shape in zip(node.outputs, node.shapes, strict=True):
            if slot is not None:
                if kept is not None and tuple(kept.shape) == shape:
                    numbered.values[slot] = kept
                else:
                    numbered.values[slot] = torch.zeros(shape, **ON_CPU)
    return numbered.values
