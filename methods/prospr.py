"""ProsPr: prospective pruning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.registry import register
from pai_bench.scoring import Problem


@register("prospr")
@dataclass(frozen=True)
class ProsPr:
    """|dL(theta_M)/dc| at c = 1, theta_0 = c w, after M inner steps of SGD. Alizadeh et al. 2022 (arXiv 2202.08132).

    Inner step i uses batch i and the meta-loss the next one; `new_batches=False` uses batch 0 everywhere. All
    parameters take the inner steps, biases and norms too; BatchNorm in train mode; no weight decay. Defaults are
    those of the released example. `variant`: "full" differentiates through the steps, "first_order" takes every
    Jacobian of a step for the identity. `detach_first_buffer` is the release's behaviour with momentum, which
    published numbers contain: the first momentum buffer is a constant, so step 0 loses its Hessian term.
    """

    steps: int = 3
    lr: float = 0.5
    momentum: float = 0.9
    variant: str = "full"
    new_batches: bool = True
    detach_first_buffer: bool = False

    def __post_init__(self) -> None:
        if self.variant not in ("full", "first_order"):
            raise PaiBenchError(
                f"prospr:variant takes 'full' or 'first_order', not {self.variant!r}", "name one of the two"
            )
        if self.steps < 0:
            raise PaiBenchError(
                f"prospr:steps must be 0 or more, not {self.steps}", "write for instance prospr:steps=3"
            )

    def batches_needed(self) -> int:
        return self.steps + 1 if self.new_batches else 1

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.train()
        batches = problem.first_batches(self.batches_needed())
        if not self.new_batches:
            batches = batches * (self.steps + 1)
        full = self.variant == "full"
        start = problem.parameters()
        theta: dict[str, Tensor] = start
        buffers: dict[str, Tensor] = {}
        for step, (x, y) in enumerate(batches[:-1]):
            loss = problem.loss(problem.forward(x, theta), y)
            parts = torch.autograd.grad(loss, list(theta.values()), create_graph=full, materialize_grads=True)
            gradients = dict(zip(theta, parts, strict=True))
            if step == 0:
                # Without momentum there is no buffer, and the release keeps the graph.
                detach = self.detach_first_buffer and self.momentum != 0
                buffers = {name: g.detach() if detach else g for name, g in gradients.items()}
            else:
                buffers = {name: self.momentum * buffers[name] + g for name, g in gradients.items()}
            theta = {name: p - self.lr * buffers[name] for name, p in theta.items()}
            if not full:
                theta = {name: p.detach().requires_grad_() for name, p in theta.items()}
        x, y = batches[-1]
        loss = problem.loss(problem.forward(x, theta), y)
        names = list(problem.weights)
        leaves = start if full else theta
        meta = torch.autograd.grad(loss, [leaves[name] for name in names], materialize_grads=True)
        return {name: (problem.weights[name] * g).abs() for name, g in zip(names, meta, strict=True)}
