"""SynFlow: iterative synaptic flow, without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring import Facts, Flow, Problem, check_factors, check_law, check_routes, one_of, register, replay


@register("synflow", Facts("Tanaka et al. 2020", "paths", "shape", "(3 * rounds + 2) / batch_size", "release"))
@dataclass(frozen=True)
class SynFlow:
    """|w| dR/d|w|, R the summed output of the network of absolute values for an all-ones input.

    Tanaka et al. 2020 (arXiv 2006.05467), eq. 3 and algorithm 1: 100 rounds of exponentially falling density, on the
    path network of the model (see pai_bench.scoring.paths.network): every parameter and buffer is replaced by its
    absolute value, BatchNorm is in eval mode. For networks of ReLU and BatchNorm this is the authors' code; in float64,
    where the release's float32 products over depth drift. Only the shape of the data is used. `count`: "exact" keeps
    round(density N) weights after every round, "released" N - floor((1 - density) N) after all but the last, as the
    release does, where the last one is exact too.

    Raises: PaiBenchError for a network whose layers do not obey the law of the paper (theorem 3), at the first round.
    """

    rounds: int = 100
    count: str = "exact"

    added: ClassVar[tuple[str, ...]] = ("count",)
    plugin_version: ClassVar[int] = 2  # the path network; masks of the built-in models are as they were
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "rescaling", "norm-rescaling", "weight-signs")

    def __post_init__(self) -> None:
        one_of("synflow:count", self.count, ("exact", "released"))

    def kept_after(self, density: float, size: int) -> int:
        """The number of weights after each round but the last."""
        return size - int((1 - density) * size) if self.count == "released" else round(density * size)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        with torch.no_grad():
            for value in problem.model.state_dict(keep_vars=True).values():
                if isinstance(value, Tensor) and value.is_floating_point():
                    # In place, because `trace` and the path network read the values of the model itself.
                    value.abs_()
        x, _ = next(problem.batches())
        ones = torch.ones_like(x[:1])
        graph, flow = problem.trace(ones), Flow()
        # The law is checked on the dense network alone: masks may rightly empty paths later.
        first = not x.is_meta and all(bool(mask.all()) for mask in problem.masks.values())
        ones.requires_grad_(first and ones.is_floating_point())
        problem.stream.tick()
        parameters = dict(problem.model.named_parameters())
        total = replay(graph, flow, parameters, ones).sum()
        if not total.requires_grad:
            raise PaiBenchError(
                "the logits depend on no parameter or not on the input, as far as the forward pass can be followed",
                "compute it with torch alone (no NumPy, no nn.EmbeddingBag), or score with snip or prospr",
            )
        weights = [parameters[name] for name in problem.weights]
        gradients = torch.autograd.grad(total, weights, allow_unused=True, retain_graph=first)
        zeros = torch.zeros((), dtype=total.dtype, device=total.device)
        scores = {
            name: w.detach() * g if g is not None else zeros.expand_as(w)
            for name, w, g in zip(problem.weights, weights, gradients, strict=True)
        }
        if first:
            pathless = [name for name, g in zip(problem.weights, gradients, strict=True) if g is None]
            check_factors(graph, pathless)
            check_routes("SynFlow", graph, problem.weights, lambda: problem.trace(x[:16]))
            on_paths = [name for name, g in zip(problem.weights, gradients, strict=True) if g is not None]
            check_law(graph, {name: scores[name] for name in on_paths}, total, [ones, *flow.added], parameters)
        return scores
