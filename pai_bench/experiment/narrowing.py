"""Narrower networks of the same kind: their width, and the sizes of the complete network beside which they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from pai_bench import models
from pai_bench.cells import exact_sparsity
from pai_bench.datasets import loading
from pai_bench.experiment.run import Run
from pai_bench.pruning.flops import flops
from pai_bench.scoring.losses import n_outputs
from pai_bench.scoring.problem import prunable


@dataclass(frozen=True)
class Complete:
    """The network of a cell at its full width."""

    sizes: Mapping[str, int]
    """Prunable weights by parameter name."""
    flops: int
    """FLOPs of a forward pass."""
    width: float
    """Factor of the widths of the narrower network."""


def narrows(run: Run) -> bool:
    """Return True if the run trains a narrower network instead of a pruned one."""
    return bool(getattr(run.scorer(), "narrows", False))


def width(run: Run) -> float:
    """Return the factor of the widths of a run's network: 1, but for methods that declare `narrows`.

    Raises: PaiBenchError for a model that cannot be built narrower.
    """
    return _Family.of(run).width(run.cell.sparsity, getattr(run.scorer(), "equal", "")) if narrows(run) else 1.0


def complete(run: Run) -> Complete | None:
    """Return the sizes of the complete network if the run's network is a narrower one, else None."""
    if not narrows(run):
        return None
    family = _Family.of(run)
    return Complete(family.sizes(1.0), family.flops(1.0), width(run))


@dataclass(frozen=True)
class _Family:
    """The networks of a model for one data set at all widths."""

    dataset: str
    model: str
    loss: str
    only: tuple[str, ...]
    exclude: tuple[str, ...]

    @classmethod
    def of(cls, run: Run) -> _Family:
        scoring = run.recipe.scoring
        return cls(run.cell.dataset, run.cell.model, run.recipe.train.loss, scoring.only, scoring.exclude)

    def build(self, factor: float) -> nn.Module:
        info = loading.info(self.dataset)
        outputs = n_outputs(self.loss, info.classes, self.dataset)
        return models.build(self.model, info.channels, info.size, outputs, factor)

    def sizes(self, factor: float) -> dict[str, int]:
        # On the meta device, a search over widths allocates no memory and draws no weights.
        with torch.device("meta"):
            network = self.build(factor)
        weights = prunable(network, only=self.only, exclude=self.exclude)
        return {name: weight.numel() for name, weight in weights.items()}

    def flops(self, factor: float) -> int:
        return _flops(self, tuple(self.sizes(factor).items()), factor)

    def width(self, sparsity: float, equal: str) -> float:
        return _width(self, sparsity, equal)


@cache
def _flops(family: _Family, _sizes: tuple[tuple[str, int], ...], factor: float) -> int:
    return flops(family.build(factor), {}, loading.info(family.dataset).shape)[0]


@cache
def _width(family: _Family, sparsity: float, equal: str) -> float:
    seen: dict[tuple[tuple[str, int], ...], int] = {}

    def size(factor: float) -> int:
        sizes = tuple(family.sizes(factor).items())
        if sizes not in seen:  # the same network at many widths
            seen[sizes] = sum(dict(sizes).values()) if equal == "params" else family.flops(factor)
        return seen[sizes]

    return models.closest_width(size, float(1 - exact_sparsity(sparsity)) * size(1.0))
