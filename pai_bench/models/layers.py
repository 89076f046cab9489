"""Layers and checks that several networks share."""

from __future__ import annotations

import math

from torch import nn

from pai_bench.errors import PaiBenchError


def require_size(name: str, size: int, halvings: int) -> None:
    """Check that an image is large enough to be halved `halvings` times.

    Raises: PaiBenchError when it is too small.
    """
    least = 2**halvings
    if size < least:
        times = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}[halvings]
        raise PaiBenchError(
            f"{name} halves the image {times}, and {size}x{size} pixels are too few",
            f"use images of {least}x{least} or more, or a model such as conv8",
        )


def scaled(size: int, width: float) -> int:
    """Return the number of units or channels of a layer of `size` in a network `width` times as wide; at least one."""
    # Python's round() rounds halves to even numbers, 2.5 to 2 and 3.5 to 4.
    return max(1, math.floor(size * width + 0.5))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size of the image at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
