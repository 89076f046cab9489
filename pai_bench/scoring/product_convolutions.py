"""Convolutions in float64 on a GPU as matrix products of unfolded images.

cuDNN has no float64 kernels for tensor cores; cuBLAS has them for matrix products. PyTorch's own unfolding
(`torch.nn.functional.unfold`, or a convolution without cuDNN) multiplies image by image, and such products are small in
the last layers of a network. Here the windows of many images form one product.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pai_bench.core.dispatch import DispatchMode
from pai_bench.scoring.convolutions import along

aten = torch.ops.aten

CHANNELS = 64
"""Smallest number of input channels. Layers with fewer need little time, and their products are narrow."""

UNFOLDED = 256 * 2**20
"""Bytes of unfolded images at a time. A constant, because the order of summation depends on it."""

GAIN = 1.2
"""Products are chosen only if they are so many times as fast as cuDNN; far enough from the noise of a measurement that
all processes on a device make the same choice."""

SHAPES = ((64, 32), (256, 8), (512, 4))
"""Channels and image sizes that are measured: layers of VGG-16 and ResNet-18 with equal numbers of operations."""


class ProductConvolutions(DispatchMode):
    """Context in which wide float64 convolutions are matrix products, on devices where that is faster.

    The results are equal up to rounding, and so are derivatives of any order, because PyTorch composes them of the two
    replaced operations. Exact zeros stay zeros.
    """

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func is aten.convolution.default and not kwargs and _applies(args[0], args[1], args[3:]):
            return convolve(args[0], args[1], args[2], _steps(args[3:]))
        if func is aten.convolution_backward.default and not kwargs and _applies(args[1], args[2], args[4:]):
            return convolve_backward(args[0], args[1], args[2], _steps(args[4:]), args[10])
        return func(*args, **(kwargs or {}))


def _applies(x: Tensor, weight: Tensor, options: Sequence[Any]) -> bool:
    """Return True for a convolution to be computed as a product; `options` as of aten::convolution, from the stride."""
    _, _, _, transposed, _, groups, *_ = options
    return (
        x.dtype == torch.float64
        and weight.dim() == 4
        and not transposed
        and groups == 1
        and weight.shape[1] >= CHANNELS
        and x.numel() > 0
        and faster(x.device)
    )


Steps = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Stride, padding and dilation of a convolution, by dimension."""


def _steps(options: Sequence[Any]) -> Steps:
    stride, padding, dilation = (tuple(along(value, 2)) for value in options[:3])
    return stride, padding, dilation


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, steps: Steps) -> Tensor:
    """Return the convolution of images x [B, C, H, W] with a weight [O, C, h, w] and a bias [O]."""
    matrix, parts = weight.flatten(1), []
    for images in torch.split(x, _at_a_time(x, weight, steps)):
        product = matrix @ _windows(images, weight, steps)
        parts.append(product.view(len(weight), len(images), *_places(x, weight, steps)).transpose(0, 1))
    found = torch.cat(parts).contiguous()
    return found if bias is None else found.add_(bias.view(-1, 1, 1))


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, steps: Steps, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the requested gradients of `convolve` (images, weight, bias) from the gradient of its output."""
    stride, padding, dilation = steps
    kernel, matrix = tuple(weight.shape[2:]), weight.flatten(1)
    by_x: list[Tensor] = []
    by_weight = torch.zeros_like(matrix) if needed[1] else None
    number = _at_a_time(x, weight, steps)
    for part, images in zip(torch.split(grad, number), torch.split(x, number), strict=True) if any(needed[:2]) else ():
        outputs = part.transpose(0, 1).flatten(1)
        if by_weight is not None:
            by_weight.addmm_(outputs, _windows(images, weight, steps).T)
        if needed[0]:
            columns = (matrix.T @ outputs).view(matrix.shape[1], len(images), -1).transpose(0, 1)
            by_x.append(F.fold(columns, tuple(x.shape[2:]), kernel, dilation, padding, stride))
    return (
        torch.cat(by_x) if needed[0] else None,
        None if by_weight is None else by_weight.view_as(weight),
        grad.sum((0, 2, 3)) if needed[2] else None,
    )


def _places(x: Tensor, weight: Tensor, steps: Steps) -> list[int]:
    """Return height and width of the output."""
    sides = zip(x.shape[2:], weight.shape[2:], *steps, strict=True)
    return [(side + 2 * pad - dilation * (size - 1) - 1) // stride + 1 for side, size, stride, pad, dilation in sides]


def _at_a_time(x: Tensor, weight: Tensor, steps: Steps) -> int:
    """Return the number of images to unfold at a time."""
    height, width = _places(x, weight, steps)
    return max(1, UNFOLDED // max(1, weight[0].numel() * height * width * x.element_size()))


def _windows(images: Tensor, weight: Tensor, steps: Steps) -> Tensor:
    """Return the windows of images as a matrix [C h w, B · places]; one copy."""
    stride, (above, left), dilation = steps
    padded = F.pad(images, (left, left, above, above)).contiguous()
    image, channel, row, column = padded.stride()
    size = (padded.shape[1], *weight.shape[2:], len(images), *_places(images, weight, steps))
    strides = (channel, dilation[0] * row, dilation[1] * column, image, stride[0] * row, stride[1] * column)
    return padded.as_strided(size, strides).reshape(weight[0].numel(), -1)


def fastest_convolutions(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which a model on a device computes convolutions by its faster mechanism."""
    # Only where it is needed: inside, every operation passes through Python.
    return ProductConvolutions() if dtype == torch.float64 and faster(device) else nullcontext()


def faster(device: torch.device) -> bool:
    """Return True if products are at least GAIN times as fast as cuDNN on a device; measured once per process."""
    if device.type != "cuda":
        return False
    # "cuda" and "cuda:0" must not be measured separately: the two could differ.
    return choice(torch.cuda.current_device() if device.index is None else device.index)


@cache
def choice(index: int) -> bool:
    """Measure a GPU; see `faster`."""
    return gain(torch.device("cuda", index)) >= GAIN


def mechanism(device: torch.device) -> str | None:
    """Return the mechanism of wide float64 convolutions on a GPU, for provenance; None on other devices."""
    if device.type != "cuda":
        return None
    return "matrix products" if faster(device) else "cuDNN"


def gain(device: torch.device, shapes: Sequence[tuple[int, int]] = SHAPES, images: int = 64, rounds: int = 5) -> float:
    """Return the ratio of the times of cuDNN's convolutions and of products, forward and backward, on a device.

    Both take turns on layers with the given (channels, image size), and the shortest time of each counts.
    """
    times = {"library": 0.0, "products": 0.0}
    for channels, side in shapes:
        x = torch.ones(images, channels, side, side, dtype=torch.float64, device=device)
        weight = torch.ones(channels, channels, 3, 3, dtype=torch.float64, device=device)
        works = {
            "library": lambda x=x, w=weight: _by_library(x, w),
            "products": lambda x=x, w=weight: _by_products(x, w),
        }
        found: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds + 2):  # the first rounds choose kernels and raise the clock
            for name, work in works.items():
                found[name].append(_seconds(device, work))
        for name in works:
            # The shortest time is the one that other work on the device disturbs least.
            times[name] += min(found[name][2:])
    return times["library"] / times["products"]


SAME: Steps = ((1, 1), (1, 1), (1, 1))
"""Steps of a convolution with a 3 x 3 kernel whose output has the size of its input."""


def _by_library(x: Tensor, weight: Tensor) -> None:
    options = *SAME, False, [0, 0], 1
    out = aten.convolution(x, weight, None, *options)
    aten.convolution_backward(out, x, weight, None, *options, [True, True, False])


def _by_products(x: Tensor, weight: Tensor) -> None:
    out = convolve(x, weight, None, SAME)
    convolve_backward(out, x, weight, SAME, [True, True, False])


def _seconds(device: torch.device, work: Callable[[], None]) -> float:
    """Return the wall time of a call, including the work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
