"""Overlap of two masks, and its expectation for random masks with the same number of weights in each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pai_bench.analysis.style import parsed
from pai_bench.cells import MethodSpec
from pai_bench.errors import PaiBenchError

Masks = Mapping[str, NDArray[np.bool_]]

RANDOM = frozenset(("random", "uniform", "erk", "er", "balanced", "igq", "uniform-plus", "smart-ratio"))
"""Methods that draw the same random number for the same weight at one seed, and differ in their layer counts."""
ALIKE = frozenset(("shuffle", "quota-of"))
"""Controls that permute the masks of all methods alike at one seed."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A mask with one bit per weight, by name of the parameter."""

    shapes: dict[str, tuple[int, ...]]
    kept: dict[str, int]
    bits: dict[str, NDArray[np.uint8]]

    @staticmethod
    def of(masks: Masks) -> Packed:
        """Pack bool arrays by parameter name."""
        shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        return Packed(shapes, kept, {name: np.packbits(mask) for name, mask in masks.items()})


@dataclass(frozen=True)
class Overlap:
    """Overlap of two masks."""

    jaccard: float
    """Weights kept by both / weights kept by at least one; NaN where neither keeps any."""
    expected: float
    """The same for the expected number of common weights of random masks with these layer counts."""

    @property
    def excess(self) -> float:
        """Difference of the index and its expectation."""
        return self.jaccard - self.expected

    @property
    def corrected(self) -> float:
        """Excess as a fraction of the largest possible one: 0 for random masks, 1 for equal ones; NaN if both are 1."""
        return self.excess / (1 - self.expected) if self.expected < 1 else math.nan


def common_draws(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a sentence if methods of one of the pairs share their random numbers at one seed, else ""."""
    specs = [[parsed(method) for method in pair] for pair in pairs]
    if not any(one and other and _draw_alike(one, other) for one, other in specs):
        return ""
    return "Random methods, and shuffled masks, share random numbers at one seed and therefore overlap beyond chance"


def _draw_alike(one: MethodSpec, other: MethodSpec) -> bool:
    if one.control is not None:
        return one.control == other.control and one.control in ALIKE
    return other.control is None and {one.name, other.name} <= RANDOM


def overlap(one: Packed | Masks, other: Packed | Masks) -> Overlap:
    """Return the overlap of two masks of one network, packed or as bool arrays by parameter name.

    Random masks with k and m kept weights of the n of a layer have k m / n of them in common on average
    (hypergeometric distribution).

    Raises: PaiBenchError for masks of different networks.
    """
    one, other = (mask if isinstance(mask, Packed) else Packed.of(mask) for mask in (one, other))
    check_same(one, other)
    # The padding bits of packed masks are zero in both, and do not count.
    both = sum(int(np.bitwise_count(bits & other.bits[name]).sum()) for name, bits in one.bits.items())
    kept = sum(one.kept.values()) + sum(other.kept.values())
    sizes = {name: max(1, math.prod(shape)) for name, shape in one.shapes.items()}
    expected = sum(one.kept[name] * other.kept[name] / size for name, size in sizes.items())
    if not kept:
        return Overlap(math.nan, math.nan)
    return Overlap(both / (kept - both), expected / (kept - expected))


def check_same(one: Packed, other: Packed, names: tuple[str, str] = ("one", "the other")) -> None:
    """Check that two masks have the same parameters.

    Raises: PaiBenchError that names the first difference.
    """
    if one.shapes == other.shapes:
        return
    for name in [*one.shapes, *other.shapes]:
        first, second = one.shapes.get(name), other.shapes.get(name)
        if first != second:
            said = [f"no mask of {name}" if shape is None else f"{name} {list(shape)}" for shape in (first, second)]
            raise PaiBenchError(
                f"the masks are of different networks: {names[0]} has {said[0]}, {names[1]} has {said[1]}",
                "compare masks of one network with equal prunable weights",
            )
