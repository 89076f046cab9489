"""The connections of operations that a few passes with numbered elements find all at once.

The derivative of one element costs a pass over the whole tensor. Most operations connect an output with at most one
element of each argument (sums of two branches, permutations, concatenations), or an argument with one output (means).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pai_bench.scoring.paths.connections import ON_CPU, Connected, Links, Operation, Place


class _Map:
    """Function from the elements of one tensor to those of another, undefined (-1) for some; and its inverse."""

    def __init__(self, images: NDArray[np.int64], number: int) -> None:
        self._identity = len(images) == number and bool((images == np.arange(number)).all())
        if not self._identity:
            self._images = images
            self._order = images.argsort(kind="stable")
            self._starts = np.searchsorted(images[self._order], np.arange(number + 1)).tolist()

    def image(self, i: int) -> list[int]:
        """Return the image of an element, if it has one."""
        if self._identity:
            return [i]
        found = int(self._images[i])
        return [found] if found >= 0 else []

    def origins(self, i: int) -> list[int]:
        """Return the elements with this image, in ascending order."""
        if self._identity:
            return [i]
        found: list[int] = self._order[self._starts[i] : self._starts[i + 1]].tolist()
        return found


@dataclass(frozen=True)
class _Pair:
    """Connections of one argument with one output, each element of the one with at most one of the other."""

    map: _Map
    from_output: bool
    """True if the map leads from the output to the argument."""
    back: NDArray[np.float64]
    """Derivative by element of the map's origin, as the backward pass has it."""
    onward: NDArray[np.float64]
    """The same in the forward pass, in which a gate does not change."""


class Numbered:
    """Connections that were found by numbers."""

    def __init__(self, pairs: Mapping[tuple[int, int], _Pair]) -> None:
        self._pairs = pairs

    def back(self, place: Place) -> Connected:
        return self._connected(place, output=True)

    def onward(self, place: Place) -> Connected:
        return self._connected(place, output=False)

    def _connected(self, place: Place, output: bool) -> Connected:
        places: list[Place] = []
        weights: list[float] = []
        for (argument, result), pair in self._pairs.items():
            here, there = (result, argument) if output else (argument, result)
            if here != place[0]:
                continue
            straight = pair.from_output is output
            slopes = pair.back if output else pair.onward
            for i in pair.map.image(place[1]) if straight else pair.map.origins(place[1]):
                slope = float(slopes[place[1] if straight else i])
                if slope > 0:
                    places.append((there, i))
                    weights.append(slope)
        return places, weights


def numbered(operation: Operation) -> Links | None:
    """Return the connections if each output has at most one with each argument, or the other way round."""
    leaves = {slot: one.requires_grad_() for slot, one in operation.ones().items()}
    results = operation.results({slot: leaf.clone() for slot, leaf in leaves.items()})
    results = {slot: value for slot, value in results.items() if value.requires_grad}
    pairs = {}
    for argument, leaf in leaves.items():
        for output, value in results.items():
            pair = _pair(operation, argument, leaf, output, value)
            if pair is None:
                return None
            pairs[argument, output] = pair
    return Numbered(pairs)


def _pair(operation: Operation, argument: int, leaf: Tensor, output: int, value: Tensor) -> _Pair | None:
    ones = torch.ones_like(value).requires_grad_()
    (pulled,) = torch.autograd.grad(value, [leaf], ones, retain_graph=True, create_graph=True, materialize_grads=True)

    def backward(change: Tensor) -> Tensor:
        """Return the product of the Jacobian matrix and a change, as the derivative of the transposed product."""
        if not pulled.requires_grad:
            return torch.zeros_like(value)
        (found,) = torch.autograd.grad(pulled, [ones], change, retain_graph=True, materialize_grads=True)
        return found.flatten()

    def transposed(change: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(value, [leaf], change, retain_graph=True, materialize_grads=True)
        return found.flatten()

    def forward(change: Tensor) -> Tensor:
        with torch.no_grad():
            before = operation.results(operation.ones())[output]
            moved = operation.ones()
            moved[argument] += change
            return (operation.results(moved)[output] - before).flatten()

    try:
        found = _images(backward, leaf)
    except RuntimeError:  # an operation without second derivatives
        return None
    if found is not None:
        images, slopes = found
        return _Pair(_Map(images, leaf.numel()), True, _compressed(slopes), _compressed(forward(torch.ones_like(leaf))))
    found = _images(transposed, value)
    if found is None:
        return None
    images, slopes = found
    # Each element reaches one output only, so that its weight in a forward step does not matter.
    return _Pair(_Map(images, value.numel()), False, _compressed(slopes), _compressed(slopes))


def _images(product: Callable[[Tensor], Tensor], like: Tensor) -> tuple[NDArray[np.int64], Tensor] | None:
    """Return the column and value of the one non-zero entry of each row of a matrix; None if a row has several.

    The matrix is given by its product with vectors in the shape of `like`. Column -1 and value 0: a row of zeros.
    """
    numbers = torch.arange(1, like.numel() + 1, **ON_CPU)
    # Rows of several entries have their mean number; only by chance is that the mean of the random numbers, too.
    chance = torch.from_numpy(np.random.default_rng(0).uniform(1, 2, like.numel()))
    sums, numbered, drawn = (product(u.view_as(like)) for u in (torch.ones_like(numbers), numbers, chance))
    column = torch.where(sums > 0, numbered / sums, 1).round().long() - 1
    if not bool(((sums >= 0) & (column >= 0) & (column < like.numel())).all()):
        return None
    if not torch.allclose(sums * chance[column], drawn, rtol=1e-9, atol=0):
        return None
    return torch.where(sums > 0, column, -1).numpy(), sums


def _compressed(values: Tensor) -> NDArray[np.float64]:
    """Return an array without memory of its own if all values are equal."""
    array: NDArray[np.float64] = values.detach().numpy()
    return np.broadcast_to(array[:1], array.shape) if array.size and (array == array[0]).all() else array
