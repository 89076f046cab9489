"""Convolutions of a few images at a time equal those of PyTorch, and so do their derivatives."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pai_bench import models
from pai_bench.core.dispatch import DispatchMode
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring import convolutions
from pai_bench.scoring.convolutions import ChunkedConvolutions, at_a_time, convolve, convolve_backward
from pai_bench.scoring.double_backward import LeanDoubleBackward
from pai_bench.scoring.registry import get
from tests.unit.test_double_backward import CONVOLUTIONS


class Calls(DispatchMode):
    """Counts convolutions and the most images that one had."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name.startswith("aten::convolution"):
            self.calls[name] += 1
            self.most = max(self.most, len(args[0]))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "UNFOLDED", 1)


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize(("function", "shape", "kernel", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lean", [True, False])
def test_derivatives_equal_pytorchs(
    function: Any, shape: tuple[int, ...], kernel: tuple[int, ...], options: Any, bias: bool, lean: bool
) -> None:
    """Up to the second; with the lean ones inside, those do their own convolutions in parts."""
    shape = (5, *shape[1:]) if len(shape) == len(kernel) else shape

    def derivatives(parts: bool) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)
        x, weight, shift = (
            torch.randn(size, generator=draw, dtype=torch.float64).requires_grad_()
            for size in (shape, kernel, kernel[:1])
        )
        leaves = [x, weight, shift] if bias else [x, weight]
        with (
            ChunkedConvolutions() if parts else nullcontext(),
            LeanDoubleBackward() if lean and parts else nullcontext(),
        ):
            loss = torch.tanh(function(*leaves, **options)).pow(2).sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        cotangents = [torch.randn(leaf.shape, generator=draw, dtype=torch.float64) for leaf in leaves]
        return [loss, *first, *torch.autograd.grad(first, leaves, cotangents)]

    for one, other in zip(derivatives(True), derivatives(False), strict=True):
        assert (one - other).norm() <= 1e-12 * max(1.0, other.detach().norm())


@pytest.mark.usefixtures("one_at_a_time")
def test_only_convolutions_that_torch_unfolds_are_computed_in_parts() -> None:
    x, weight = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    assert at_a_time(x, weight, 1) == 1
    assert at_a_time(x.float(), weight.float(), 1) == 6
    assert at_a_time(x.to("meta"), weight, 1) == 6
    assert at_a_time(x, weight[:, :, :1, :1], 1) == 6
    with Calls() as seen, ChunkedConvolutions():
        F.conv2d(input=x, weight=weight, padding=1)
    assert seen.calls["aten::convolution"] == 6 and seen.most == 1
    with Calls() as seen, ChunkedConvolutions():
        F.conv2d(x[0], weight)
        F.conv2d(x.float(), weight.float())
    assert seen.calls["aten::convolution"] == 2


def test_parts_are_as_large_as_fits() -> None:
    """Unfolded, an image of ResNet-20's first layers is 16 x 9 x 32 x 32 numbers of eight bytes."""
    x, weight = torch.empty(128, 16, 32, 32, dtype=torch.float64), torch.empty(16, 16, 3, 3, dtype=torch.float64)
    assert at_a_time(x, weight, 1) == convolutions.UNFOLDED // (16 * 9 * 32 * 32 * 8)
    assert at_a_time(x, weight, (2, 2)) == convolutions.UNFOLDED // (16 * 9 * 16 * 16 * 8)


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize(
    "wanted", [[True, True, True], [True, False, False], [False, True, False], [False, False, True]]
)
def test_only_requested_gradients_are_computed(wanted: list[bool]) -> None:
    x, weight = torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.randn(4, 2, 3, 3, dtype=torch.float64)
    options = [1, 1], [1, 1], [1, 1], False, [0, 0], 1
    grad = torch.randn_like(convolve(x, weight, None, *options))
    found = convolve_backward(grad, x, weight, [4], options, wanted)
    expected = torch.ops.aten.convolution_backward(grad, x, weight, [4], *options, wanted)
    for ours, theirs, asked in zip(found, expected, wanted, strict=True):
        assert (ours is not None) == asked
        if ours is not None:
            assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is (deprecated|not supported)")  # PyTorch's own, in forward mode
@pytest.mark.usefixtures("one_at_a_time")
def test_function_transforms_work_inside() -> None:
    x, weight = torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.randn(4, 2, 3, 3, dtype=torch.float64)

    def value(w: Tensor) -> Tensor:
        return torch.tanh(F.conv2d(x, w)).sum()

    expected = torch.func.hessian(value)(weight)
    with ChunkedConvolutions():
        found = torch.func.hessian(value)(weight)
        _, slope = torch.func.jvp(value, (weight,), (torch.ones_like(weight),))
    assert (found - expected).abs().max() < 1e-12
    assert abs(slope - torch.func.grad(value)(weight).sum()) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "grasp", "prospr", "ntk-sap", "px"])
def test_scoring_uses_parts_and_gives_the_same_scores(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build("resnet20", 3, 8, 10)
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4) for _ in range(4)]

    def scores(unfolded: int) -> tuple[Tensor, int]:
        monkeypatch.setattr(convolutions, "UNFOLDED", unfolded)
        with Calls() as seen:
            found = Pruner(model, batches, get(method), name=method).score(0.9)
        return torch.cat([score.flatten() for score in found.values()]), seen.most

    (whole, most), (parts, fewest) = scores(2**40), scores(1)
    assert (whole - parts).norm() < 1e-9 * whole.norm()
    assert most == 8 and fewest < 8


@pytest.mark.slow
def test_float32_convolutions_are_not_divided() -> None:
    model = models.build("resnet20", 3, 8, 10)
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)]
    with Calls() as seen:
        Pruner(model, batches, get("snip"), name="snip", dtype="float32").score(0.9)
    assert seen.most == 8
