"""Fisher diagonal, Fisher pruning and Fisher-Taylor sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.scoring import Facts, Problem, gradient, one_of, ranked, register


def moments(problem: Problem, per: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean gradient and mean squared gradient (the diagonal of the empirical Fisher matrix) of the prunable weights.

    The squares are of the gradients of single samples, or with `per="batch"` of the mean losses of whole batches.
    """
    # In train mode batch norm would mix the samples, and single samples have no statistics.
    problem.model.eval()
    leaves = {name: w.detach().requires_grad_() for name, w in problem.weights.items()}
    means, squares = ([torch.zeros_like(w) for w in leaves.values()] for _ in range(2))
    seen = 0
    for x, y in problem.samples() if per == "sample" else problem.batches():
        found = gradient(lambda x=x, y=y: problem.loss(problem.forward(x, leaves), y), list(leaves.values()))  # type: ignore[misc]
        torch._foreach_add_(means, found, alpha=len(x))
        torch._foreach_addcmul_(squares, found, found, value=len(x))
        seen += len(x)
    first, second = ([total / seen for total in totals] for totals in (means, squares))
    return dict(zip(leaves, first, strict=True)), dict(zip(leaves, second, strict=True))


@register("fisher", Facts("Gollini et al. 2025", "gradient", "labels", "3 * batches", "transcribed"))
@dataclass(frozen=True)
class Fisher:
    """Diagonal of the empirical Fisher matrix: the mean squared gradient, BatchNorm in eval mode.

    Gollini et al. 2025 (arXiv 2502.11450), function `fisher_diag`. Squares the gradients of single samples, as the
    release does with its default batches of one; `per="batch"` squares those of the scoring batches. The release has
    another formula for more than 4,096 images, the square of the mean; here one holds for all.
    """

    per: str = "sample"
    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "sample-order", "loss-scale", "loss-sign")

    def __post_init__(self) -> None:
        one_of("fisher:per", self.per, ("sample", "batch"))

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return moments(problem, self.per)[1]


@register("fisher-pruning", Facts("Gollini et al. 2025", "gradient", "labels", "3 * batches", "transcribed"))
@dataclass(frozen=True)
class FisherPruning(Fisher):
    """w^2 F / 2 with the Fisher diagonal F of `fisher`. Gollini et al. 2025 (arXiv 2502.11450), `saliency_score`."""

    invariant_to: ClassVar[tuple[str, ...]] = (
        "permutation",
        "rescaling",
        "norm-rescaling",
        "sample-order",
        "loss-scale",
        "loss-sign",
    )

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        diagonal = moments(problem, self.per)[1]
        # Second-order term of the Taylor expansion of the loss, with the Fisher matrix in place of the Hessian.
        return {name: w.square() * diagonal[name] / 2 for name, w in problem.weights.items()}


@register("fts", Facts("Gollini et al. 2025", "gradient", "labels", "3 * batches", "transcribed"))
@dataclass(frozen=True)
class FTS(Fisher):
    """Fisher-Taylor sensitivity |w g + w^2 F / 2|, g the mean gradient and F the Fisher diagonal of `fisher`.

    Gollini et al. 2025 (arXiv 2502.11450), function `fd_taylor`. `ranking="signed"` ranks the value itself.
    """

    ranking: str = "absolute"

    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "rescaling", "norm-rescaling", "sample-order")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        g, diagonal = moments(problem, self.per)
        scores = {name: w * g[name] + w.square() * diagonal[name] / 2 for name, w in problem.weights.items()}
        return ranked("fts:ranking", self.ranking, scores)
