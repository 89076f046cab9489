"""SynFlow-L2: synaptic flow of squared weights, without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring import Facts, Flow, Problem, check_factors, check_routes, register, replay


@register("synflow-l2", Facts("Patil and Dovrolis 2021", "paths", "shape", "(3 * rounds + 1) / batch_size", "release"))
@dataclass(frozen=True)
class SynFlowL2:
    """|w| dR/d(w^2), R the summed output of the network of squared parameters for an all-ones input.

    Gebhart et al. 2021 (arXiv 2101.10552) and Patil and Dovrolis 2021 (arXiv 2010.11354), in the form of the latter's
    release: the gradient by w^2 times |w|, not w^2, weighs edges of the path kernel. All parameters are squared, means
    and variances of BatchNorm are used as they are, in eval mode. Differs from the release in the exact count
    (its percentiles keep a weight more); other layers are scored by their paths (see `synflow`).
    """

    rounds: int = 100

    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "weight-signs")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        x, _ = next(problem.batches())
        ones = torch.ones_like(x[:1])
        graph = problem.trace(ones)
        check_routes("synflow-l2", graph, problem.weights, lambda: problem.trace(x[:16]))
        parameters = {name: p.detach().square() for name, p in problem.model.named_parameters()}
        squares = [parameters[name].requires_grad_() for name in problem.weights]
        total = replay(graph, Flow(absolute_means=False), parameters, ones).sum()
        if not total.requires_grad:
            raise PaiBenchError(
                "the logits depend on no parameter or not on the input, as far as the forward pass can be followed",
                "compute it with torch alone (no NumPy, no nn.EmbeddingBag), or score with snip or prospr",
            )
        problem.stream.tick()
        gradients = torch.autograd.grad(total, squares, allow_unused=True)
        # Without the law of `synflow`, which holds for w^2 dR/d(w^2) and not for this score.
        check_factors(graph, [name for name, g in zip(problem.weights, gradients, strict=True) if g is None])
        weights = zip(problem.weights.items(), gradients, strict=True)
        return {name: w.abs() * g.abs() if g is not None else torch.zeros_like(w) for (name, w), g in weights}
