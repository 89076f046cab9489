"""run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pai_bench import models
from pai_bench.cells import CONTROL, Cell
from pai_bench.core import plugins
from pai_bench.recipes import Recipe, result_fingerprint
from pai_bench.scoring import registry
from pai_bench.scoring.problem import Scorer
from pai_bench.training import loop as training


@dataclass(frozen=True)
class Run:
    """All that a job is handed for one cell: names and numbers only."""

    cell: Cell
    recipe: Recipe

    def scorer(self) -> Scorer:
        """The cell's method with its hyper-parameters."""
        return registry.get(self.cell.spec.name, dict(self.cell.spec.hyperparameters))

    def hyperparameters(self) -> dict[str, Any]:
        """Those of the method by name, defaults included, and the control where there is one."""
        control = self.cell.spec.control
        return registry.hyperparameters(self.scorer()) | ({} if control is None else {CONTROL: control})

    def fingerprint(self) -> str:
        """Of everything that moves a number but the sparsity and the seed, which the cell itself names."""
        scorer = self.scorer()
        return result_fingerprint(
            method_name=self.cell.spec.name,
            method_version=registry.version(scorer),
            hyperparameters=self.hyperparameters(),
            dataset=self.cell.dataset,
            model=self.cell.model,
            recipe=self.recipe,
            trainer_version=training.VERSION,
            method_source=plugins.source_hash(registry.module(self.cell.spec.name)),
            model_source=registry.model_source(scorer, models.module(self.cell.model)),
        )
