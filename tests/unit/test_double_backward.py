"""The memory-saving second derivatives equal those of PyTorch."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves

import pai_bench
from pai_bench import models
from pai_bench.core.dispatch import DispatchMode
from pai_bench.scoring import double_backward
from pai_bench.scoring.derivatives import gradient, hessian_product
from pai_bench.scoring.double_backward import LeanDoubleBackward


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
    with LeanDoubleBackward() if lean else nullcontext():
        y = F.batch_norm(x, *running, *leaves[1:], training=training)
        loss = (torch.tanh(y) * factors).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    cotangents = [torch.randn(leaf.shape, generator=draw, dtype=torch.float64) for leaf in leaves]
    return [loss, *first, *torch.autograd.grad(first, leaves, cotangents), *running]


@pytest.mark.parametrize("shape", [(8, 3, 5, 5), (16, 7), (4, 3, 6), (3, 2, 3, 4, 5), (2, 1, 1, 1)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_derivatives_equal_pytorchs(shape: tuple[int, ...], affine: bool, training: bool) -> None:
    ours, theirs = (normalised(lean, shape, affine, training) for lean in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-12 * max(1.0, other.detach().norm())


@pytest.mark.parametrize("p", [2.0, 1.0])
@pytest.mark.parametrize("dim", [-1, 1, (1, 2)])
def test_second_derivatives_of_normalised_vectors_are_finite_at_zeros(p: float, dim: int | tuple[int, ...]) -> None:
    x = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[1] = 0
    whole = [0, 2, 3]

    def derivatives(lean: bool, x: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_()
        with LeanDoubleBackward() if lean else nullcontext():
            y = F.normalize(x, p=p, dim=dim)
        (first,) = torch.autograd.grad(torch.tanh(y).square().sum(), x, create_graph=True)
        return [y, first, *torch.autograd.grad(first.square().sum(), x)]

    ours, theirs = derivatives(True, x), derivatives(False, x[whole])
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one[whole], other) and torch.isfinite(one).all()
    assert not ours[0][1].any()


@pytest.mark.slow
def test_attention_with_padded_tokens_has_finite_scores() -> None:
    """Queries and keys are normalised, and windows are padded with zeros, as in Swin v2."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qk, self.head = nn.Linear(6, 8, bias=False), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.pad(x, (0, 0, 0, 2))
            q, k = self.qk(x).chunk(2, dim=-1)
            weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(1, 2)).softmax(-1)
            return self.head((weights @ x).mean(1))

    torch.manual_seed(0)
    batch = torch.randn(3, 4, 6), torch.arange(3)
    for method in ("grasp", "prospr"):
        scores = pai_bench.score(Attention(), [batch] * 4, method)
        assert all(torch.isfinite(score).all() and score.any() for score in scores.values())


CONVOLUTIONS = [
    (F.conv2d, (2, 4, 7, 6), (6, 4, 3, 3), {}),
    (F.conv2d, (2, 4, 7, 6), (6, 4, 3, 3), {"stride": 2, "padding": 1}),
    (F.conv2d, (2, 4, 7, 6), (6, 4, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    (F.conv2d, (2, 4, 7, 6), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    (F.conv2d, (2, 4, 7, 6), (4, 1, 3, 3), {"groups": 4}),
    (F.conv2d, (2, 4, 7, 6), (6, 4, 3, 3), {"padding": "same"}),
    (F.conv2d, (4, 7, 6), (6, 4, 3, 3), {}),
    (F.conv1d, (2, 4, 9), (6, 4, 3), {"stride": 2}),
    (F.conv3d, (2, 2, 4, 5, 4), (3, 2, 2, 3, 2), {"padding": 1}),
]


@pytest.mark.parametrize(("function", "shape", "kernel", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("of_input", [True, False])
def test_derivatives_of_convolutions_and_relu_equal_pytorchs(
    function: Any, shape: tuple[int, ...], kernel: tuple[int, ...], options: Any, bias: bool, of_input: bool
) -> None:
    """Without `of_input` it is the first layer, whose input has no derivative."""

    def derivatives(lean: bool) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_(of_input)
        weight = torch.randn(kernel, generator=draw, dtype=torch.float64).requires_grad_()
        shift = torch.randn(kernel[0], generator=draw, dtype=torch.float64).requires_grad_() if bias else None
        leaves = [t for t in (x, weight, shift) if t is not None and t.requires_grad]
        with LeanDoubleBackward() if lean else nullcontext():
            y = torch.relu(function(x, weight, shift, **options))
            y = F.relu(F.relu(y - 0.5, inplace=True).relu() - 0.1)
            loss = (y * y.detach().cos()).pow(3).sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        cotangents = [torch.randn(leaf.shape, generator=draw, dtype=torch.float64) for leaf in leaves]
        return [loss, *first, *torch.autograd.grad(first, leaves, cotangents)]

    ours, theirs = derivatives(lean=True), derivatives(lean=False)
    assert all(other.norm() > 0 for other in theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "vgg16-bn", "mobilenetv2", "lenet-300-100"])
def test_hessian_products_of_the_papers_networks_equal_pytorchs(name: str) -> None:
    model = models.build(name, 3, 32, 10).double()
    x, y = torch.randn(6, 3, 32, 32, dtype=torch.float64), torch.arange(6)
    leaves = list(model.parameters())
    v = [torch.randn_like(leaf) for leaf in leaves]
    ours = hessian_product(gradient(lambda: F.cross_entropy(model(x), y), leaves, graph=True), v, leaves)
    plain = torch.autograd.grad(F.cross_entropy(model(x), y), leaves, create_graph=True)
    theirs = torch.autograd.grad(plain, leaves, v)
    whole = torch.stack([one.norm() for one in theirs]).norm()  # that of a bias before a norm is zero
    assert all((one - other).norm() <= 1e-12 * whole for one, other in zip(ours, theirs, strict=True))


def test_a_mean_far_from_zero_costs_only_digits() -> None:
    ours, theirs = (normalised(lean, (8, 3, 5, 5), mean=1e4) for lean in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-9 * other.norm()


def test_one_value_per_channel_is_an_error() -> None:
    with LeanDoubleBackward(), pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(torch.zeros(1, 3), None, None, training=True)


def composed_hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(x + 3, inplace) / 6


def composed_hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    return x * F.relu6(x + 3, inplace) / 6


def celu(x: Tensor, inplace: bool = False) -> Tensor:
    return F.celu(x, 0.7, inplace)


def composed_celu(x: Tensor, inplace: bool = False) -> Tensor:
    return torch.where(x > 0, x, 0.7 * torch.expm1(x.clamp(max=0) / 0.7))


ACTIVATIONS = [(F.hardsigmoid, composed_hardsigmoid), (F.hardswish, composed_hardswish), (celu, composed_celu)]


@pytest.mark.parametrize(("function", "composed"), ACTIVATIONS)
@pytest.mark.parametrize("graph", [False, True])
def test_gradients_behind_activations_are_exact(function: Any, composed: Any, graph: bool) -> None:
    """In float64 PyTorch's own have errors of 1e-8 for hardsigmoid and CELU."""
    x = torch.linspace(-7, 7, 80, dtype=torch.float64).requires_grad_()
    (wanted,) = torch.autograd.grad(composed(x).sin().sum(), x)
    (found,) = gradient(lambda: function(x).sin().sum(), [x], graph=graph)
    assert (found - wanted).norm() <= 1e-14 * wanted.norm()


@pytest.mark.parametrize(("function", "composed"), ACTIVATIONS[:2])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_activations_of_mobilenet_v3_have_exact_second_derivatives(
    function: Any, composed: Any, inplace: bool, dtype: torch.dtype
) -> None:
    def derivatives(function: Any) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(4, 50, generator=draw, dtype=torch.float64).mul_(3).to(dtype).requires_grad_()
        with LeanDoubleBackward():
            y = function(x * 1.5, inplace=inplace)
        first = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        return [y, *first, *torch.autograd.grad(first[0].sin().sum(), x)]

    for ours, theirs in zip(derivatives(function), derivatives(composed), strict=True):
        assert theirs.count_nonzero() > 50
        assert (ours - theirs).norm() <= (1e-14 if dtype == torch.float64 else 1e-6) * theirs.norm()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


class OnceOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


class Bags(nn.Module):
    """Rows of a weight that torch adds up in one call, in the forward of a network of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding_bag((x.abs() * 9).long().clamp(0, 9), self.table.weight, mode="mean")


@pytest.mark.parametrize("method", ["grasp", "prospr"])
@pytest.mark.parametrize(
    ("layer", "words"),
    [(OnceOnly, "custom autograd function, in layer 1.0 (OnceOnly)"), (Bags, "embedding_bag, in layer 1.0 (Bags)")],
)
def test_an_operation_without_a_second_derivative_is_refused_by_name(
    method: str, layer: type[nn.Module], words: str
) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(layer(), nn.Linear(6, 4)), nn.ReLU())
    data = [(torch.randn(3, 6), torch.tensor([0, 1, 2]))] * 4
    with pytest.raises(pai_bench.PaiBenchError, match=re.escape(words)):
        pai_bench.prune(model, data, method)
    pai_bench.prune(model, data, "snip")


class LargeTensors(DispatchMode):
    """Counts new tensors of a size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.made = size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func._schema.is_mutable:
            self.made += sum(isinstance(t, Tensor) and t.numel() == self.size for t in tree_leaves(result))
        return result


def test_the_second_derivative_allocates_two_tensors_of_the_input_size() -> None:
    def made(lean: bool) -> int:
        x, v = (torch.randn(8, 3, 5, 5, requires_grad=True) for _ in range(2))
        weight = torch.ones(3, requires_grad=True)
        with LeanDoubleBackward() if lean else nullcontext():
            y = F.batch_norm(x, None, None, weight, training=True)
        first = torch.autograd.grad(y, (x, weight), v, create_graph=True)
        with LargeTensors(x.numel()) as large:
            torch.autograd.grad(first, (x, weight, v), (v.detach(), weight.detach()))
        return large.made

    assert made(lean=True) == 2 < 20 < made(lean=False)


def test_sums_of_batchnorm_have_the_dtype_of_the_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, PyTorch reads the dtype of the weight for the derivative by the weight; on a CPU it does not."""
    plain, calls = double_backward._native, []

    def strict(a: Tensor, x: Tensor, weight: Tensor | None, *rest: Any) -> Any:
        calls.append(weight is not None or not any(rest[-1][1:]))
        return plain(a, x, weight, *rest)

    monkeypatch.setattr(double_backward, "_native", strict)
    for affine in (True, False):
        normalised(True, (8, 3, 5, 5), affine)
    assert calls and all(calls)
