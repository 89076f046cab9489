"""What scoring costs, in units U of one forward and backward pass of the same batch in the same precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.pruning import keep_exactly
from tests.benchmarks.conftest import Compare

U = "U"


def problem(size: int, classes: int = 10, batches: int = 4) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    model = models.build("resnet20", 3, 32, classes)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    generator = torch.Generator().manual_seed(0)
    return model, [
        (torch.randn(size, 3, 32, 32, generator=generator), torch.arange(size) % classes) for _ in range(batches)
    ]


def forward_backward(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    twin, x = copy.deepcopy(model).double(), batch[0].double()
    nn.functional.cross_entropy(twin(x), batch[1]).backward()


# GraSP's 100 images; the others at the batch of 128 that their releases use.
CASES = [("snip", 128, 1), ("grasp", 100, 1), ("synflow", 128, 1), ("magnitude", 128, 1), ("random", 128, 1)]
CASES += [("erk", 128, 1), ("prospr", 128, 4)]


@pytest.mark.parametrize(("method", "size", "batches"), CASES)
def test_scoring(compare: Compare, measuring: bool, method: str, size: int, batches: int) -> None:
    model, data = problem(size if measuring else 10, batches=batches)
    masks = compare(
        lambda: pai_bench.prune(model, data, method=method, sparsity=0.98),
        lambda: forward_backward(model, data[0]),
        U,
        rounds=5,
    )
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.02 * 268_336)


def test_scoring_prospr_against_plain_unrolling(compare: Compare, measuring: bool) -> None:
    """The reference is the textbook loop: momentum SGD through the graph, all steps kept."""
    model, data = problem(64 if measuring else 4)

    def unrolled() -> None:
        twin = copy.deepcopy(model).double().train()
        start = {name: p.detach().requires_grad_() for name, p in twin.named_parameters()}
        theta, buffers = dict(start), {}
        for step, (x, y) in enumerate(data[:3]):
            loss = nn.functional.cross_entropy(torch.func.functional_call(twin, theta, (x.double(),)), y)
            grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            buffers = {n: g + (0.9 * buffers[n] if step else 0) for n, g in zip(theta, grads, strict=True)}
            theta = {n: p - 0.5 * buffers[n] for n, p in theta.items()}
        x, y = data[3]
        loss = nn.functional.cross_entropy(torch.func.functional_call(twin, theta, (x.double(),)), y)
        torch.autograd.grad(loss, list(start.values()))

    compare(lambda: pai_bench.score(model, data, method="prospr"), unrolled, "of plain unrolling", rounds=3)


def test_masking(compare: Compare, measuring: bool) -> None:
    """Exact top-k of VGG-16's 14.7 million scores, beside a plain sort."""
    count = 14_715_584 if measuring else 100_000
    scores = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alive = torch.ones_like(scores, dtype=torch.bool)
    kept = compare(lambda: keep_exactly(scores, alive, 0.02, count // 50), lambda: scores.sort(), "of a sort", rounds=5)
    assert int(kept.sum()) == count // 50
