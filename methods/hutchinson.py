"""Hutchinson's estimate of the diagonal of the Hessian, its pruning score, and Hutchinson-Taylor sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.scoring import Facts, Problem, gradient, hessian_product, more_than, rademacher, ranked, register

FACTS = Facts("Gollini et al. 2025", "curvature", "labels", "(3 + 6 * probes) * batches", "transcribed")


@register("hutchinson", FACTS)
@dataclass(frozen=True)
class Hutchinson:
    """Diagonal h of the Hessian, estimated by z (H z), z = -1 or +1 at random for each parameter.

    Gollini et al. 2025 (arXiv 2502.11450), function `hutchinson_diag`. H belongs to the mean loss of the logits divided
    by `temperature`, with BatchNorm in eval mode; the mean runs over the scoring batches and over `probes` draws of z
    in each of them. About half of h is negative: `ranking="signed"`, the release's order, prunes it first, "absolute"
    ranks |h|.
    """

    probes: int = 10
    temperature: float = 200.0
    ranking: str = "signed"

    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("sample-order", "loss-scale")

    def __post_init__(self) -> None:
        more_than("hutchinson:probes", self.probes, 0)
        more_than("hutchinson:temperature", self.temperature, 0)
        ranked("hutchinson:ranking", self.ranking, {})

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        return ranked("hutchinson:ranking", self.ranking, self.score(problem, *self.estimates(problem)))

    def score(self, problem: Problem, g: dict[str, Tensor], h: dict[str, Tensor]) -> dict[str, Tensor]:
        """The score from the mean gradient g and the diagonal h, before it is ranked."""
        return {name: h[name] for name in problem.weights}

    def estimates(self, problem: Problem) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean gradient and diagonal of the Hessian, both of the tempered loss, by the names of all parameters."""
        problem.model.eval()
        theta = problem.parameters()
        leaves = list(theta.values())
        slope, diagonal = ([torch.zeros_like(p) for p in leaves] for _ in range(2))
        seen = 0
        for x, y in problem.batches():

            def loss(x: Tensor = x, y: Tensor = y) -> Tensor:
                return problem.loss(problem.forward(x, theta) / self.temperature, y)

            found = gradient(loss, leaves, graph=True)
            torch._foreach_add_(slope, [one.detach() for one in found], alpha=len(x))
            for probe in range(1, self.probes + 1):
                z = [rademacher(p, problem.generator) for p in leaves]
                product = hessian_product(found, z, leaves, retain=probe < self.probes)
                torch._foreach_addcmul_(diagonal, z, product, value=len(x) / self.probes)
            seen += len(x)
        g, h = ([total / seen for total in totals] for totals in (slope, diagonal))
        return dict(zip(theta, g, strict=True)), dict(zip(theta, h, strict=True))


@register("hutchinson-pruning", FACTS)
@dataclass(frozen=True)
class HutchinsonPruning(Hutchinson):
    """w^2 h / 2 with the diagonal h of `hutchinson`. Gollini et al. 2025 (arXiv 2502.11450), `saliency_score`."""

    def score(self, problem: Problem, g: dict[str, Tensor], h: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: w.square() * h[name] / 2 for name, w in problem.weights.items()}


@register("hts", FACTS)
@dataclass(frozen=True)
class HTS(Hutchinson):
    """Hutchinson-Taylor sensitivity |w g + w^2 h / 2|, g and h the mean gradient and the diagonal of `hutchinson`.

    Gollini et al. 2025 (arXiv 2502.11450), function `hutchinson_taylor`. Both are of the tempered loss, which scales g
    by 1/temperature and h by its square: the temperature weighs the two terms.
    """

    ranking: str = "absolute"

    def score(self, problem: Problem, g: dict[str, Tensor], h: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: w * g[name] + w.square() * h[name] / 2 for name, w in problem.weights.items()}
