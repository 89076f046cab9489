"""How a process that runs cells uses the machine it is on: threads, and what glibc's allocator does."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 128 << 20
_LARGEST_OF_OLD = 32 << 20
"""What older versions of glibc take at most."""


def prepare() -> None:
    """Compute with one thread, and keep freed memory for the next tensors (up to 128 MiB each, with glibc).

    Other numbers of threads sum in another order. As it is, most of what is freed goes back to the kernel in each step
    and is handed out anew, page by page and zeroed: a tenth of a ResNet-20's training step on a CPU.
    """
    torch.set_num_threads(1)
    with suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)
        if not set_option(_M_MMAP_THRESHOLD, _LARGEST):
            set_option(_M_MMAP_THRESHOLD, _LARGEST_OF_OLD)


def return_freed() -> None:
    """Give the kernel what is free, with glibc."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
