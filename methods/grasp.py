"""GraSP: preserve the gradient flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.scoring import Facts, Problem, gradient, hessian_product, more_than, one_of, ranked, register


@register("grasp", Facts("Wang et al. 2020", "curvature", "labels", "9 * rounds * batches", "release"))
@dataclass(frozen=True)
class GraSP:
    """w (Hg), signed: removing the lowest lowers the gradient norm least. Wang et al. 2020 (arXiv 2002.07376), eq. 8.

    g and H belong to the mean cross entropy of logits/`temperature` over all scoring samples (200 as released).
    Differs from the authors' code, which removes the highest of -w (Hg), in scoring the weights that are trained
    (no re-drawn classifier), in one sum over all batches (no halves split by class) and in the exact count.
    `bn`: "train" as released, "eval" as in Synaptic-Flow. `absolute=True` ranks |w (Hg)|, as Frankle et al. 2021 (arXiv
    2009.08576) and CroP (Rachwan et al. 2022, arXiv 2206.10451); `rounds` scores the pruned network again (CroPit).
    With several batches scoring takes 12 passes of each, since the first gradients are computed twice.
    """

    temperature: float = 200.0
    bn: str = "train"
    absolute: bool = False
    rounds: int = 1
    added: ClassVar[tuple[str, ...]] = ("absolute", "rounds")
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "sample-order", "loss-scale", "loss-sign")

    def __post_init__(self) -> None:
        one_of("grasp:bn", self.bn, ("train", "eval"))
        more_than("grasp:temperature", self.temperature, 0)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.train_mode(self.bn)
        weights = {name: w.detach().requires_grad_() for name, w in problem.weights.items()}
        leaves = list(weights.values())
        batches = list(problem.batches())
        samples = sum(len(x) for x, _ in batches)

        def part(x: Tensor, y: Tensor, graph: bool) -> list[Tensor]:
            def loss() -> Tensor:
                return problem.loss(problem.forward(x, weights) / self.temperature, y) * (len(x) / samples)

            return gradient(loss, leaves, graph=graph)

        if len(batches) == 1:  # a single graph serves both passes
            g = part(*batches[0], graph=True)
            product = hessian_product(g, [one.detach() for one in g], leaves)
        else:
            total, product = ([torch.zeros_like(w) for w in leaves] for _ in range(2))
            for x, y in batches:
                torch._foreach_add_(total, part(x, y, graph=False))
            for x, y in batches:
                torch._foreach_add_(product, hessian_product(part(x, y, graph=True), total, leaves))
        scores = {name: w.detach() * p for (name, w), p in zip(weights.items(), product, strict=True)}
        return ranked("grasp:absolute", "absolute" if self.absolute else "signed", scores)
