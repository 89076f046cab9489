"""Width of a smaller network whose size comes closest to a target."""

from __future__ import annotations

from collections.abc import Callable

HALVINGS = 16
"""Halvings of the interval of widths: enough to separate the widths at which layers of all built-in networks grow."""


def closest_width(size: Callable[[float], int], target: float) -> float:
    """Return the width from 0 to 1 at which a network's size is as close as possible to `target`.

    `size` returns the size (weights, FLOPs) at a width. It must not fall with the width and is constant between the
    widths at which a layer gets another unit; bisection therefore finds the two sizes next to the target. Of equally
    close ones the smaller one counts.
    """
    low, high = 0.0, 1.0
    if size(high) <= target:
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    # `<=` prefers the smaller network, which has no advantage over the pruned ones.
    return low if abs(size(low) - target) <= abs(size(high) - target) else high
