"""NPB: balance of effective nodes, paths and kernels, without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring import (
    Facts,
    Inputs,
    Problem,
    check_routes,
    choose_in_order,
    erk_quotas,
    kernel_counts,
    more_than,
    random_scores,
    register,
)


@register("npb", Facts("Pham et al. 2023", "paths", "shape", "2 / batch_size", "formula"))
@dataclass(frozen=True)
class NPB:
    """Kernel counts M [in, out] of each layer that maximise alpha A + (1 - alpha) B + beta R, layer after layer.

    Pham et al. 2023 (NeurIPS, "Towards data-agnostic pruning at initialization: what makes a good sparse mask?"). A:
    fraction of input and output channels with a kept weight; B: number of paths through the layer, over that of the
    best placement; R: kernels with a kept weight, over kept weights. Layers keep as many as under `erk`. The release
    gives this to a solver of integer programs, and large layers in chunks; here the optimum is found exactly (see
    `kernel_counts`). Equal optima and positions inside of kernels are drawn at random. Differs too in the exact count,
    in shortcuts, and in no later refilling of ineffective weights.
    """

    alpha: float = 0.99
    beta: float = 0.001

    optional: ClassVar[bool] = True
    per_sparsity: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("rescaling", "norm-rescaling", "weight-signs", "weights")
    may_tie: ClassVar[bool] = True  # weights are kept or not

    def __post_init__(self) -> None:
        more_than("npb:alpha", self.alpha, 0)
        more_than("npb:beta", self.beta, 0)

    def quotas(self, problem: Problem) -> dict[str, int]:
        return erk_quotas(problem)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        x, _ = next(problem.batches())
        if x.is_meta:  # no values to count paths with
            return dict(problem.weights)
        ones = torch.ones_like(x[:1]).double()
        quotas = self.quotas(problem)
        plain = {name: torch.ones_like(p, dtype=torch.float64) for name, p in problem.model.named_parameters()}

        def choose(name: str, inputs: Inputs) -> Tensor:
            problem.stream.tick()
            shape = plain[name].shape
            turned = shape[1] * inputs.groups != len(inputs.paths)  # [in, out], as transposed convolutions
            if turned and shape[0] != len(inputs.paths):
                raise PaiBenchError(
                    f"npb cannot place the weights of {name}: the network multiplies {len(inputs.paths)} inputs by a"
                    f" tensor that it computes from {name} {list(shape)}",
                    f"leave it out with exclude={name!r}, or score with another method (erk, synflow)",
                )
            outputs = shape[1] if turned else shape[0] // inputs.groups
            size = max(1, plain[name][0, 0].numel())
            paths = inputs.paths.view(inputs.groups, -1)
            counts = kernel_counts(paths, outputs, size, quotas[name], self.alpha, self.beta, problem.generator)
            kernels = (counts if turned else counts.transpose(1, 2)).reshape(*shape[:2], 1)
            places = torch.rand(*shape[:2], size, generator=problem.generator, device="cpu").argsort(2)
            return (places < kernels).view(shape).to(plain[name])

        graph = problem.trace(x[:1])
        check_routes("npb", graph, problem.weights, lambda: problem.trace(x[:16]))
        masks = choose_in_order(graph, plain, list(problem.weights), ones, choose)
        draws = random_scores(problem)
        # Draws are below 1, so that the chosen weights, at 1 and above, always rank first.
        return {name: draw + masks.get(name, torch.zeros_like(draw)).to(draw) for name, draw in draws.items()}
