"""Norm of the mean gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, register


@register("grad-norm", Facts("Gollini et al. 2025", "gradient", "labels", "3 * batches", "transcribed"))
@dataclass(frozen=True)
class GradNorm:
    """|mean gradient|, BatchNorm in eval mode. Gollini et al. 2025 (arXiv 2502.11450), function `grad_mean`."""

    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "sample-order", "loss-scale", "loss-sign")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        return {name: g.abs() for name, g in problem.gradient().items()}
