"""How many weights each layer keeps: layer-wise densities to exact whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers next to `shares` that sum to `total`: largest remainders, ties by position.

    Raises: ValueError when the shares do not sum to `total` within one weight a layer.
    """
    floors = {name: math.floor(share) for name, share in shares.items()}
    left = total - sum(floors.values())
    if not 0 <= left <= len(shares):
        raise ValueError(f"shares sum to {sum(shares.values())}, not to {total}")
    by_remainder = sorted(shares, key=lambda name: floors[name] - shares[name])
    for name in by_remainder[:left]:
        floors[name] += 1
    return floors


def erdos_renyi_kernel(shapes: Mapping[str, Sequence[int]], total: int) -> dict[str, float]:
    """The (fractional) number of weights that each layer keeps under ERK, at most its size; they sum to `total`.

    `shapes` are those of the weights: [out, in, …kernel]. A layer's raw density is sum(shape) / prod(shape).
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = {name: sum(shapes[name]) for name in shapes if name not in dense}
        budget = total - sum(sizes[name] for name in dense)
        # A raw density times the size is just sum(shape), so epsilon is the budget over the sum of those.
        epsilon = budget / sum(rest.values()) if rest else 0.0
        overfull = {name for name, raw in rest.items() if epsilon * raw > sizes[name]}
        if not overfull:
            return {name: float(sizes[name]) if name in dense else epsilon * rest[name] for name in shapes}
        dense |= overfull
