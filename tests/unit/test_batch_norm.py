"""The lean second derivatives of BatchNorm are those of PyTorch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pai_bench.batch_norm import LeanBatchNorm


def normalised(
    lean: bool, shape: tuple[int, ...], affine: bool = True, training: bool = True, mean: float = 3.0
) -> list[Tensor]:
    """A function of a BatchNorm's output, its first and second derivatives, and the running statistics after it."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw, dtype=torch.float64).mul_(2).add_(mean).requires_grad_()
    weight, bias = (torch.randn(shape[1], generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2))
    running = torch.zeros(shape[1], dtype=torch.float64), torch.ones(shape[1], dtype=torch.float64)
    leaves = [x, weight, bias] if affine else [x]
    factors = torch.randn(shape, generator=draw, dtype=torch.float64)
    with LeanBatchNorm() if lean else nullcontext():
        y = F.batch_norm(x, *running, *leaves[1:], training=training)
        loss = (torch.tanh(y) * factors).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    cotangents = [torch.randn(leaf.shape, generator=draw, dtype=torch.float64) for leaf in leaves]
    return [loss, *first, *torch.autograd.grad(first, leaves, cotangents), *running]


@pytest.mark.parametrize("shape", [(8, 3, 5, 5), (16, 7), (4, 3, 6), (3, 2, 3, 4, 5), (2, 1, 1, 1)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_derivatives_are_pytorchs(shape: tuple[int, ...], affine: bool, training: bool) -> None:
    ours, theirs = (normalised(lean, shape, affine, training) for lean in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-12 * max(1.0, other.detach().norm())


def test_a_mean_that_is_far_from_zero_costs_digits_and_no_more() -> None:
    ours, theirs = (normalised(lean, (8, 3, 5, 5), mean=1e4) for lean in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-9 * other.norm()


def test_one_value_a_channel_is_an_error_as_ever() -> None:
    with LeanBatchNorm(), pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(torch.zeros(1, 3), None, None, training=True)


class LargeTensors(TorchDispatchMode):
    """Counts new tensors of a size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.made = size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func._schema.is_mutable:
            self.made += sum(isinstance(t, Tensor) and t.numel() == self.size for t in tree_leaves(result))
        return result


def test_the_second_derivative_makes_two_tensors_of_the_size_of_the_input() -> None:
    def made(lean: bool) -> int:
        x, v = (torch.randn(8, 3, 5, 5, requires_grad=True) for _ in range(2))
        weight = torch.ones(3, requires_grad=True)
        with LeanBatchNorm() if lean else nullcontext():
            y = F.batch_norm(x, None, None, weight, training=True)
        first = torch.autograd.grad(y, (x, weight), v, create_graph=True)
        with LargeTensors(x.numel()) as large:
            torch.autograd.grad(first, (x, weight, v), (v.detach(), weight.detach()))
        return large.made

    assert made(lean=True) == 2 < 20 < made(lean=False)
