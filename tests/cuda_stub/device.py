"""Python side of the stub: counters of the device, its time line and failures, and convolutions without cuDNN.

Import it before the first use of the GPU, in a process whose LD_PRELOAD has the libraries of the stub.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

_library = ctypes.CDLL(None)
_library.stub_count.restype = _library.stub_kernel.restype = ctypes.c_ulonglong
_library.stub_fail_after.argtypes = [ctypes.c_ulonglong]
_library.stub_seconds.argtypes = [ctypes.c_double, ctypes.c_double]
_library.stub_memory.argtypes = [ctypes.c_size_t]

MEMORY = 150754820096
"""Bytes of memory of the device."""


@dataclass(frozen=True)
class Counts:
    """Calls that the device has received; in the order of `stub_count` in runtime.c."""

    launches: int
    graph_launches: int
    graph_nodes: int
    """Nodes of the last graph that was instantiated; not a count of calls."""
    copies: int
    allocations: int
    releases: int
    waits: int
    """Synchronisations of the host with a stream, an event or the device."""
    forbidden: int
    """Allocations and releases during a capture that does not permit them."""
    used_bytes: int

    @classmethod
    def now(cls) -> Counts:
        """Read the counters."""
        return cls(*(_library.stub_count(index) for index in range(len(fields(cls)))))

    def since(self, before: Counts) -> Counts:
        """Subtract earlier counts; `graph_nodes` stays."""
        values = {f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)}
        return Counts(**{**values, "graph_nodes": self.graph_nodes})


def launched(part: str) -> int:
    """Return the number of launches of kernels whose mangled name contains `part`, in captures too."""
    return int(_library.stub_kernel(part.encode()))


@contextmanager
def seconds(graph: float = 0.0, kernel: float = 0.0) -> Iterator[None]:
    """Let each launch of a graph and each kernel take so many seconds of the device's time inside."""
    _library.stub_seconds(graph, kernel)
    try:
        yield
    finally:
        _library.stub_seconds(0.0, 0.0)


def fail_after(launches: int) -> None:
    """Answer every call with an illegal memory access after so many further launches; inside `failing_after`."""
    _library.stub_fail_after(launches)


@contextmanager
def failing_after(launches: int) -> Iterator[None]:
    """Answer every call with an illegal memory access after so many further launches; the device recovers outside."""
    fail_after(launches)
    try:
        yield
    finally:
        _library.stub_fail_after(2**64 - 1)
        torch.cuda.synchronize()


@contextmanager
def memory(spare: int) -> Iterator[None]:
    """Limit the free memory of the device to `spare` bytes inside."""
    torch.cuda.empty_cache()
    _library.stub_memory(Counts.now().used_bytes + spare)
    try:
        yield
    finally:
        _library.stub_memory(MEMORY)


convolutions: list[tuple[int, ...]] = []
"""Shape of the weight of every convolution, forward and backward, that was not a matrix product."""


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """One kernel in the place of a forward convolution."""
    convolutions.append(tuple(weight.shape))
    shape = torch.ops.aten.convolution(
        x.to("meta"), weight.to("meta"), None, stride, padding, dilation, transposed, output_padding, groups
    ).shape
    # As cuDNN, which takes the format of the weight where the one of the input differs.
    last = any(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in (x, weight))
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout).fill_(0)


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *options: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """One kernel for each gradient of a convolution that is wanted."""
    convolutions.append(tuple(weight.shape))
    wanted = options[-1]
    bias = gradient.new_empty(gradient.shape[1]).fill_(0) if wanted[2] else None
    return (
        torch.empty_like(x).fill_(0) if wanted[0] else None,
        torch.empty_like(weight).fill_(0) if wanted[1] else None,
        bias,
    )


_implementations = torch.library.Library("aten", "IMPL")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some versions of PyTorch warn that an implementation is replaced
    _implementations.impl("convolution", _convolution, "CUDA")
    _implementations.impl("convolution_backward", _convolution_backward, "CUDA")
torch.backends.cudnn.enabled = False
