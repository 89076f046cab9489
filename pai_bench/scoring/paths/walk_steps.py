"""The steps of random walks through one operation each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pai_bench.scoring.convolutions import along
from pai_bench.scoring.paths.connections import ON_CPU, Links, Operation, Place
from pai_bench.scoring.paths.links import links

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MOST_SUMS = 2**25
"""Largest number of running sums that are kept, 256 MiB."""


class Draws:
    """Uniform random numbers, and choices by weight."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._block: list[float] = []
        self._sums: dict[tuple[int, bool, int], Floats] = {}
        self._held = 0

    def below(self, number: int) -> int:
        """Draw one of the integers from 0 to number - 1."""
        # The minimum guards against a product rounded up to the number.
        return min(int(self._next() * number), number - 1)

    def choose(self, weights: Sequence[float]) -> int:
        """Draw an index with probability in proportion to its weight; any one if all weights are 0."""
        sums = list(accumulate(weights))
        if not sums[-1] > 0:
            return self.below(len(sums))
        point = self._next() * sums[-1]
        # An index of weight 0 is never chosen, because its sum is the one before.
        return next((i for i, total in enumerate(sums) if total > point), len(sums) - 1)

    def choose_row(self, key: tuple[int, bool, int], weights: Floats) -> int:
        """Draw like `choose` from an array that is always the same for this key."""
        sums = self._sums.get(key)
        if sums is None:
            sums = weights.ravel().cumsum()
            self._held += len(sums)
            if self._held > _MOST_SUMS:
                self._sums.clear()
                self._held = len(sums)
            self._sums[key] = sums
        total = sums[-1]
        if not total > 0:
            return self.below(len(sums))
        return min(int(sums.searchsorted(self._next() * total, side="right")), len(sums) - 1)

    def _next(self) -> float:
        if not self._block:
            # In blocks, because a call of torch.rand takes much longer than the draw of one number.
            self._block = torch.rand(4096, generator=self._generator, **ON_CPU).tolist()[::-1]
        return self._block.pop()


class Step(Protocol):
    """A step through one operation."""

    def __call__(self, place: Place, forward: bool, edges: list[int]) -> Place | None:
        """Return the next element, None where the walk ends; append the numbers (from 0) of the weights on the way."""
        ...


class Straight:
    """To the same element of the next tensor."""

    def __init__(self, argument: int, output: int) -> None:
        self._ends = argument, output

    def __call__(self, place: Place, forward: bool, edges: list[int]) -> Place:
        return self._ends[forward], place[1]


class Multiply:
    """A matrix product of a signal [M, K] with a weight [K, N]."""

    def __init__(self, ends: tuple[int, int], weight: int, values: Floats, numbers: Integers, draws: Draws) -> None:
        self._ends, self._weight, self._values, self._numbers, self._draws = ends, weight, values, numbers, draws

    def __call__(self, place: Place, forward: bool, edges: list[int]) -> Place | None:
        rows, columns = self._values.shape
        row, here = divmod(place[1], rows if forward else columns)
        own = self._values[here] if forward else self._values[:, here]
        if not own.size:  # a layer of width zero
            return None
        there = self._draws.choose_row((self._weight, forward, here), own)
        number = int(self._numbers[(here, there) if forward else (there, here)])
        if number:
            edges.append(number - 1)
        return self._ends[forward], row * (columns if forward else rows) + there


class Convolve:
    """A convolution: from the channel to another one and through a place of the kernel, clipped to the image."""

    def __init__(
        self,
        ends: tuple[int, int],
        weight: int,
        values: Floats,
        numbers: Integers,
        draws: Draws,
        arguments: Mapping[str, Any],
        sides: Mapping[int, Sequence[int]],
    ) -> None:
        """Take the sides of the images of both ends besides all that a matrix product needs."""
        self._ends, self._weight, self._values, self._numbers, self._draws = ends, weight, values, numbers, draws
        self._sides = sides
        kernel = values.shape[2:]
        options = [along(arguments[key], len(kernel)) for key in ("stride", "padding", "dilation")]
        self._options = list(zip(*options, strict=True))
        self._outputs = values.shape[0] // int(arguments["groups"])

    def __call__(self, place: Place, forward: bool, edges: list[int]) -> Place | None:
        inputs = self._values.shape[1]
        here, there = self._sides[place[0]], self._sides[self._ends[forward]]
        channel, position = divmod(place[1], math.prod(here))
        group, inner = divmod(channel, inputs if forward else self._outputs)
        first = group * self._outputs
        own = self._values[first : first + self._outputs, inner] if forward else self._values[channel]
        if not own.size:
            return None
        chosen = self._draws.choose_row((self._weight, forward, channel), own)
        other, *offset = _unravel(chosen, own.shape)
        number = int(self._numbers[(first + other, inner, *offset) if forward else (channel, other, *offset)])
        if number:
            edges.append(number - 1)
        target = other + (first if forward else group * inputs)
        where = _unravel(position, here)
        for at, k, side, (stride, padding, dilation) in zip(where, offset, there, self._options, strict=True):
            shift = k * dilation - padding
            moved = (at - shift) // stride if forward else at * stride + shift
            target = target * side + min(max(moved, 0), side - 1)
        return self._ends[forward], target


class Linked:
    """Any other operation, by its connections; the weights that it multiplies on the way are walked along."""

    def __init__(self, operation: Operation, numbers: Mapping[int, Integers], draws: Draws) -> None:
        self.operation, self._numbers, self._draws = operation, numbers, draws

    @cached_property
    def links(self) -> Links:
        """The connections, found at the first step."""
        return links(self.operation)

    def __call__(self, place: Place, forward: bool, edges: list[int]) -> Place | None:
        places, weights = self.links.onward(place) if forward else self.links.back(place)
        if not places:
            return None
        chosen = places[self._draws.choose(weights)]
        if self._numbers:
            edges += self._between(*((place, chosen) if forward else (chosen, place)))
        return chosen

    def _between(self, start: Place, end: Place) -> list[int]:
        """Return the numbers of the weights that the operation multiplies between two elements."""
        signals = {slot: torch.zeros_like(one) for slot, one in self.operation.ones().items()}
        signals[start[0]].flatten()[start[1]] = 1
        values = self.operation.replay.values
        weights = {slot: values[slot] for slot in self._numbers}
        leaves = {slot: value.detach().requires_grad_() for slot, value in weights.items()}
        values |= {slot: leaf.clone() for slot, leaf in leaves.items()}
        total = self.operation.results(signals)[end[0]].flatten()[end[1]]
        values |= weights
        if not total.requires_grad:
            return []
        slopes = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        found: list[int] = []
        for slot, slope in zip(leaves, slopes, strict=True):
            numbers = self._numbers[slot].ravel()[_positive(slope)]
            found += (numbers[numbers > 0] - 1).tolist()
        return found


def _positive(values: Tensor) -> Integers:
    found: Integers = (values.flatten() > 0).nonzero().squeeze(1).numpy()
    return found


def _unravel(index: int, shape: Sequence[int]) -> list[int]:
    """Return the coordinates of a flat index; a loop, because NumPy's function takes longer for a single index."""
    found: list[int] = []
    for side in reversed(shape):
        index, at = divmod(index, side)
        found.append(at)
    return found[::-1]
