"""Random masks with the layer densities of the Erdős–Rényi model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, apportion, proportional, random_scores, register


@register("er", Facts("Mocanu et al. 2018", "random", "nothing", "0", "formula"))
@dataclass(frozen=True)
class ER:
    """Random weights, layer densities of the Erdős–Rényi model: as `erk`, but without the sides of the kernel.

    Mocanu et al. 2018 (arXiv 1707.04780), section 3: density of a layer proportional to (C_in + C_out) / (C_in C_out).
    A layer that would exceed density 1 is made dense and the rest is solved again, so that the budget is met exactly.
    """

    controls: ClassVar[bool] = False
    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        shapes = {name: w.shape for name, w in problem.weights.items()}
        raw = {name: (shape[0] + shape[1]) * math.prod(shape[2:]) for name, shape in shapes.items()}
        return apportion(proportional(raw, problem.living(), problem.kept), problem.kept)
