"""Measurement of wall time and peak memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pai_bench.core.precision import float32_products
from pai_bench.experiment.process import return_freed
from pai_bench.results import float64
from pai_bench.scoring.product_convolutions import fastest_convolutions


@dataclass(frozen=True)
class Passes:
    """Cost of scoring that does not depend on the machine (see `scoring.meter`)."""

    forward: int
    backward: int
    images: int
    """Number of images that decide the masks."""
    labels: int
    """Number of labels that decide the masks."""


@dataclass
class Cost:
    """Wall-clock seconds, peak memory in bytes above the level at the start (None if not measurable), and passes."""

    seconds: float = 0.0
    peak_bytes: int | None = None
    passes: Passes | None = None
    """Passes of a scoring; None for a training, and for masks from a file."""


def cost_of(values: Mapping[str, Any]) -> Cost:
    """Return the cost that `dataclasses.asdict` has made plain."""
    passes = values.get("passes")
    return Cost(values["seconds"], values["peak_bytes"], None if passes is None else Passes(**passes))


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measure the enclosed code; the yielded Cost is filled in at the end."""
    cost = Cost()
    cuda = device.type == "cuda"
    if cuda:
        # Kernels run asynchronously: without the synchronisation, the time of earlier ones would count here.
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        start: int | None = torch.cuda.memory_allocated(device)
    else:
        start = _reset_peak()
    began = time.perf_counter()
    try:
        yield cost
    finally:
        if cuda:
            torch.cuda.synchronize(device)
        cost.seconds = time.perf_counter() - began
        if cuda:
            cost.peak_bytes = torch.cuda.max_memory_allocated(device) - (start or 0)
        elif start is not None:
            peak = _status("VmHWM")
            cost.peak_bytes = None if peak is None else max(0, peak - start)


@cache
def float64_slowdown(device: torch.device) -> float:
    """Return the factor by which a pass in float64 takes longer than in float32 on a device, measured once on a GPU.

    GPUs differ by a factor of 32 in the units they have for float64, and convolutions in float64 reach different
    fractions of them.
    """
    if device.type != "cuda":
        return float64.float64_slowdown(device.type)
    with float32_products("ieee"):
        return _pass_seconds(device, torch.float64) / _pass_seconds(device, torch.float32)


def _pass_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Return the seconds of the forward and backward pass of a convolution of usual size."""
    x = torch.zeros(64, 64, 32, 32, dtype=dtype, device=device, requires_grad=True)
    weight = torch.zeros(64, 64, 3, 3, dtype=dtype, device=device, requires_grad=True)
    found = []
    for _ in range(6):  # the first ones choose kernels and raise the clock
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        # The same mechanism as in scoring, whose duration this ratio predicts.
        with fastest_convolutions(device, dtype):
            torch.autograd.grad(torch.nn.functional.conv2d(x, weight, padding=1).sum(), (x, weight))
        torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    # Other processes on the device can only lengthen a measurement.
    return min(found)


def _reset_peak() -> int | None:
    """Reset the peak resident memory of the process (Linux) and return the current resident bytes."""
    return_freed()  # memory that the allocator retains would hide the same amount of new memory
    try:
        # Linux: "5" sets VmHWM to the current resident size; other systems have no such file.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
