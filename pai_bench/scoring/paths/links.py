"""The quickest way to the connections of each operation."""

from __future__ import annotations

import math
from collections.abc import Callable

from pai_bench.scoring.paths.connections import Connected, Links, OneByOne, Operation, Place
from pai_bench.scoring.paths.numbered import numbered


def links(operation: Operation) -> Links:
    """Return the connections of an operation, by the quickest of the ways that apply to it."""
    node, signals, outputs = operation.node, operation.signals, operation.outputs()
    if node.name == "bmm" and len(signals) == 2:
        return MatrixProduct(operation)
    shapes = [*signals.values(), *outputs.values()]
    if ("pool" in node.name or "upsample" in node.name) and {s[:2] for s in shapes} == {(1, shapes[0][1])}:
        return EachChannel(operation)
    return numbered(operation) or OneByOne(operation)


class EachChannel:
    """Connections of an operation that treats all channels of [1, C, ...] alike, from its first channel."""

    def __init__(self, operation: Operation) -> None:
        self._first = OneByOne(operation.cropped(len(next(iter(operation.signals.values()))) - 2))
        shapes = {**operation.signals, **operation.outputs()}
        self._positions = {slot: math.prod(shape[2:]) for slot, shape in shapes.items()}

    def back(self, place: Place) -> Connected:
        return self._moved(place, self._first.back)

    def onward(self, place: Place) -> Connected:
        return self._moved(place, self._first.onward)

    def _moved(self, place: Place, connections: Callable[[Place], Connected]) -> Connected:
        channel, position = divmod(place[1], self._positions[place[0]])
        places, weights = connections((place[0], position))
        return [(slot, channel * self._positions[slot] + i) for slot, i in places], weights


class MatrixProduct:
    """Connections of a product of two signals [B, N, K] and [B, K, M]: rows with columns, all with one derivative."""

    def __init__(self, operation: Operation) -> None:
        arguments = operation.node.arguments
        self._slots: tuple[int, int] = arguments["self"].index, arguments["mat2"].index
        (self._out,) = operation.outputs()
        _, self._rows, self._inner = operation.signals[self._slots[0]]
        self._columns = operation.signals[self._slots[1]][2]
        single = OneByOne(operation.cropped(3, 1))
        self._slopes = {place[0]: slope for place, slope in zip(*single.back((self._out, 0)), strict=True)}
        self._onward = {slot: single.onward((slot, 0))[1] for slot in self._slots}

    def back(self, place: Place) -> Connected:
        row, column = divmod(place[1], self._columns)
        batch = row // self._rows
        starts = row * self._inner, batch * self._inner * self._columns + column
        places: list[Place] = []
        weights: list[float] = []
        for slot, start, step in zip(self._slots, starts, (1, self._columns), strict=True):
            if slot in self._slopes:
                places += [(slot, start + step * k) for k in range(self._inner)]
                weights += [self._slopes[slot]] * self._inner
        return places, weights

    def onward(self, place: Place) -> Connected:
        slope = self._onward[place[0]]
        if not slope:
            return [], []
        if place[0] == self._slots[0]:
            start, step, number = place[1] // self._inner * self._columns, 1, self._columns
        else:
            row, column = divmod(place[1], self._columns)
            start, step, number = row // self._inner * self._rows * self._columns + column, self._columns, self._rows
        return [(self._out, start + step * k) for k in range(number)], slope * number
