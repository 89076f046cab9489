"""Base of the modes that see or replace the operators of PyTorch."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """Dispatch mode that does not load the compiler of PyTorch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # By default the first operator under a mode imports torch._dynamo, so that a compiled function would leave the
        # mode out. Nothing is compiled here, and the import takes two seconds of each process.
        return False
