"""ProsPr: prospective pruning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring import Batch, Facts, Graphs, Problem, gradient, hessian_product, in_one_block, one_of, register


@register("prospr", Facts("Alizadeh et al. 2022", "meta gradient", "labels", "9 * steps + 3", "release"))
@dataclass(frozen=True)
class ProsPr:
    """|dL(theta_M)/dc| at c = 1, theta_0 = c w, after M inner steps of SGD. Alizadeh et al. 2022 (arXiv 2202.08132).

    Inner step i uses batch i and the meta-loss the next one; `new_batches=False` uses batch 0 everywhere. All
    parameters take the inner steps, biases and norms too; BatchNorm in train mode; no weight decay. Defaults are
    those of the released example. `variant`: "full" differentiates through the steps, "first_order" takes every
    Jacobian of a step for the identity. `detach_first_buffer` is the release's behaviour with momentum, which
    published numbers contain: the first buffer is constant, so step 0 has no Hessian term. `structured`: c of channels.

    The authors' code keeps the graph of all steps; here they are walked back with one Hessian-vector product each.
    """

    steps: int = 3
    lr: float = 0.5
    momentum: float = 0.9
    variant: str = "full"
    new_batches: bool = True
    detach_first_buffer: bool = False
    structured: bool = False

    added: ClassVar[tuple[str, ...]] = ("structured",)
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "sample-order")

    def __post_init__(self) -> None:
        one_of("prospr:variant", self.variant, ("full", "first_order"))
        if self.steps < 0:
            raise PaiBenchError(f"prospr:steps must be 0 or more, not {self.steps}", "write for instance steps=3")

    def batches_needed(self) -> int:
        return self.steps + 1 if self.new_batches else 1

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.train()
        batches = problem.first_batches(self.batches_needed()) * (1 if self.new_batches else self.steps + 1)

        def gradient_at(theta: dict[str, Tensor], batch: Batch, graph: bool = False) -> list[Tensor]:
            x, y = batch
            return gradient(lambda: problem.loss(problem.forward(x, theta), y), list(theta.values()), graph=graph)

        theta, trail, graphs = problem.parameters(), [], Graphs()
        names, buffers = list(theta), [torch.zeros_like(p) for p in theta.values()]
        # Without momentum there is no buffer, and the release keeps the graph of step 0 too.
        first = 1 if self.detach_first_buffer and self.momentum != 0 else 0
        places = in_one_block(buffers, self.steps - 1 if self.variant == "full" else 0)
        for step, batch in enumerate(batches[:-1]):
            make = partial(gradient_at, theta, batch)
            if self.variant == "full" and step >= first:
                slope, with_graph = graphs.gradient(make, batch[0].device)
                trail.append((list(theta.values()), with_graph))
            else:
                slope = make()
            torch._foreach_mul_(buffers, self.momentum)
            torch._foreach_add_(buffers, slope)
            del slope
            moved = next(places, None) or [torch.empty_like(b) for b in buffers]
            torch._foreach_copy_(moved, [p.detach() for p in theta.values()])
            torch._foreach_sub_(moved, torch._foreach_mul(buffers, self.lr))
            theta = {name: p.requires_grad_() for name, p in zip(names, moved, strict=True)}
            del moved
        # dL/dtheta_t from t = M down to 0, and dL/dbuffer_t by way of the buffers after it.
        meta = [g.clone() for g in gradient_at(theta, batches[-1])]
        later = [torch.zeros_like(b) for b in buffers]
        del theta, buffers
        while trail:
            leaves, with_graph = trail.pop()
            torch._foreach_add_(later, meta, alpha=-self.lr)
            torch._foreach_add_(meta, hessian_product(with_graph(), later, leaves))
            torch._foreach_mul_(later, self.momentum)
        scores = dict(zip(names, meta, strict=True))
        products = {name: w * scores[name] for name, w in problem.weights.items()}
        if self.structured:
            products = {n: p.mean([*range(1, p.dim())], keepdim=True).expand_as(p) for n, p in products.items()}
        return {name: p.abs() for name, p in products.items()}
