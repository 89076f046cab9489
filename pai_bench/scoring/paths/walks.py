"""Random walks along the weights of a model's graph, from an input to the output and back.

A walk is at one element of one recorded tensor. A convolution or matrix product moves it with probabilities in
proportion to the absolute weights, between channels wherever they are; every other operation moves it by chance to an
element that depends on it (or on which it depends), so that a walk takes one branch at a sum or a fork.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pai_bench.scoring.convolutions import along
from pai_bench.scoring.paths.functions import PathCount
from pai_bench.scoring.paths.network import Replay
from pai_bench.scoring.paths.operations import NORMS, SHAPES, UNARY
from pai_bench.scoring.paths.tracing import Graph, Kind, Node, Slot

_ON_CPU: Any = {"dtype": torch.float64, "device": "cpu"}

Place = tuple[int, int]
"""A slot of the graph and the flat index of an element."""

IN_ORDER = {"view", "_unsafe_view", "reshape", "clone", "_to_copy", "squeeze", "unsqueeze", "alias", "detach"}
"""Operations on shapes that keep the order of the elements."""


class Walker:
    """Walks on the graph of one model. Weights are numbered through, in the order of the mapping."""

    def __init__(
        self, graph: Graph, parameters: Mapping[str, Tensor], weights: Sequence[str], generator: torch.Generator
    ) -> None:
        """Take the graph, all parameters by name (on the CPU), the names of the weights to walk along, and draws."""
        self._graph = graph
        self._draws = self._uniform(generator)
        values = {name: p.detach().double().abs() for name, p in parameters.items()}
        numbers = {name: torch.zeros_like(p) for name, p in values.items()}  # counted from 1, 0 for none
        first = 1
        for name in weights:
            numbers[name] = torch.arange(
                first, first + values[name].numel(), dtype=torch.float64, device="cpu"
            ).view_as(values[name])
            first += values[name].numel()
        self._replay = Replay(graph, PathCount(), values, None)
        numbered = Replay(graph, PathCount(), numbers, None)
        for node in graph.nodes:
            if all(slot is None or graph.kinds[slot] in (Kind.WEIGHT, Kind.NEUTRAL) for slot in node.outputs):
                self._replay.compute(node)
                if node.name in SHAPES:
                    numbered.compute(node)
                else:
                    for slot, shape in zip(node.outputs, node.shapes, strict=True):
                        numbered.values |= {} if slot is None else {slot: torch.zeros(shape, **_ON_CPU)}
        # Numbers are float64 until here, in which all integers up to 2^53 are exact; NumPy indexes faster than torch.
        self._numbers = {slot: value.long().numpy() for slot, value in numbered.values.items()}
        self._weights = {slot: value.numpy() for slot, value in self._replay.values.items()}
        self._producers = {slot: node for node in graph.nodes for slot in node.outputs if slot is not None}
        self._consumers: dict[int, list[Node]] = {}
        live = {graph.output}
        for node in reversed(graph.nodes):
            if any(slot in live for slot in node.outputs):
                for slot in dict.fromkeys(self._signals(node)):
                    live.add(slot)
                    self._consumers.setdefault(slot, []).append(node)
        self._cache: dict[tuple[int, Place, bool], tuple[list[Place], NDArray[np.float64]]] = {}

    @staticmethod
    def _uniform(generator: torch.Generator) -> Iterator[float]:
        while True:
            # In blocks, because a call of torch.rand takes much longer than the draw of one number.
            yield from torch.rand(4096, generator=generator, **_ON_CPU).tolist()

    def _choice(self, weights: NDArray[np.float64]) -> int:
        """An index with probability in proportion to its weight; any one if all weights are 0."""
        sums = weights.cumsum()
        if not sums[-1] > 0:
            return min(int(next(self._draws) * len(weights)), len(weights) - 1)
        # side="right" never chooses an index of weight 0; the minimum guards against a product rounded up to the sum.
        return int(min(sums.searchsorted(next(self._draws) * sums[-1], side="right"), len(weights) - 1))

    def _signals(self, node: Node) -> list[int]:
        found = []
        for argument in node.arguments.values():
            for part in argument if isinstance(argument, (list, tuple)) else [argument]:
                if self._replay.is_signal(part):
                    found.append(part.index)
        return found

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
        position = min(int(next(self._draws) * each), each - 1)
        place: Place | None = (slot, turn % self.size(slot) * each + position)
        edges: list[int] = []
        while place is not None and place[0] != end:
            if forward:
                nodes = self._consumers.get(place[0], [])
                node = nodes[min(int(next(self._draws) * len(nodes)), len(nodes) - 1)] if nodes else None
            else:
                node = self._producers.get(place[0])
            if node is None:
                break
            place = self._step(node, place, forward, edges)
        return edges

    def _step(self, node: Node, place: Place, forward: bool, edges: list[int]) -> Place | None:
        signals = self._signals(node)
        other = next((s for s in node.outputs if s is not None), place[0]) if forward else next(iter(signals), None)
        if other is None:
            return None
        plain = node.name in UNARY or node.name in NORMS or "batch_norm" in node.name
        if len(signals) == 1 and (
            node.name in IN_ORDER or (plain and self._graph.shapes[other] == self._graph.shapes[place[0]])
        ):
            return other, place[1]
        slots = node.arguments
        weight = slots.get("weight" if node.name == "convolution" else "mat2")
        if len(signals) == 1 and isinstance(weight, Slot) and weight.index in self._weights:
            if node.name == "convolution" and not slots["transposed"]:
                return self._convolve(node, weight.index, place, other, forward, edges)
            if node.name in ("mm", "addmm"):
                return self._multiply(weight.index, place, other, forward, edges)
        return self._any(node, place, forward, edges)

    def _multiply(self, weight: int, place: Place, other: int, forward: bool, edges: list[int]) -> Place:
        """A matrix product of a signal [M, K] with a weight [K, N]."""
        values, numbers = self._weights[weight], self._numbers[weight]
        row, here = divmod(place[1], values.shape[0 if forward else 1])
        there = self._choice(values[here] if forward else values[:, here])
        edges.append(int(numbers[here, there] if forward else numbers[there, here]) - 1)
        return other, row * values.shape[1 if forward else 0] + there

    def _convolve(self, node: Node, weight: int, place: Place, other: int, forward: bool, edges: list[int]) -> Place:
        """A convolution: from the channel to another one and through a place of the kernel, clipped to the image."""
        values, numbers = self._weights[weight], self._numbers[weight]
        outputs, inputs, *kernel = values.shape
        channel, position = divmod(place[1], math.prod(self._graph.shapes[place[0]][2:]))
        group = channel // (inputs if forward else outputs // node.arguments["groups"])
        first = group * (outputs // node.arguments["groups"])
        if forward:
            own = values[first : first + outputs // node.arguments["groups"], channel % inputs]
            there, *offset = np.unravel_index(self._choice(own.ravel()), own.shape)
            edge = numbers[(first + there, channel % inputs, *offset)]
            there += first
        else:
            there, *offset = np.unravel_index(self._choice(values[channel].ravel()), values[channel].shape)
            edge = numbers[(channel, there, *offset)]
            there += group * inputs
        edges.append(int(edge) - 1)
        target = self._graph.shapes[other][2:]
        options = [along(node.arguments[key], len(kernel)) for key in ("stride", "padding", "dilation")]
        moved = []
        where = np.unravel_index(position, self._graph.shapes[place[0]][2:])
        for at, k, side, stride, padding, dilation in zip(where, offset, target, *options, strict=True):
            shift = int(k) * dilation - padding
            moved.append(min(max((int(at) - shift) // stride if forward else int(at) * stride + shift, 0), side - 1))
        return other, int(there) * math.prod(target) + int(np.ravel_multi_index(moved, target))

    def _any(self, node: Node, place: Place, forward: bool, edges: list[int]) -> Place | None:
        """Any other operation, by its derivative; the weights that it multiplies on the way are walked along."""
        key = id(node), place, forward
        if key not in self._cache:
            self._cache[key] = self._onward(node, place) if forward else self._back(node, place)
        places, weights = self._cache[key]
        if not places:
            return None
        chosen = places[self._choice(weights)]
        start, end = (place, chosen) if forward else (chosen, place)
        edges += self._between(node, start, end)
        return chosen

    def _results(self, node: Node, signals: Mapping[int, Tensor]) -> dict[int, Tensor]:
        self._replay.values |= signals
        self._replay.compute(node)
        found = {slot: self._replay.values.pop(slot) for slot in node.outputs if slot is not None}
        for slot in signals:
            del self._replay.values[slot]
        return found

    def _ones(self, node: Node) -> dict[int, Tensor]:
        return {slot: torch.ones(self._graph.shapes[slot], **_ON_CPU) for slot in self._signals(node)}

    def _back(self, node: Node, place: Place) -> tuple[list[Place], NDArray[np.float64]]:
        signals = {slot: one.requires_grad_() for slot, one in self._ones(node).items()}
        copies = {slot: one.clone() for slot, one in signals.items()}  # some operations write to their argument
        value = self._results(node, copies)[place[0]].flatten()[place[1]]
        if not value.requires_grad:
            return [], np.zeros(0)
        slopes = torch.autograd.grad(value, list(signals.values()), materialize_grads=True)
        found = [((s, int(i)), float(g.flatten()[i])) for s, g in zip(signals, slopes, strict=True) for i in _where(g)]
        return [one for one, _ in found], np.array([weight for _, weight in found])

    def _onward(self, node: Node, place: Place) -> tuple[list[Place], NDArray[np.float64]]:
        with torch.no_grad():
            before = self._results(node, self._ones(node))
            ones = self._ones(node)
            ones[place[0]].flatten()[place[1]] += 1
            after = self._results(node, ones)
        live = [slot for slot in after if slot in self._consumers or slot == self._graph.output]
        found = [
            ((s, int(i)), float((after[s] - before[s]).flatten()[i]))
            for s in live
            for i in _where(after[s] - before[s])
        ]
        return [one for one, _ in found], np.array([weight for _, weight in found])

    def _between(self, node: Node, start: Place, end: Place) -> list[int]:
        """The weights with numbers that the operation multiplies between two elements."""
        slots = [part.index for part in node.arguments.values() if isinstance(part, Slot)]
        slots = [slot for slot in slots if slot in self._numbers and self._numbers[slot].any()]
        if not slots:
            return []
        signals = self._ones(node)
        signals[start[0]] = torch.zeros_like(signals[start[0]])
        signals[start[0]].flatten()[start[1]] = 1
        values = {slot: self._replay.values[slot] for slot in slots}
        leaves: dict[int, Any] = {slot: value.detach().requires_grad_() for slot, value in values.items()}
        self._replay.values |= {slot: leaf.clone() for slot, leaf in leaves.items()}
        total = self._results(node, signals)[end[0]].flatten()[end[1]]
        self._replay.values |= values
        if not total.requires_grad:
            return []
        slopes = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        pairs = zip(slots, slopes, strict=True)
        return [
            int(self._numbers[s].ravel()[i]) - 1 for s, g in pairs for i in _where(g) if self._numbers[s].ravel()[i]
        ]


def _where(values: Tensor) -> list[int]:
    return [int(i) for i in (values.flatten() > 0).nonzero().squeeze(1)]
