"""Interface of methods that search their masks before training, by a training of one score per weight.

The harness trains the scores with the recipe's batches and loss while weights, biases and norms keep their values at
initialisation, and BatchNorm normalises by each batch. The scores are saved and resumed like weights. The masks at the
end of the search are those of the cell; its training then begins with the initial weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from torch import Tensor

from pai_bench.scoring.mask_updates import ChangesMasks


@dataclass(frozen=True)
class Search:
    """Settings of a search: SGD on the scores, with a cosine schedule without warm-up."""

    epochs: int
    """Number of epochs; 0 for as many as the training has."""
    lr: float
    momentum: float
    weight_decay: float


class Searches(ChangesMasks, Protocol):
    """Functions of a method that searches its masks; `__call__` returns the scores at the start.

    `update_steps` and `update_masks` prune the scores: a pruned one is zero from then on, and the last update leaves as
    many as the sparsity keeps. The class may have `project(scores)`, which moves scores in place to the allowed values
    before each step.
    """

    def search(self) -> Search:
        """Return the settings of the search."""
        ...

    def subnetwork(self, scores: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
        """Return factors of the weights, 0 or 1, that are differentiable in the scores (see `straight_through`)."""
        ...


def searches(method: Any) -> TypeGuard[Searches]:
    """Return True for a method, or the class of one, that searches its masks before training."""
    return hasattr(method, "search")


def straight_through(chosen: Tensor, scores: Tensor) -> Tensor:
    """Return `chosen` (bool) as numbers 0 and 1 whose derivative by `scores` is that of the scores themselves."""
    # The difference is exactly zero, so that the values stay 0 and 1, and its derivative by the scores is one.
    return chosen.to(scores.dtype) + (scores - scores.detach())
