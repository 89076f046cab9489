"""PX: path exclusion, by an upper bound of the neural tangent kernel's trace."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pai_bench.scoring import (
    IDENTITY_NORMS,
    ChunkedConvolutions,
    Facts,
    FunctionOverrides,
    Problem,
    Relus,
    check_relu_network,
    noting,
    real_inputs,
    register,
)


@register(
    "px",
    Facts(
        "Iurada et al. 2024", "kernel", "inputs", "rounds * (2 * batches + 3 / batch_size) + 1 / batch_size", "formula"
    ),
)
@dataclass(frozen=True)
class PX:
    """w^2 dR/d(w^2), R = sum over x of <h(x^2), g(1)>: what each weight adds to the paths from input to output.

    Iurada et al. 2024 (CVPR, arXiv 2406.01820): h is the network with all weights 1 and the gates that its ReLUs have
    at x, g the one with squared weights, open gates and an input of ones. As in the paper, all layers are squared; in
    h and g biases are 0, norms identities, and poolings choose again. It differs from all three states of the released
    code, whose last one scores convolutions by rounding noise.

    Raises: PaiBenchError for an activation that is not a ReLU, also one composed of other operations, and for a
        difference or a change of sign of signals.
    """

    rounds: int = 100

    version: ClassVar[int] = 2  # norms are identities to the last bit, and all of torch's are
    plugin_version: ClassVar[int] = 2  # ReLUs by what they compute; masks of the built-in models are as they were
    costly: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "rescaling", "sample-order")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        plain = neutral(problem.model)
        ones = {name: mask.double() for name, mask in problem.masks.items()}
        reached: list[Tensor] = []
        for number, x in enumerate(real_inputs("px", problem)):
            if number == 0:
                with Relus(problem.model, lambda u, _: u), FunctionOverrides(IDENTITY_NORMS):
                    check_relu_network(problem.trace(x[:1]), problem.model)
            # A list is sufficient, because both passes call the ReLUs in the same order.
            gates: list[Tensor] = []
            with torch.no_grad(), ChunkedConvolutions():
                with Relus(problem.model, noting(gates)):
                    problem.forward(x)
                replay = Relus(problem.model, lambda u, _, gates=gates: u * gates.pop(0))  # type: ignore[misc]
                with replay, FunctionOverrides(IDENTITY_NORMS):
                    reached.append(problem.forward(x.double().square(), {**plain, **ones}).sum(0))
        h = torch.stack(reached).sum(0)
        squares = {name: w.double().square().requires_grad_() for name, w in problem.weights.items()}
        with Relus(problem.model, lambda u, _: u), FunctionOverrides(IDENTITY_NORMS):
            g = problem.forward(torch.ones_like(x[:1]).double(), {**plain, **squares})
        # With all weights 1 h is astronomic (hence float64); the scale of R does not matter.
        flow = (g * (h / h.max().clamp_min(1e-300))).sum()
        gradients = torch.autograd.grad(flow, list(squares.values()), materialize_grads=True)
        return {name: w.detach() * d for (name, w), d in zip(squares.items(), gradients, strict=True)}


def neutral(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers in float64, with biases of zero."""
    state: dict[str, Tensor] = {}
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        value = value.detach().double() if value.is_floating_point() else value
        state[name] = torch.zeros_like(value) if "bias" in name.rpartition(".")[2] else value
    return state
