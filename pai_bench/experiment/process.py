"""Settings of a process that runs cells: number of threads, and options of glibc's allocator."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 128 << 20
_LARGEST_OF_OLD = 32 << 20
"""Largest threshold that older versions of glibc accept."""


def prepare() -> None:
    """Compute with one thread, and keep freed memory for later tensors (up to 128 MiB each, with glibc).

    One thread, because the order of summation depends on the number of threads. By default glibc returns most freed
    memory to the kernel in each step, and the kernel zeroes every page again on the next allocation; this takes a
    tenth of the training step of a ResNet-20 on a CPU.
    """
    torch.set_num_threads(1)
    with suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)
        # A fixed threshold also switches off glibc's own adjustment of both thresholds.
        if not set_option(_M_MMAP_THRESHOLD, _LARGEST):
            set_option(_M_MMAP_THRESHOLD, _LARGEST_OF_OLD)


def return_freed() -> None:
    """Return free memory to the kernel (with glibc)."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
