"""Random masks with ideal gas quotas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, apportion, random_scores, register, within


@register("igq", Facts("Vysogorets and Kempe 2023", "random", "nothing", "0", "release"))
@dataclass(frozen=True)
class IGQ:
    """Random weights, ideal gas quotas: the density of a layer of n weights is 1 / (F n + 1).

    Vysogorets and Kempe 2023 (arXiv 2107.02306), section 5: layers as gases that a force F compresses. F meets the
    budget to rounding; the release stops within one weight of it and then rounds every layer down.
    """

    controls: ClassVar[bool] = False
    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        sizes = {name: w.numel() for name, w in problem.weights.items()}

        def shares(force: float) -> dict[str, float]:
            return {name: n / (force * n + 1) for name, n in sizes.items()}

        # A layer keeps fewer than 1/F weights, so the sum over L layers is below the budget at F = L / budget.
        low, high = 0.0, len(sizes) / max(problem.kept, 1)
        # A hundred bisections exhaust the 53 bits of a float.
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(shares(middle).values()) > problem.kept else (low, middle)
        return apportion(within(shares(low), problem.living(), problem.kept), problem.kept)
