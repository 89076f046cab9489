"""Cost of scoring, in units U of one forward and backward pass of the same batch in float32."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import pai_bench
from pai_bench import models
from pai_bench.pruning.selection import keep_exactly
from tests.benchmarks import peak
from tests.benchmarks.conftest import Compare, Fact
from tests.benchmarks.counting import count
from tests.unrolling import unrolled_prospr


def problem(
    size: int, batches: int, device: torch.device, name: str = "resnet20"
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    model = models.build(name, 3, 32, 10)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(size, 3, 32, 32, generator=generator).to(device) for _ in range(batches)]
    return model.to(device), [(x, (torch.arange(size) % 10).to(device)) for x in draws]


def one_pass(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    model.zero_grad()
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()


# GraSP's 100 images; the others at the batch of 128 that their releases use. The last number is the target.
CASES = [("snip", 128, 1, 1.1), ("grasp", 100, 1, 3.8), ("synflow", 128, 1, 3.0), ("prospr:momentum=0", 128, 4, 14.0)]
CASES += [("prospr", 128, 4, None), ("magnitude", 128, 1, None), ("random", 128, 1, None), ("erk", 128, 1, None)]


@pytest.mark.parametrize(("method", "size", "batches", "target"), CASES, ids=[case[0] for case in CASES])
def test_scoring(
    compare: Compare, measuring: bool, device: torch.device, method: str, size: int, batches: int, target: float | None
) -> None:
    model, data = problem(size if measuring else 10, batches, device)
    name, _, momentum = method.partition(":momentum=")
    options = {"momentum": float(momentum)} if momentum else {}
    masks = compare(
        lambda: pai_bench.prune(model, data, name, sparsity=0.98, dtype="float32", **options),
        lambda: one_pass(model, data[0]),
        "U",
        rounds=5,
        most=target,
    )
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.02 * 268_336)


@pytest.mark.parametrize(("method", "batches"), [("snip", 1), ("prospr", 4)])
def test_scoring_in_float64(compare: Compare, measuring: bool, device: torch.device, method: str, batches: int) -> None:
    """Time the default dtype of sweeps, in units of the float32 pass."""
    model, data = problem(128 if measuring else 10, batches, device)
    compare(lambda: pai_bench.score(model, data, method), lambda: one_pass(model, data[0]), "U", rounds=5)


def test_the_floor_of_a_pass(benchmark: BenchmarkFixture, fact: Fact, measuring: bool, device: torch.device) -> None:
    model, data = problem(128 if measuring else 10, 1, device)
    benchmark.pedantic(lambda: one_pass(model, data[0]), rounds=5 if measuring else 1)
    operators, moved, flops = count(lambda: one_pass(model, data[0]))
    fact("one U, ResNet-20, batch 128", f"{flops / 1e9:.1f} GFLOP, {moved / 1e9:.2f} GB, {operators} operators")
    if measuring:
        seconds = benchmark.stats.stats.median  # type: ignore[union-attr]
        fact("reached in one U", f"{flops / seconds / 1e9:.0f} GFLOP/s, {moved / seconds / 1e9:.1f} GB/s")


UNROLLED = [("resnet20", 64, 0.0), ("resnet20", 64, 0.9), ("resnet20", 4, 0.0), ("vgg16-bn", 32, 0.0)]
UNROLLED += [("resnet18", 16, 0.0), ("conv8", 32, 0.0), ("lenet-300-100", 32, 0.0)]


@pytest.mark.parametrize(("name", "size", "momentum"), UNROLLED)
def test_prospr_against_plain_unrolling(
    compare: Compare, measuring: bool, device: torch.device, name: str, size: int, momentum: float
) -> None:
    """The last two take milliseconds, and are therefore repeated."""
    model, data = problem(size if measuring else 2, 4, device, name)
    times = 10 if measuring and name in ("conv8", "lenet-300-100") else 1

    def ours() -> None:
        for _ in range(times):
            pai_bench.score(model, data, "prospr", dtype="float32", lr=0.1, momentum=momentum)

    def theirs() -> None:
        for _ in range(times):
            unrolled_prospr(model, data, lr=0.1, momentum=momentum, dtype=torch.float32)

    compare(ours, theirs, "of plain unrolling", rounds=3, most=1.3)


PEAKS = [("ours", "resnet20", 128, 1, 0.0), ("ours", "resnet20", 128, 3, 0.0), ("ours", "resnet20", 128, 8, 0.0)]
PEAKS += [("unrolled", "resnet20", 128, 3, 0.0), ("pass", "resnet20", 128, 0, 0.0)]
PEAKS += [(what, "resnet20", 128, 3, 0.9) for what in ("ours", "unrolled")]
PEAKS += [(what, "vgg16-bn", 64, 3, 0.0) for what in ("ours", "unrolled")]
PEAKS += [(what, "resnet18", 32, 3, 0.0) for what in ("ours", "unrolled")]
PEAKS += [("sweep", "resnet20", 128, steps, 0.0) for steps in (1, 3, 8)]


def test_peaks_of_prospr(benchmark: BenchmarkFixture, fact: Fact, measuring: bool) -> None:
    """In megabytes, each alone in a process on the CPU."""
    if not measuring:
        benchmark.pedantic(lambda: peak.main("ours", "resnet20", 2, 1, 0.0), rounds=1)
        return
    found = dict(zip(PEAKS, benchmark.pedantic(lambda: [peak.in_a_process(*c) for c in PEAKS], rounds=1), strict=True))
    for case, size in found.items():
        theirs = found.get(("unrolled", *case[1:])) if case[0] == "ours" else None
        ratio = f", {size / theirs:.3f} of plain unrolling" if theirs else ""
        fact(" ".join(f"{part}" for part in ("peak", *case)), f"{size / 1e6:.0f} MB{ratio}")
    fact("peak at 8 steps by that at 1", f"{found[PEAKS[2]] / found[PEAKS[0]]:.3f}")


def test_peaks_of_methods(benchmark: BenchmarkFixture, fact: Fact, measuring: bool) -> None:
    """Peaks of all other scorers, in megabytes and in passes of the same batch, each in its own process on the CPU."""
    if not measuring:
        benchmark.pedantic(lambda: [peak.main(what, "resnet20", 2) for what, _ in peak.CASES], rounds=1)
        return
    peaks = benchmark.pedantic(lambda: [peak.in_a_process(w, "resnet20", size) for w, size in peak.CASES], rounds=1)
    found = dict(zip(peak.CASES, peaks, strict=True))
    for (what, size), taken in found.items():
        fact(f"peak {what} resnet20 {size}", f"{taken / 1e6:.0f} MB, {taken / found['pass', size]:.2f} of a pass")


@pytest.mark.parametrize("order", ["random", "falling", "rising"])
def test_masking(compare: Compare, measuring: bool, order: str) -> None:
    """Exact top-k of VGG-16's 14.7 million scores, beside a plain sort of random ones."""
    n = 14_715_584 if measuring else 100_000
    drawn = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = drawn if order == "random" else drawn.sort(descending=order == "falling").values
    alive = torch.ones_like(scores, dtype=torch.bool)
    kept = compare(lambda: keep_exactly(scores, alive, 0.02, n // 50), drawn.sort, "of a sort", rounds=5)
    assert int(kept.sum()) == n // 50
