"""What only a GPU can show; collected with --device cuda."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import pai_bench
from pai_bench import models, recipes
from pai_bench.datasets import Augment, Batcher, Dataset
from pai_bench.measures import measured
from pai_bench.steps import Step, make_step
from pai_bench.training import Trained, training
from pai_bench.turns import Pack
from tests.benchmarks.conftest import Compare, Fact
from tests.benchmarks.counting import count
from tests.benchmarks.test_scoring import problem
from tests.benchmarks.test_training import MEAN, STD, images


def step(device: torch.device, batch: int, **options: object) -> tuple[Step, torch.Tensor, torch.Tensor]:
    model, [(x, y)] = problem(batch, 1, device)
    settings = recipes.load("quick", "digits", "resnet20").train
    made = make_step(model, {}, dataclasses.replace(settings, **options))  # type: ignore[arg-type]
    for _ in range(10):
        made(x, y, 0.1)
    return made, x, y


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graph_step(compare: Compare, fact: Fact, measuring: bool, device: torch.device, precision: str) -> None:
    """Twenty steps, against twenty that are launched by hand and read their loss back as the released scripts do."""
    batch, number = (128, 20) if measuring else (4, 1)
    graph, x, y = step(device, batch, cuda_graph=True, precision=precision)
    eager, _, _ = step(device, batch)

    def released() -> None:
        for _ in range(number):
            eager(x, y, 0.1)
            eager.total.item()

    compare(lambda: [graph(x, y, 0.1) for _ in range(number)], released, "of eager steps", rounds=11, most=1 / 6)
    _, moved, flops = count(lambda: eager(x, y, 0.1))
    fact(
        f"a step, ResNet-20, batch {batch} ({graph.mechanism})",
        f"{flops / 1e9:.1f} GFLOP, {moved / 1e9:.2f} GB unfused",
    )


def test_share_of_the_data_path(compare: Compare, measuring: bool, device: torch.device) -> None:
    """An epoch of batches, by as many captured steps."""
    number, batch = (50_000, 128) if measuring else (8, 4)
    x = images(number).to(device)
    batcher = Batcher(x, torch.zeros(number, dtype=torch.long, device=device), batch, Augment(4, True, MEAN, STD), 0)
    graph, one, labels = step(device, batch, cuda_graph=True)
    compare(
        lambda: sum(1 for _ in batcher.epoch(0)),
        lambda: [graph(one, labels, 0.1) for _ in range(len(batcher))],
        "of the steps",
        rounds=5,
        most=0.03,
    )


@pytest.mark.parametrize("size", [2, 4, 8])
def test_cells_at_a_time(compare: Compare, measuring: bool, device: torch.device, size: int) -> None:
    """Captured steps of ResNet-20, batches included: of cells that take turns, against as many of one cell alone."""
    number, batch, turns = (50_000, 128, 40) if measuring else (64, 4, 1)
    x, y = images(number).to(device), torch.zeros(number, dtype=torch.long, device=device)
    data = Dataset("made-up", x, y, x[:1000], y[:1000], 10, "", "")
    quick = recipes.load("quick", "digits", "resnet20")
    train = dataclasses.replace(quick.train, epochs=1000, batch_size=batch, cuda_graph=True)
    augmented = dataclasses.replace(quick.data, padding=4, flip=True, mean=MEAN, std=STD)
    recipe = dataclasses.replace(quick, train=train, data=augmented)

    def pack(members: int) -> Pack[int, Trained]:
        made: Pack[int, Trained] = Pack(device)
        for seed in range(members):
            model, _ = problem(batch, 1, device)
            made.add(seed, training(model, {}, data, recipe, seed))
        for _ in range(10 if measuring else 1):
            made.turn()
        return made

    alone, together = pack(1), pack(size)
    unit = "times the cells an hour of one after the other"
    compare(
        lambda: [together.turn() for _ in range(turns)],
        lambda: [alone.turn() for _ in range(size * turns)],
        unit,
        rounds=11,
        wall=True,
        inverse=True,
        least=None if size == 2 else 1.5,
    )


def test_prospr_of_vgg19(benchmark: BenchmarkFixture, fact: Fact, measuring: bool, device: torch.device) -> None:
    model = models.build("vgg19-bn", 3, 32, 10).to(device)
    _, data = problem(512 if measuring else 2, 4, device)
    with measured(device) as cost:
        benchmark.pedantic(lambda: pai_bench.score(model, data, "prospr", dtype="float32"), rounds=1)
    fact("ProsPr, VGG-19, batch 512, 3 steps", f"{cost.seconds:.2f} s, {(cost.peak_bytes or 0) / 1e9:.2f} GB")
