"""SynFlow: iterative synaptic flow, without data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pai_bench.registry import register
from pai_bench.scoring import Problem


@register("synflow")
@dataclass(frozen=True)
class SynFlow:
    """|w| dR/d|w|, R the summed output of the network of absolute values for an all-ones input.

    Tanaka et al. 2020 (arXiv 2006.05467), eq. 3 and algorithm 1: 100 rounds of exponentially falling density.
    As in the authors' code every parameter and buffer is replaced by its absolute value and BatchNorm is in eval
    mode; in float64, where the release's float32 products over depth drift. Only the shape of the data is used.
    """

    rounds: int = 100

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        state = problem.model.state_dict(keep_vars=True)
        with torch.no_grad():
            for value in state.values():
                if value.is_floating_point():
                    value.abs_()
        x, _ = next(problem.batches())
        weights = [state[name] for name in problem.weights]
        gradients = torch.autograd.grad(problem.forward(torch.ones_like(x[:1])).sum(), weights, materialize_grads=True)
        return {name: w.detach() * g for name, w, g in zip(problem.weights, weights, gradients, strict=True)}
