"""Errors of a GPU after which a process cannot use it again, such as an illegal memory access."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

EXIT_CODE = 71
"""Exit code of a worker whose GPU has failed (EX_OSERR of sysexits.h)."""


# As a SystemExit it passes every `except Exception` on its way to the end of the process.
class DeviceFault(SystemExit):
    """End of the process because of its GPU. Its cells are not affected: they resume in another process."""

    def __init__(self, cause: str) -> None:
        super().__init__(EXIT_CODE)
        self.cause = cause

    def __str__(self) -> str:
        return f"the GPU cannot be used again in this process ({self.cause}); its cells resume in another process"


def ends_process(error: Exception) -> bool:
    """Return True if the GPU is in an error state that every later call in this process will report.

    The error itself does not show it: libraries (cuBLAS, cuDNN, Triton) report an illegal access of an earlier kernel
    by errors of their own, and a failed capture leaves the GPU usable.
    """
    if isinstance(error, torch.AcceleratorError) or torch.cuda.is_initialized():
        try:
            # An error that has destroyed the CUDA context is reported again by any later call, also by this one.
            torch.cuda.synchronize()
        except torch.AcceleratorError:
            return True
    return False


@contextmanager
def device_faults() -> Iterator[None]:
    """Raise DeviceFault in place of an error of the GPU that ends the process."""
    try:
        yield
    except Exception as error:
        if not ends_process(error):
            raise
        raise DeviceFault(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
