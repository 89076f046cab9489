"""A run: a cell and the recipe it is trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pai_bench import models
from pai_bench.cells import CONTROL, Cell, kept_count
from pai_bench.core import plugins
from pai_bench.recipes import Recipe, result_fingerprint
from pai_bench.results import ResultKey
from pai_bench.scoring import registry
from pai_bench.scoring.mask_updates import changes_masks
from pai_bench.scoring.problem import Scorer
from pai_bench.scoring.product_convolutions import mechanism
from pai_bench.scoring.searching import searches
from pai_bench.training import loop as training
from pai_bench.training.mask_updates import Changing


@dataclass(frozen=True)
class Run:
    """Complete specification of the work for one cell: names and numbers only."""

    cell: Cell
    recipe: Recipe

    def scorer(self) -> Scorer:
        """Create the cell's method with its hyper-parameters."""
        return registry.get(self.cell.spec.name, dict(self.cell.spec.hyperparameters))

    def hyperparameters(self) -> dict[str, Any]:
        """Return the method's hyper-parameters by name, including defaults, and the control if there is one."""
        return registry.hyperparameters(self.scorer()) | self._control()

    def _control(self) -> dict[str, Any]:
        control = self.cell.spec.control
        return {} if control is None else {CONTROL: control}

    def changing(self, size: int) -> Changing | None:
        """Return the method if it changes the masks of `size` prunable weights during training, else None."""
        scorer = self.scorer()
        if not changes_masks(scorer):
            return None
        return Changing(scorer, self.cell.method, kept_count(self.cell.sparsity, size), size)

    def trainings(self) -> float:
        """Return the epochs of the run divided by the epochs of its recipe: 1 but for methods with several cycles."""
        changing, epochs = self.changing(10**9), self.recipe.train.epochs
        rewinding = None if changing is None else changing.rewinding(epochs)
        return 1.0 if rewinding is None else 1 + rewinding.cycles * (epochs - rewinding.epoch) / epochs

    def search_epochs(self) -> int:
        """Return the epochs of the search that precedes the training; 0 for methods without one."""
        scorer = self.scorer()
        return (scorer.search().epochs or self.recipe.train.epochs) if searches(scorer) else 0

    def float64_convolutions(self, device: torch.device) -> str | None:
        """Return the mechanism of wide convolutions in the scoring; None unless it is done in float64 on a GPU."""
        scorer = self.scorer()
        scores = getattr(scorer, "prunes", True) and not searches(scorer)
        scored = scores and self.recipe.scoring.dtype == "float64"
        return mechanism(device) if scored else None

    def key(self) -> ResultKey:
        """Return the key of the run's result."""
        return ResultKey(self.cell, self.recipe.name, self.fingerprint())

    def fingerprint(self) -> str:
        """Return the fingerprint of everything that affects the numbers, except sparsity and seed."""
        scorer = self.scorer()
        return result_fingerprint(
            method_name=self.cell.spec.name,
            method_version=registry.version(scorer),
            hyperparameters=registry.identity(scorer) | self._control(),
            dataset=self.cell.dataset,
            model=self.cell.model,
            recipe=self.recipe,
            trainer_version=training.VERSION,
            method_source=plugins.source_hash(registry.module(self.cell.spec.name)),
            model_source=registry.model_source(scorer, models.module(self.cell.model)),
        )
