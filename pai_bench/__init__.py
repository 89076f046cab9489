"""Benchmark suite for pruning neural networks at initialisation.

`prune` and `score` apply a method to a model and batches; `apply_masks` keeps pruned weights at zero in training;
`load_results` returns the results of a sweep as a DataFrame. `register` adds a method, `register_model` and
`register_dataset` add networks and data.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pai_bench.errors import PaiBenchError

if TYPE_CHECKING:
    from pai_bench.analysis.loading import load_results
    from pai_bench.core.facts import Facts
    from pai_bench.datasets.files.sources import register_dataset, register_source
    from pai_bench.datasets.files.types import Info
    from pai_bench.models.registry import register_model
    from pai_bench.pruning.functions import prune, score
    from pai_bench.pruning.mask_io import load_masks, save_masks
    from pai_bench.pruning.masking import apply_masks, masks_of, remove_masks, sparsity
    from pai_bench.pruning.shrinking import shrink
    from pai_bench.results.ties import TiedScoresWarning
    from pai_bench.scoring.problem import Problem
    from pai_bench.scoring.registry import register
    from pai_bench.scoring.weights import prunable

# Public functions are imported on first use, so that `import pai_bench` and tools which only read results never load
# torch. To add one: name it in `__all__`, its module in `_HOMES`, and import it above for type checkers.
__version__ = "0.1.0"
__all__ = [
    "Facts",
    "Info",
    "PaiBenchError",
    "Problem",
    "TiedScoresWarning",
    "apply_masks",
    "list_methods",
    "load_masks",
    "load_results",
    "masks_of",
    "prunable",
    "prune",
    "register",
    "register_dataset",
    "register_model",
    "register_source",
    "remove_masks",
    "save_masks",
    "score",
    "shrink",
    "sparsity",
]

_HOMES = {
    "Facts": "pai_bench.core.facts",
    "Info": "pai_bench.datasets.files.types",
    "Problem": "pai_bench.scoring.problem",
    "TiedScoresWarning": "pai_bench.results.ties",
    "apply_masks": "pai_bench.pruning.masking",
    "load_masks": "pai_bench.pruning.mask_io",
    "load_results": "pai_bench.analysis.loading",
    "masks_of": "pai_bench.pruning.masking",
    "prunable": "pai_bench.scoring.weights",
    "prune": "pai_bench.pruning.functions",
    "register": "pai_bench.scoring.registry",
    "register_dataset": "pai_bench.datasets.files.sources",
    "register_model": "pai_bench.models.registry",
    "register_source": "pai_bench.datasets.files.sources",
    "remove_masks": "pai_bench.pruning.masking",
    "save_masks": "pai_bench.pruning.mask_io",
    "score": "pai_bench.pruning.functions",
    "shrink": "pai_bench.pruning.shrinking",
    "sparsity": "pai_bench.pruning.masking",
}
"""Module of each function that is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def list_methods() -> list[str]:
    """Return the names of the methods for `score` and `prune` in alphabetical order, those of installed packages too.

    Methods that change their masks during training are not among them; `pai-bench list methods` shows these too.
    """
    from pai_bench.scoring import registry

    return registry.names_at_initialisation()
