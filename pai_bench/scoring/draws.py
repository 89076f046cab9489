"""Random numbers of methods, drawn on the CPU in float64, so that they do not depend on the device or the dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pai_bench.scoring.problem import Problem


def gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape of a tensor."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like)


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers -1 and +1 with equal probability, in the shape of a tensor."""
    draws = torch.rand(like.shape, generator=generator, dtype=torch.float64, device="cpu")
    # From uniform draws in float64, so that the signs are the same for every dtype of the model.
    return torch.where(draws < 0.5, -1.0, 1.0).to(like)


def random_scores(problem: Problem) -> dict[str, Tensor]:
    """One uniform draw in [0, 1) per weight, by parameter name: scores of a random mask."""
    return {
        name: torch.rand(w.shape, generator=problem.generator, dtype=torch.float64, device="cpu").to(w.device)
        for name, w in problem.weights.items()
    }
