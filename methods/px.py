"""PX: path exclusion, by an upper bound of the neural tangent kernel's trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pai_bench.convolutions import InParts
from pai_bench.registry import register
from pai_bench.replacing import Replacing
from pai_bench.scoring import Problem

RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


@register("px")
@dataclass(frozen=True)
class PX:
    """w^2 dR/d(w^2), R = sum over x of <h(x^2), g(1)>: what each weight adds to the paths from input to output.

    Iurada et al. 2024 (CVPR, arXiv 2406.01820): h is the network with all weights 1 and the gates that its ReLUs have
    at x, g the one with squared weights, open gates and an input of ones. As in the paper, all layers are squared; in
    h and g biases are 0, norms identities, and poolings choose anew. It differs from all three states of the released
    code, whose last one scores convolutions by rounding noise.
    """

    rounds: int = 100

    costly: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        plain = neutral(problem.model)
        ones = {name: mask.double() for name, mask in problem.masks.items()}
        reached: list[Tensor] = []
        for x, _ in problem.batches():
            gates: list[Tensor] = []
            with torch.no_grad(), InParts():
                with relus(lambda u, gates=gates: u * noted(gates, u)):  # type: ignore[misc]
                    problem.forward(x)
                with relus(lambda u, gates=gates: u * gates.pop(0)):  # type: ignore[misc]
                    reached.append(problem.forward(x.double().square(), {**plain, **ones}).sum(0))
        h = torch.stack(reached).sum(0)
        squares = {name: w.double().square().requires_grad_() for name, w in problem.weights.items()}
        with relus(lambda u: u):
            g = problem.forward(torch.ones_like(x[:1]).double(), {**plain, **squares})
        # With all weights 1 h is astronomic (hence float64); the scale of R does not matter.
        flow = (g * (h / h.max().clamp_min(1e-300))).sum()
        gradients = torch.autograd.grad(flow, list(squares.values()), materialize_grads=True)
        return {name: w.detach() * d for (name, w), d in zip(squares.items(), gradients, strict=True)}


def neutral(model: nn.Module) -> dict[str, Tensor]:
    """The state in float64, with biases of zero and BatchNorms that are identities."""
    state = {name: v.double() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    norms = {name for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    for name, value in state.items():
        home, _, key = name.rpartition(".")
        if key == "bias" or home in norms:
            state[name] = torch.full_like(value, key in ("weight", "running_var"))
    return state


def noted(gates: list[Tensor], u: Tensor) -> Tensor:
    """Where a ReLU is open, added to `gates`."""
    gates.append(u > 0)
    return gates[-1]


def relus(function: Callable[[Tensor], Tensor]) -> Replacing:
    """Puts `function` in the place of every ReLU that a model computes, however it calls it."""

    def instead(input: Tensor, inplace: bool = False) -> Tensor:
        return function(input)

    return Replacing(dict.fromkeys(RELUS, instead))
