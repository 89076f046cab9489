"""pai-bench: one harness for pruning networks at initialisation.

The functions below are imported on first use, so that tools which only read results never load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pai_bench.errors import PaiBenchError

if TYPE_CHECKING:
    from pai_bench.masking import apply_masks
    from pai_bench.pruning import prune, score

__version__ = "0.1.0"
__all__ = ["PaiBenchError", "apply_masks", "list_methods", "prune", "score"]

_HOMES = {"apply_masks": "pai_bench.masking", "prune": "pai_bench.pruning", "score": "pai_bench.pruning"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def list_methods() -> list[str]:
    """The names of all known methods, those of installed packages included, in alphabetical order."""
    from pai_bench import registry

    return registry.names()
