"""Random masks of uniform density, with exemptions for the first and the last layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pai_bench.scoring import Facts, Problem, apportion, random_scores, register, within


@register("uniform-plus", Facts("Gale et al. 2019", "random", "nothing", "0", "release"))
@dataclass(frozen=True)
class UniformPlus:
    """Random weights of one density; the first layer is dense, and the last one keeps at least a fifth of its weights.

    Gale et al. 2019 (arXiv 1902.09574), section 5, in the form of Vysogorets and Kempe 2023 (arXiv 2107.02306). If
    these exemptions leave less than one weight to each layer between them, they shrink in proportion; the release then
    computes sparsities above 1 and raises an error. `last`: the least density of the last layer.
    """

    last: float = 0.2

    controls: ClassVar[bool] = False
    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return random_scores(problem)

    def quotas(self, problem: Problem) -> dict[str, int]:
        sizes = {name: w.numel() for name, w in problem.weights.items()}
        budget, (first, *others) = float(problem.kept), sizes
        if not others:
            return {first: problem.kept}
        *between, last = others
        rest = (budget - sizes[first]) / (sum(sizes.values()) - sizes[first])
        exempt = {first: float(sizes[first]), last: sizes[last] * max(self.last, rest)}
        # One weight for each layer between, so that no layer is emptied.
        room = budget - min(len(between), budget)
        if (total := sum(exempt.values())) > room:
            exempt = {name: share * room / total for name, share in exempt.items()}
        middle = sum(sizes[name] for name in between)
        left = budget - sum(exempt.values())
        shares = {name: exempt[name] if name in exempt else sizes[name] * left / middle for name in sizes}
        return apportion(within(shares, problem.living(), problem.kept), problem.kept)
