"""DPaI: differentiable pruning at initialisation by effective paths, nodes and kernels, without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring import (
    Facts,
    PathCount,
    Problem,
    check_routes,
    erk_quotas,
    gaussian,
    more_than,
    register,
    replay,
)


@register("dpai", Facts("Xiang et al. 2025", "paths", "shape", "(3 * steps + 1) / batch_size", "transcribed"))
@dataclass(frozen=True)
class DPaI:
    """|s|, s optimised from standard normal numbers so that the highest of each layer make paths, nodes and kernels.

    Xiang et al. 2025 (ICLR, DPaI). `steps` steps of Adam ascend (1 - alpha) P + alpha ((1 - beta) N + beta K),
    straight through the choice of the highest |s| in each layer: P is the gradient of the logarithm of the number of
    paths for an input of ones, N the part of it at output units without a path, K the part at kernels without one. As
    in the release norms and activations are left out, and layers keep as many weights as under `erk`. Differs in
    the exact count (its layers are rounded up), and in counting paths in float64 through shortcuts, average and max
    pools, where its scaled inputs mix branches of other scales and take the maximum.
    """

    steps: int = 3000
    lr: float = 0.005
    alpha: float = 0.99
    beta: float = 0.5

    costly: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")

    def __post_init__(self) -> None:
        more_than("dpai:lr", self.lr, 0)

    def quotas(self, problem: Problem) -> dict[str, int]:
        return erk_quotas(problem)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        x, _ = next(problem.batches())
        ones = torch.ones_like(x[:1])
        graph = problem.trace(ones)
        check_routes("dpai", graph, problem.weights, lambda: problem.trace(x[:16]))
        plain = {name: torch.ones_like(p, dtype=torch.float64) for name, p in problem.model.named_parameters()}
        scores = {name: gaussian(plain[name], problem.generator) for name in problem.weights}
        adam = torch.optim.Adam(list(scores.values()), self.lr)
        quotas = self.quotas(problem)
        for _ in range(self.steps):
            problem.stream.tick()
            masks = {name: highest(s, problem.masks[name], quotas[name]) for name, s in scores.items()}
            total = replay(graph, PathCount(), {**plain, **masks}, ones.double()).sum()
            if not total.is_meta and not bool(total.isfinite()):
                raise PaiBenchError(
                    "dpai: this network has more than 1.8e308 paths (products of signals multiply them)",
                    "score with another method without data (synflow, phew, erk)",
                )
            # Without a path the number itself still shows which weights would make one.
            # The inner `where` keeps the unused branch finite: its gradient is multiplied by zero, and 0 x inf is NaN.
            objective = torch.where(total > 0, torch.where(total > 0, total, 1.0).log(), total)
            gradients = torch.autograd.grad(objective, list(masks.values()), materialize_grads=True)
            for s, mask, slope in zip(scores.values(), masks.values(), gradients, strict=True):
                used = slope.abs() * mask.detach()
                nodes = used.flatten(1).sum(1).view(-1, *[1] * (s.ndim - 1)) > 0
                kernels = (used.flatten(2).sum(2).view(*s.shape[:2], *[1] * (s.ndim - 2)) if s.ndim > 2 else used) > 0
                dead = (1 - self.beta) * ~nodes + self.beta * ~kernels
                s.grad = -s.sign() * slope * (1 - self.alpha + self.alpha * dead)
            adam.step()
        return {name: s.abs() for name, s in scores.items()}


def highest(scores: Tensor, living: Tensor, count: int) -> Tensor:
    """A mask of zeros and ones that keeps the `count` highest absolute scores of a layer; a leaf."""
    # Absolute scores are at least 0, so that -1 ranks pruned weights last.
    kept = scores.abs().masked_fill(~living, -1).flatten().topk(count).indices
    return torch.zeros_like(scores).flatten().index_fill(0, kept, 1).view_as(scores).requires_grad_()
