"""Float64 convolutions as matrix products equal PyTorch's, and are chosen by one measurement of the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pai_bench import models
from pai_bench.cells import Cell
from pai_bench.experiment.run import Run
from pai_bench.experiment.runner import CellRunner
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring import product_convolutions
from pai_bench.scoring.product_convolutions import (
    SHAPES,
    ProductConvolutions,
    choice,
    faster,
    fastest_convolutions,
    gain,
    mechanism,
)
from pai_bench.scoring.registry import get
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from tests.unit import killing
from tests.unit.test_checkpoints import StopInTraining
from tests.unit.test_convolutions import Calls

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use products on every device and for any number of channels, one image at a time."""
    monkeypatch.setattr(product_convolutions, "faster", lambda device: True)
    monkeypatch.setattr(product_convolutions, "CHANNELS", 1)
    monkeypatch.setattr(product_convolutions, "UNFOLDED", 1)


CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((5, 3, 9, 8), (4, 3, 3, 3), {"padding": 1}),
    ((5, 3, 9, 8), (4, 3, 3, 3), {"padding": 1, "stride": 2}),
    ((4, 3, 7, 9), (2, 3, 1, 1), {"stride": 2}),
    ((3, 2, 12, 11), (4, 2, 3, 3), {"padding": "same", "dilation": 2}),
    ((2, 2, 12, 13), (4, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
]


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(("shape", "kernel", "options"), CASES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("unfolded", [1, 2**30])
def test_derivatives_of_any_order_are_those_of_pytorch(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    options: dict[str, Any],
    bias: bool,
    unfolded: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(product_convolutions, "UNFOLDED", unfolded)

    def derivatives(products: bool) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)
        sizes = (shape, kernel, kernel[:1])
        x, weight, shift = (torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in sizes)
        leaves = [x, weight, shift] if bias else [x, weight]
        with ProductConvolutions() if products else nullcontext():
            found = [torch.tanh(F.conv2d(*leaves, **options)).pow(2).sum()]
            values = found
            for _ in range(3):
                cotangents = [torch.randn(value.shape, generator=draw, dtype=torch.float64) for value in values]
                values = list(torch.autograd.grad(values, leaves, cotangents, create_graph=True))
                found += values
        return [value.detach() for value in found]

    for one, other in zip(derivatives(True), derivatives(False), strict=True):
        assert (one - other).norm() <= 1e-12 * max(1.0, other.norm())


@pytest.mark.usefixtures("everywhere")
def test_wide_float64_convolutions_of_images_are_replaced_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(run: Callable[[], Tensor]) -> bool:
        with Calls() as seen, ProductConvolutions():
            run()
        return not seen.calls

    x, weight = torch.ones(2, 4, 5, 5, dtype=torch.float64), torch.ones(4, 4, 3, 3, dtype=torch.float64)
    leaf = weight.clone().requires_grad_()
    assert replaced(lambda: F.conv2d(x, weight)) and replaced(lambda: F.conv2d(x[0], weight))
    assert replaced(lambda: torch.convolution(x, weight, None, [1], [0], [1], False, [0], 1))
    assert replaced(lambda: torch.autograd.grad(F.conv2d(x, leaf).sum(), leaf)[0])
    assert not replaced(lambda: F.conv2d(x.float(), weight.float()))
    assert not replaced(lambda: F.conv2d(x, weight[:, :2], groups=2))
    assert not replaced(lambda: F.conv_transpose2d(x, weight))
    assert not replaced(lambda: F.conv1d(x[0], x[0, :, :, :2]))
    assert not replaced(lambda: F.conv2d(x[:0], weight))
    monkeypatch.setattr(product_convolutions, "CHANNELS", 5)
    assert not replaced(lambda: F.conv2d(x, weight))


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    "wanted", [[True, True, True], [True, False, False], [False, True, False], [False, False, True]]
)
def test_only_requested_gradients_are_computed(wanted: list[bool]) -> None:
    x, weight = torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.randn(4, 2, 3, 3, dtype=torch.float64)
    grad = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    arguments = grad, x, weight, [4], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
    expected = torch.ops.aten.convolution_backward(*arguments)
    with ProductConvolutions():
        found = torch.ops.aten.convolution_backward(*arguments)
    for ours, theirs, asked in zip(found, expected, wanted, strict=True):
        assert (ours is not None) == asked
        if ours is not None:
            assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.usefixtures("everywhere")
def test_exact_zeros_stay_zeros() -> None:
    """Dead channels give scores of exactly zero, whose ties are broken by position."""
    x, weight = torch.randn(3, 4, 6, 6, dtype=torch.float64), torch.randn(4, 4, 3, 3, dtype=torch.float64)
    x[:, 1], weight[2] = 0, 0
    leaf = weight.requires_grad_()
    with ProductConvolutions():
        out = F.conv2d(x, leaf, padding=1)
        (slope,) = torch.autograd.grad(out.relu().sum(), leaf)
    assert not out[:, 2].any() and not slope[:, 1].any() and not slope[2].any() and slope[0, 0].all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is (deprecated|not supported)")  # PyTorch's own, in forward mode
@pytest.mark.usefixtures("everywhere")
def test_transforms_of_functions_work_inside() -> None:
    x, weight = torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.randn(4, 2, 3, 3, dtype=torch.float64)

    def value(w: Tensor) -> Tensor:
        return torch.tanh(F.conv2d(x, w)).sum()

    expected = torch.func.hessian(value)(weight)
    with ProductConvolutions():
        found = torch.func.hessian(value)(weight)
        _, slope = torch.func.jvp(value, (weight,), (torch.ones_like(weight),))
    assert (found - expected).abs().max() < 1e-12
    assert abs(slope - torch.func.grad(value)(weight).sum()) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "grasp", "prospr", "ntk-sap"])
def test_scores_are_the_same_up_to_rounding(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_convolutions, "CHANNELS", 8)
    model = models.build("conv8", 3, 8, 10)
    batches = [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(4)]

    def scores() -> tuple[Tensor, int]:
        with Calls() as seen, ProductConvolutions():
            found = Pruner(model, batches, get(method), name=method).score(0.9)
        return torch.cat([score.flatten() for score in found.values()]), sum(seen.calls.values())

    expected, calls = scores()
    monkeypatch.setattr(product_convolutions, "faster", lambda device: True)
    found, left = scores()
    assert left < calls
    assert (found - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize(("ratio", "chosen"), [(1.19, False), (1.21, True)])
def test_the_choice_is_made_by_one_measurement_of_the_device(
    ratio: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far enough from 1 that a repeated measurement does not change it."""
    measured: list[torch.device] = []
    monkeypatch.setattr(product_convolutions, "gain", lambda device: measured.append(device) or ratio)
    choice.cache_clear()
    try:
        assert faster(CUDA) == faster(CUDA) == chosen
        assert mechanism(CUDA) == ("matrix products" if chosen else "cuDNN")
        assert not faster(CPU) and mechanism(CPU) is None
        for device, dtype in ((CUDA, torch.float64), (CUDA, torch.float32), (CPU, torch.float64)):
            wanted = chosen and (device, dtype) == (CUDA, torch.float64)
            assert isinstance(fastest_convolutions(device, dtype), ProductConvolutions) == wanted
    finally:
        choice.cache_clear()
    assert measured == [CUDA]


def test_the_measurement_takes_the_shortest_of_alternating_times(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def seconds(device: torch.device, work: Callable[[], None]) -> float:
        with Calls() as seen:
            work()
        order.append("library" if seen.calls else "products")
        # The first rounds and single slow ones do not count.
        slow = len(order) <= 4 or len(order) in (7, 8)
        return (0.3 if order[-1] == "library" else 0.2) * (10 if slow else 1)

    monkeypatch.setattr(product_convolutions, "_seconds", seconds)
    assert gain(CPU, [(2, 4)], images=2) == pytest.approx(1.5)
    assert order == ["library", "products"] * 7
    assert all(channels >= product_convolutions.CHANNELS for channels, _ in SHAPES)
    monkeypatch.undo()
    assert gain(CPU, [(2, 4)], images=2, rounds=1) > 0


@pytest.mark.slow
def test_the_mechanism_is_recorded_where_scoring_is_in_float64_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pai_bench.experiment.run.mechanism", lambda device: "cuDNN" if device == CUDA else None)
    run = Run(Cell("snip", "digits", "conv8", 0.9, 0), killing.recipe(epochs=1))
    narrow = dataclasses.replace(
        run, recipe=dataclasses.replace(run.recipe, scoring=dataclasses.replace(run.recipe.scoring, dtype="float32"))
    )
    dense = dataclasses.replace(run, cell=Cell("dense", "digits", "conv8", 0.0, 0))
    assert run.float64_convolutions(CUDA) == "cuDNN" and run.float64_convolutions(CPU) is None
    assert narrow.float64_convolutions(CUDA) is dense.float64_convolutions(CUDA) is None
    runner = CellRunner(device="cpu")
    assert "float64_convolutions" not in runner.run(run).result.provenance
    # A cell that resumes in another process records what has scored it.
    monkeypatch.setattr("pai_bench.experiment.run.mechanism", lambda device: "matrix products")
    checkpoints = Checkpoints(tmp_path, "1")
    with pytest.raises(Interrupted):
        CellRunner(device="cpu").run(run, StopInTraining(checkpoints, 2), checkpoints)
    monkeypatch.setattr("pai_bench.experiment.run.mechanism", lambda device: "cuDNN")
    again = CellRunner(device="cpu").run(run, None, Checkpoints(tmp_path, "2"))
    assert again.result.provenance["float64_convolutions"] == "matrix products"
