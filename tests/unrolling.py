"""ProsPr as the textbook has it: momentum SGD through the graph, all steps of it kept."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


def unrolled_prospr(
    model: nn.Module,
    batches: list[Batch],
    *,
    lr: float = 0.5,
    momentum: float = 0.9,
    detach_first_buffer: bool = False,
    first_order: bool = False,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """|w dL/dw| of all parameters through one inner step per batch but the last, which is the meta-loss's."""
    twin = copy.deepcopy(model).to(dtype).train()
    data = [(x.to(dtype), y) for x, y in batches]
    start = {name: p.detach().clone().requires_grad_() for name, p in twin.named_parameters()}
    theta, buffers = dict(start), {}
    for step, (x, y) in enumerate(data[:-1]):
        loss = F.cross_entropy(torch.func.functional_call(twin, theta, (x,)), y)
        grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True, materialize_grads=True)
        if first_order or (step == 0 and detach_first_buffer and momentum != 0):
            grads = [g.detach() for g in grads]
        buffers = {n: g + (momentum * buffers[n] if step else 0) for n, g in zip(theta, grads, strict=True)}
        theta = {n: p - lr * buffers[n] for n, p in theta.items()}
    x, y = data[-1]
    loss = F.cross_entropy(torch.func.functional_call(twin, theta, (x,)), y)
    meta = torch.autograd.grad(loss, list(start.values()), materialize_grads=True)
    return {n: (p * g).abs().detach() for (n, p), g in zip(start.items(), meta, strict=True)}
