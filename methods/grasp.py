"""GraSP: preserve the gradient flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pai_bench.derivatives import hessian_product
from pai_bench.registry import register
from pai_bench.scoring import Problem


@register("grasp")
@dataclass(frozen=True)
class GraSP:
    """w (Hg), signed: removing the lowest lowers the gradient norm least. Wang et al. 2020 (arXiv 2002.07376), eq. 8.

    g and H belong to the mean cross entropy of logits/`temperature` over all scoring samples (200 as released).
    Differs from the authors' code, which removes the highest of -w (Hg), in scoring the weights that are trained
    (no re-drawn classifier), in one sum over all batches (no halves split by class) and in the exact count.
    `bn`: "train" as released, "eval" as in Synaptic-Flow.
    """

    temperature: float = 200.0
    bn: str = "train"

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.train_mode(self.bn)
        weights = {name: w.detach().requires_grad_() for name, w in problem.weights.items()}
        leaves = list(weights.values())
        batches = list(problem.batches())
        samples = sum(len(x) for x, _ in batches)

        def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            loss = problem.loss(problem.forward(x, weights) / self.temperature, y) * (len(x) / samples)
            return torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)

        # With one batch a single graph serves both passes; with more, only the sum of the gradients is kept.
        parts = [gradient(x, y) for x, y in batches[:1]]
        if len(batches) == 1:
            product = hessian_product(parts[0], [g.detach() for g in parts[0]], leaves)
        else:
            total = [g.detach() for g in parts.pop()]
            for x, y in batches[1:]:
                total = [a + b.detach() for a, b in zip(total, gradient(x, y), strict=True)]
            product = [torch.zeros_like(w) for w in leaves]
            for x, y in batches:
                part = hessian_product(gradient(x, y), total, leaves)
                product = [a + b for a, b in zip(product, part, strict=True)]
        return {name: w.detach() * p for (name, w), p in zip(weights.items(), product, strict=True)}
