"""Convolutions in float64 on a CPU, a few images at a time.

PyTorch unfolds the images for these (to nine times their size for kernels of 3x3), those of a whole batch at once, and
multiplies. In parts that stay in the cache the same products take down to a quarter of the time, and the memory of one
part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pai_bench.scoring.function_overrides import FunctionOverrides

UNFOLDED = 4 * 2**20
"""Bytes of unfolded images at a time."""


class ChunkedConvolutions(FunctionOverrides):
    """Context in which torch.nn.functional convolves a few images at a time; derivatives of any order are the same."""

    def __init__(self) -> None:
        super().__init__(IN_PARTS)


def _in_parts(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the convolution `plain`, a few images at a time."""

    def convolution(
        input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, *options: Any, **more: Any
    ) -> Tensor:
        def of(images: Tensor) -> Tensor:
            return plain(images, weight, bias, stride, *options, **more)

        if input.dim() != weight.dim():  # without a batch dimension
            return of(input)
        number = at_a_time(input, weight, stride)
        return of(input) if number >= len(input) else torch.cat([of(part) for part in torch.split(input, number)])

    return convolution


IN_PARTS = {plain: _in_parts(plain) for plain in (F.conv1d, F.conv2d, F.conv3d)}
"""Functions of torch.nn.functional, and those that convolve a few images at a time."""

convolve = _in_parts(torch.convolution)
"""torch.convolution, which takes padding, dilation, transposed, output padding and groups after the stride."""


def along(value: int | Sequence[int], dimensions: int) -> list[int]:
    """Return an option of a convolution for each dimension; a single number applies to all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * dimensions if len(values) == 1 else values


def at_a_time(x: Tensor, weight: Tensor, stride: int | Sequence[int]) -> int:
    """Return the number of images of x [B, C, …] to convolve at a time."""
    # Other types and devices have kernels of their own, and kernels of one element need no unfolding.
    if x.dtype != torch.float64 or x.device.type != "cpu" or weight[0, 0].numel() == 1:
        return len(x)
    places = math.prod(-(-side // step) for side, step in zip(x.shape[2:], along(stride, x.dim() - 2), strict=True))
    return max(1, UNFOLDED // (weight[0].numel() * places * x.element_size()))


def convolve_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    options: Sequence[Any],
    output_mask: Sequence[bool],
) -> list[Tensor | None]:
    """Return the requested gradients of a convolution (input, weight, bias) from the gradient of its output."""
    number = at_a_time(x, weight, options[0])
    pairs = zip(torch.split(grad, number), torch.split(x, number), strict=True) if number < len(x) else [(grad, x)]
    by_x, total = [], None
    for one, part in pairs:
        first, *rest = torch.ops.aten.convolution_backward(one, part, weight, bias_sizes, *options, output_mask)
        by_x.append(first)
        # Summed in place, so that the memory of the weight gradient is needed at most twice.
        total = rest if total is None else [a if a is None else a.add_(b) for a, b in zip(total, rest, strict=True)]
    assert total is not None
    if len(by_x) == 1:
        return [by_x[0], *total]
    return [torch.cat(by_x) if output_mask[0] else None, *total]
