"""The elements of recorded tensors that one operation connects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pai_bench.scoring.paths.network import Replay
from pai_bench.scoring.paths.tracing import Node

ON_CPU: Any = {"dtype": torch.float64, "device": "cpu"}

Place = tuple[int, int]
"""A slot of the graph and the flat index of an element."""

Connected = tuple[list[Place], list[float]]
"""Elements, by slot in the order of the arguments or outputs and then by index, and the positive derivatives."""


class Links(Protocol):
    """The connections of one operation."""

    def back(self, place: Place) -> Connected:
        """Return the elements of the arguments on which an element of an output depends."""
        ...

    def onward(self, place: Place) -> Connected:
        """Return the elements of the outputs that depend on an element of an argument."""
        ...


@dataclass(frozen=True)
class Operation:
    """One node of a graph with the values of its weights."""

    replay: Replay
    node: Node
    signals: Mapping[int, tuple[int, ...]]
    """Shapes of the arguments that depend on the input, by slot."""
    live: Sequence[int]
    """Slots of the outputs from which a path leads to the output of the network."""

    def results(self, signals: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return the outputs by slot for these values of the arguments, which must not be used afterwards."""
        values = self.replay.values
        values |= signals
        self.replay.compute(self.node)
        found = {slot: values.pop(slot) for slot in self.node.outputs if slot is not None}
        for slot in signals:
            del values[slot]  # some operations write to their argument
        return found

    def ones(self) -> dict[int, Tensor]:
        """Return ones for all arguments."""
        return {slot: torch.ones(shape, **ON_CPU) for slot, shape in self.signals.items()}

    def outputs(self) -> dict[int, tuple[int, ...]]:
        """Return the shapes of the outputs by slot."""
        return {slot: s for slot, s in zip(self.node.outputs, self.node.shapes, strict=True) if slot is not None}

    def cropped(self, keep: int, side: int | None = None) -> Operation:
        """Return the operation on the last `keep` dimensions, or with `side` elements along these; 1 along others."""

        def crop(shape: tuple[int, ...]) -> tuple[int, ...]:
            last = shape[len(shape) - keep :]
            return (1,) * (len(shape) - keep) + (last if side is None else (side,) * keep)

        node = replace(self.node, shapes=tuple(map(crop, self.node.shapes)))
        return replace(self, node=node, signals={slot: crop(shape) for slot, shape in self.signals.items()})


class OneByOne:
    """Connections of any operation, by a derivative of the whole operation for each element."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._known: dict[tuple[Place, bool], Connected] = {}

    def back(self, place: Place) -> Connected:
        if (place, False) not in self._known:
            self._known[place, False] = self._back(place)
        return self._known[place, False]

    def onward(self, place: Place) -> Connected:
        if (place, True) not in self._known:
            self._known[place, True] = self._onward(place)
        return self._known[place, True]

    def _back(self, place: Place) -> Connected:
        signals = {slot: one.requires_grad_() for slot, one in self._operation.ones().items()}
        value = self._operation.results({slot: one.clone() for slot, one in signals.items()})[place[0]]
        if not value.requires_grad:
            return [], []
        slopes = torch.autograd.grad(value.flatten()[place[1]], list(signals.values()), materialize_grads=True)
        return _positive(dict(zip(signals, slopes, strict=True)))

    def _onward(self, place: Place) -> Connected:
        with torch.no_grad():
            before = self._operation.results(self._operation.ones())
            ones = self._operation.ones()
            ones[place[0]].flatten()[place[1]] += 1
            after = self._operation.results(ones)
        return _positive({slot: after[slot] - before[slot] for slot in after if slot in self._operation.live})


def _positive(slopes: Mapping[int, Tensor]) -> Connected:
    places: list[Place] = []
    weights: list[float] = []
    for slot, slope in slopes.items():
        found = (slope.flatten() > 0).nonzero().squeeze(1)
        places += [(slot, i) for i in found.tolist()]
        weights += slope.flatten()[found].tolist()
    return places, weights
