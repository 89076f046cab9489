"""A method as a plug-in: layer-adaptive magnitude scores.

pai-bench sweep --plugin examples/lamp.py --methods lamp,magnitude --datasets digits
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pai_bench import Problem, register


@register("lamp")
@dataclass(frozen=True)
class LAMP:
    """Squared weights, each divided by the sum of all w^2 in its layer that are at least as large (arXiv 2010.07611).

    Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning. The fields of the class are the
    hyper-parameters: `--methods lamp:power=1` sets this one.
    """

    power: float = 2.0

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return {name: self._layer(weight) for name, weight in problem.weights.items()}

    def _layer(self, weight: Tensor) -> Tensor:
        """Return the scores of one layer, in the shape of its weight."""
        values, order = weight.detach().abs().pow(self.power).flatten().sort(descending=True)
        scores = torch.empty_like(values)
        # In descending order, the cumulative sum is the sum of all values that are at least as large.
        scores[order] = values / values.cumsum(0).clamp_min(torch.finfo(values.dtype).tiny)
        return scores.view_as(weight)
