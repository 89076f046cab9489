"""PHEW: paths with higher edge weights, without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pai_bench.scoring import Facts, Problem, Walker, check_routes, register


@register("phew", Facts("Patil and Dovrolis 2021", "paths", "shape", "1 / batch_size", "release"))
@dataclass(frozen=True)
class PHEW:
    """Weights in the order in which random walks pass them that take the next one with probability proportional to |w|.

    Patil and Dovrolis 2021 (ICML, arXiv 2010.11354), algorithm 1: walks from the input's channels forward and from the
    outputs backward in turns, both round robin. Differs from the release in the exact count (of the last walk the last
    weights are left out), in its own seeded draws, and in walking on the recorded graph of the network: identity
    shortcuts too, one branch at a sum or a fork, where the release's forward walks leave holes in residual networks.
    After `patience` walks without a new weight, the largest weights that are left follow.
    """

    patience: int = 200

    optional: ClassVar[bool] = True
    ordinal: ClassVar[bool] = True
    per_sparsity: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("weight-signs",)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        x, _ = next(problem.batches())
        if x.is_meta:  # no values to walk along
            return dict(problem.weights)
        parameters = {name: p.detach().cpu() for name, p in problem.model.named_parameters()}
        graph = problem.trace(x[:1])
        check_routes("phew", graph, problem.weights, lambda: problem.trace(x[:16]))
        walker = Walker(graph, parameters, list(problem.weights), problem.generator)
        sizes = [w.numel() for w in problem.weights.values()]
        absolute = torch.cat([w.detach().abs().flatten().double().cpu() for w in problem.weights.values()])
        living = torch.cat([mask.flatten().cpu() for mask in problem.masks.values()]).numpy()
        order = np.zeros(len(living))
        seen = idle = walks = 0
        while seen < problem.kept and idle < self.patience:
            before = seen
            for edge in walker.walk(walks // 2, forward=walks % 2 == 0):
                if living[edge] and not order[edge]:
                    seen += 1
                    order[edge] = seen
            idle = 0 if seen > before else idle + 1
            walks += 1
            if walks % 100 == 0:
                problem.stream.tick()
        rank = torch.from_numpy(np.where(order > 0, 1 + seen - order, 0))
        # Ranks are at least 1 and scaled magnitudes at most 1/2, so that weights on walks rank first.
        scores = torch.where(rank > 0, rank, absolute / (2 * absolute.max().clamp_min(1e-300)))
        parts = torch.split(scores, sizes)
        return {name: part.view_as(w).to(w) for (name, w), part in zip(problem.weights.items(), parts, strict=True)}
