"""Random masks with the same number of weights in every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, apportion, proportional, random_scores, register


@register("balanced", Facts("Gadhikar et al. 2023", "random", "nothing", "0", "release"))
@dataclass(frozen=True)
class Balanced:
    """Random weights, the same number in every layer; one that is too small is dense, and the others share the rest.

    Gadhikar et al. 2023 (arXiv 2210.02412), section 4. TurboPrune's release divides the excess of a full layer by a
    number of layers that still includes it, and so keeps up to 20 % fewer weights than asked.
    """

    controls: ClassVar[bool] = False
    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        return apportion(
            proportional(dict.fromkeys(problem.weights, 1.0), problem.living(), problem.kept), problem.kept
        )
