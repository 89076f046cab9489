"""Layer budgets: the exact number of weights that each layer keeps, from layer-wise densities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pai_bench.scoring.problem import Problem


def apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers next to `shares` that sum to `total`: largest remainders, ties by position.

    Raises: ValueError when the shares do not sum to `total` within one weight a layer.
    """
    floors = {name: math.floor(share) for name, share in shares.items()}
    left = total - sum(floors.values())
    if not 0 <= left <= len(shares):
        raise ValueError(f"shares sum to {sum(shares.values())}, not to {total}")
    # Python's sort is stable, so that equal remainders are taken in the order of the layers on every machine.
    by_remainder = sorted(shares, key=lambda name: floors[name] - shares[name])
    for name in by_remainder[:left]:
        floors[name] += 1
    return floors


def proportional(raw: Mapping[str, float], rooms: Mapping[str, int], total: int) -> dict[str, float]:
    """Divide `total` in proportion to `raw`, at most `rooms` each; the excess of a full layer goes to the others.

    Raises: ValueError when the rooms are too small together.
    """
    if sum(rooms.values()) < total:
        raise ValueError(f"{total} weights do not fit where {sum(rooms.values())} are")
    full: set[str] = set()
    while True:
        rest = {name: value for name, value in raw.items() if name not in full}
        budget = total - sum(rooms[name] for name in full)
        epsilon = budget / sum(rest.values()) if rest else 0.0
        overfull = {name for name, value in rest.items() if epsilon * value > rooms[name]}
        if not overfull:
            return {name: float(rooms[name]) if name in full else epsilon * rest[name] for name in raw}
        # At most one pass per layer: full layers never become free again, because the factor only grows.
        full |= overfull


def uniform(sizes: Mapping[str, int], rooms: Mapping[str, int], total: int) -> dict[str, float]:
    """Divide `total` at the same density in every layer; layers with too small `rooms` are full, the others denser."""
    size = sum(sizes.values())
    return within({name: own * total / size for name, own in sizes.items()}, rooms, total)


def within(shares: Mapping[str, float], rooms: Mapping[str, int], total: int) -> dict[str, float]:
    """Shares that sum to `total`; if one exceeds its room, all are scaled and the excess is shared (`proportional`)."""
    fits = all(share <= rooms[name] for name, share in shares.items())
    return dict(shares) if fits else proportional(shares, rooms, total)


def erdos_renyi_kernel(
    shapes: Mapping[str, Sequence[int]], total: int, rooms: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Return the (fractional) number of weights that each layer keeps under ERK, at most its size; they sum to `total`.

    `shapes` are those of the weights: [out, in, …kernel]. A layer's raw density is sum(shape) / prod(shape), so its
    share is in proportion to sum(shape). `rooms`: how many weights of each layer may be kept, where masks are on the
    model already.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return proportional({name: sum(shape) for name, shape in shapes.items()}, sizes if rooms is None else rooms, total)


def erk_quotas(problem: Problem) -> dict[str, int]:
    """Return the whole number of weights that each layer keeps under ERK in a round; they sum to `problem.kept`."""
    shapes = {name: tuple(w.shape) for name, w in problem.weights.items()}
    return apportion(erdos_renyi_kernel(shapes, problem.kept, problem.living()), problem.kept)
