"""NTK-SAP: foresight pruning by the training dynamics of many draws of the weights, without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pai_bench.scoring import ChunkedConvolutions, Facts, Problem, gaussian, more_than, real_inputs, register


@register("ntk-sap", Facts("Wang et al. 2023", "kernel", "shape", "7 * rounds * repeats * batches", "release"))
@dataclass(frozen=True)
class NTKSAP:
    """|sum of dJ/dm|, J = |f(z; m w) - f(z; m (w + epsilon d))|^2 summed over Gaussian inputs z.

    Wang et al. 2023 (ICLR, NTK-SAP), eq. 9 and algorithm 1. For each of `repeats` times the scoring batches, of which
    only the shape is used, w is drawn again as the recipe draws weights, d and z are standard normal; 20 rounds and
    5 repeats are the release's script for CIFAR-10 (elsewhere 100 and 1). Biases keep their values and norms are reset,
    as released. BatchNorm takes the statistics of z under m w, then is in eval mode and a constant for the gradient.
    Differs from the release in the exact count, and in that the original weights are trained, not the last draw.
    """

    rounds: int = 20
    repeats: int = 5
    epsilon: float = 0.01

    costly: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("weight-signs", "weights")

    def __post_init__(self) -> None:
        more_than("ntk-sap:repeats", self.repeats, 0)
        more_than("ntk-sap:epsilon", self.epsilon, 0)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        names = list(problem.weights)
        kept = {name: p.detach().clone() for name, p in problem.model.named_parameters() if name not in problem.weights}
        total = [torch.zeros_like(w) for w in problem.weights.values()]
        for _ in range(self.repeats):
            for x in real_inputs("ntk-sap", problem):
                problem.initialise(problem.model)
                # The redraw has changed all parameters, and only weights are to be drawn again.
                problem.model.load_state_dict(kept, strict=False)
                z = gaussian(x, problem.generator)
                masks = [problem.masks[name].to(z.dtype).requires_grad_() for name in names]
                drawn = [problem.weights[name].clone() for name in names]
                moved = [w + self.epsilon * gaussian(w, problem.generator) for w in drawn]
                networks = [{n: m * w for n, m, w in zip(names, masks, ws, strict=True)} for ws in (drawn, moved)]
                with ChunkedConvolutions():
                    set_statistics(problem, z, {name: w.detach() for name, w in networks[0].items()})
                    one, other = (problem.forward(z, network) for network in networks)
                parts = torch.autograd.grad((one - other).square().sum(), masks, materialize_grads=True)
                total = [a + b for a, b in zip(total, parts, strict=True)]
        return {name: score.abs() for name, score in zip(names, total, strict=True)}


def set_statistics(problem: Problem, z: Tensor, weights: dict[str, Tensor]) -> None:
    """Reset the norms, give them the (unbiased) statistics of one batch, and leave the model in eval mode."""
    for module in problem.model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
            # With a momentum of 1 the running statistics become those of the one batch.
            module.momentum = 1.0
    problem.model.train()
    with torch.no_grad():
        problem.forward(z, weights)
    problem.model.eval()
