"""Checks of this machine: versions, source hash and devices."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import import_module
from importlib.metadata import version

from pai_bench.doctor.checks import OK, WARNING, Check, Checks, tried

_INSTALL = "install pai-bench into a fresh virtual environment: pip install pai-bench"


def checks() -> Checks:
    """Check Python, the packages, the source hash and the devices. Imports torch."""
    yield Check("python", OK, f"{platform.python_version()} ({sys.executable}) on {platform.node()}")
    yield tried("pai-bench", _INSTALL, _ours)
    for package in ("torch", "torchvision"):
        yield tried(package, _INSTALL, lambda package=package: _package(package))  # type: ignore[misc]
    yield tried(
        "devices", "check that torch matches the driver: python -c 'import torch; torch.zeros(1).cuda()'", _devices
    )


def _ours() -> Check:
    from pai_bench.experiment.provenance import source_hash

    return Check("pai-bench", OK, f"{version('pai-bench')}, sources {source_hash()[:12]}")


def _package(name: str) -> Check:
    return Check(name, OK, str(import_module(name).__version__))


def _devices() -> Check:
    # The import is part of the check, which reports a broken installation.
    import torch

    if not torch.cuda.is_available():
        return Check("devices", OK, f"torch finds no GPU; {len(os.sched_getaffinity(0))} cores")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    free, total = torch.cuda.mem_get_info()
    found = f"{', '.join(names)}; {free / 2**30:.0f} of {total / 2**30:.0f} GiB free on the first"
    rate = _seconds(torch.float32) / _seconds(torch.float64)
    found += f"; float64 (for scoring) at {rate:.2f} of the rate of IEEE float32"
    if free < 0.1 * total:
        return Check("devices", WARNING, found, "another process uses this GPU: nvidia-smi lists it")
    return Check("devices", OK, found)


def _seconds(dtype: object) -> float:
    """Return the time in seconds of a product of two 2048 x 2048 matrices on the first GPU, the best of four."""
    import torch

    from pai_bench.core.precision import float32_products

    square = torch.ones(2048, 2048, dtype=dtype, device="cuda")  # type: ignore[call-overload]
    best = float("inf")
    for _ in range(4):  # the first run includes the initialisation of cuBLAS
        torch.cuda.synchronize()  # kernels run asynchronously: wait, or only their launch is timed
        began = time.perf_counter()
        with float32_products("ieee"):
            square @ square
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best
