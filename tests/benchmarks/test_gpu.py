"""Benchmarks that need a GPU; collected with --device cuda."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import pai_bench
from pai_bench import models, recipes
from pai_bench.datasets.loading import Augment, InMemoryDataset, InMemoryLoader
from pai_bench.experiment.cost import measured
from pai_bench.recipes import Recipe
from pai_bench.training.callbacks import Callback
from pai_bench.training.cooperative import RoundRobin, release
from pai_bench.training.evaluation import EVALUATION_BATCH
from pai_bench.training.loop import Trained, training
from pai_bench.training.step import Step, make_step
from tests.benchmarks import peak
from tests.benchmarks.conftest import Compare, Fact
from tests.benchmarks.counting import count
from tests.benchmarks.test_scoring import problem
from tests.benchmarks.test_training import MEAN, STD, images
from tests.unrolling import unrolled_prospr


def step(device: torch.device, batch: int, **options: object) -> tuple[Step, torch.Tensor, torch.Tensor]:
    model, [(x, y)] = problem(batch, 1, device)
    settings = recipes.load("quick", "digits", "resnet20").train
    made = make_step(model, {}, dataclasses.replace(settings, **options))  # type: ignore[arg-type]
    for _ in range(10):
        made(x, y, 0.1)
    return made, x, y


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_graph_step(compare: Compare, fact: Fact, measuring: bool, device: torch.device, precision: str) -> None:
    """Twenty steps, against twenty in the same precision that are launched by hand and read their loss back as the
    released scripts do."""
    batch, number = (128, 20) if measuring else (4, 1)
    graph, x, y = step(device, batch, cuda_graph=True, precision=precision)
    eager, _, _ = step(device, batch, cuda_graph=False, precision=precision)

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


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_graph_step(compare: Compare, measuring: bool, device: torch.device, precision: str) -> None:
    """Twenty captured steps of a compiled network, against twenty of the network as it is."""
    batch, number = (128, 20) if measuring else (4, 1)
    fused, x, y = step(device, batch, compile=True, cuda_graph=True, precision=precision)
    graph, _, _ = step(device, batch, cuda_graph=True, precision=precision)

    def run(chosen: Step) -> None:
        for _ in range(number):
            chosen(x, y, 0.1)

    compare(lambda: run(fused), lambda: run(graph), f"of captured steps ({fused.mechanism})", rounds=11)


def test_share_of_the_data_path(compare: Compare, measuring: bool, device: torch.device) -> None:
    """An epoch of batches and captured steps, by as many captured steps of one batch."""
    number, batch = (50_000 // 128 * 128, 128) if measuring else (8, 4)
    x = images(number).to(device)
    loader = InMemoryLoader(
        x, torch.zeros(number, dtype=torch.long, device=device), batch, Augment(4, True, MEAN, STD), 0
    )
    graph, one, labels = step(device, batch, cuda_graph=True)
    compare(
        lambda: [graph(*some, 0.1) for some in loader.epoch(0)],
        lambda: [graph(one, labels, 0.1) for _ in range(len(loader))],
        "of the steps alone",
        rounds=5,
        most=1.03,
    )


def cifar(device: torch.device, measuring: bool) -> tuple[InMemoryDataset, Recipe]:
    """Images of CIFAR-10's number and size, and 160 epochs of them as Frankle et al. train ResNet-20, captured."""
    train, test = (50_000, 10_000) if measuring else (64, 8)
    x = images(train + test).to(device)
    y = torch.arange(train + test, device=device) % 10
    recipe = recipes.load("frankle", "cifar10", "resnet20")
    options = {"cuda_graph": True, "batch_size": 128 if measuring else 4, "epochs": 160}
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **options))
    return InMemoryDataset("made-up", x[:train], y[:train], x[train:], y[train:], 10, "", ""), recipe


class Pack(Callback):
    """Trainings of ResNet-20 under masks that keep a tenth. A turn may be several captured steps, or none while the
    device is busy, so that steps are counted."""

    def __init__(self, size: int, data: InMemoryDataset, recipe: Recipe, device: torch.device, settling: int) -> None:
        """Start `size` trainings, and run `settling` steps of each one."""
        self.members: RoundRobin[int, Trained] = RoundRobin(device)
        self.size = size
        self.steps = 0
        """Training steps, and batches of evaluations, of all members so far."""
        for seed in range(size):
            model, _ = problem(1, 1, device)
            generator = torch.Generator().manual_seed(seed)
            masks = {
                n: torch.rand(p.shape, generator=generator) < 0.1 for n, p in model.named_parameters() if p.dim() > 1
            }
            on_device = {name: mask.to(device) for name, mask in masks.items()}
            self.members.add(seed, training(model, on_device, data, recipe, seed, self))
        self.run(settling * size)

    def tick(self) -> None:
        self.steps += 1

    def run(self, steps: int) -> int:
        """Run at least so many steps of all members together; return how many were run."""
        began = self.steps
        while self.steps - began < steps:
            for _, ended in self.members.turn():
                raise ended if isinstance(ended, Exception) else RuntimeError("the training has ended")
        return self.steps - began


@pytest.mark.parametrize("size", [2, 4, 8])
def test_steps_of_packed_cells_against_steps_of_one(
    compare: Compare, measuring: bool, device: torch.device, size: int
) -> None:
    """Captured steps of ResNet-20 in TF32, batches included: of cells that take turns, against as many of one alone."""
    # A multiple of the steps in a graph (17 of 391), so that both run as many.
    number, settling = (17 * 40, 60) if measuring else (1, 1)
    data, recipe = cifar(device, measuring)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, precision="tf32"))
    alone, together = (Pack(members, data, recipe, device, settling) for members in (1, size))
    compare(
        lambda: together.run(number),
        lambda: alone.run(number),
        "times the cells an hour of one after the other, tf32",
        rounds=11,
        wall=True,
        inverse=True,
        least=None if size == 2 else 1.5,
    )


def test_hours_of_a_papers_sweep(
    benchmark: BenchmarkFixture, fact: Fact, measuring: bool, device: torch.device
) -> None:
    """90 cells of 160 epochs, from an epoch and its evaluation of packs of each size, in each precision."""
    data, recipe = cifar(device, measuring)
    steps = -(-len(data.train_y) // recipe.train.batch_size)
    epoch = steps + -(-len(data.test_y) // EVALUATION_BATCH)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, evaluate_every=1))
    found = {}
    for precision in ("float32", "tf32", "bfloat16") if measuring else ("float32",):
        chosen = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, precision=precision))
        for size in (1, 4, 8) if measuring else (1, 2):
            members = Pack(size, data, chosen, device, settling=epoch if measuring else 1)
            with measured(device) as cost:
                steps = members.run(size * epoch)
            found[precision, size] = cost.seconds / steps * epoch * 160 * 90 / 3600
            fact(f"90 cells x 160 epochs, {precision}, {size} at a time", f"{found[precision, size]:.2f} GPU-hours")
    benchmark.pedantic(lambda: members.run(1), rounds=1)
    for precision in dict.fromkeys(name for name, _ in found):
        hours = min(hours for (name, _), hours in found.items() if name == precision)
        fact(f"the same by the best pack, {precision} (wanted in tf32: <= 1.6)", f"{hours:.2f} GPU-hours")


@pytest.mark.parametrize(("name", "size"), [("resnet20", 128), ("vgg16-bn", 64), ("resnet18", 32)])
def test_peaks_of_prospr_on_the_device(
    benchmark: BenchmarkFixture, fact: Fact, measuring: bool, device: torch.device, name: str, size: int
) -> None:
    model, data = problem(size if measuring else 2, 9, device, name)

    def taken(steps: int, ours: bool) -> int:
        some = data[: steps + 1]
        with measured(device) as cost:
            if ours:
                pai_bench.score(model, some, "prospr", steps=steps, lr=0.1, momentum=0.0, dtype="float32")
            else:
                unrolled_prospr(model, some, lr=0.1, momentum=0.0, dtype=torch.float32)
        return cost.peak_bytes or 1

    steps = (1, 3, 8) if measuring else (1, 1, 1)
    one, three, eight = benchmark.pedantic(lambda: [taken(number, ours=True) for number in steps], rounds=1)
    theirs = taken(steps[1], ours=False)
    fact(
        f"peak of ProsPr, {name}, batch {size}, 3 steps",
        f"{three / 1e6:.0f} MB, {three / theirs:.3f} of plain unrolling; 8 steps by 1: {eight / one:.3f}",
    )


def test_peaks_of_methods_on_the_device(
    benchmark: BenchmarkFixture, fact: Fact, measuring: bool, device: torch.device
) -> None:
    """Peaks of all other scorers, in megabytes and in passes of the same batch, without the memory of the batch."""

    def taken(what: str, size: int) -> int:
        model, data = problem(size if measuring else 2, 1, device)
        peak.work(what, model, [(x[:2], y[:2]) for x, y in data])  # what libraries keep from their first use on
        if measuring:
            release()
        with measured(device) as cost:
            peak.work(what, model, data)
        return cost.peak_bytes or 1

    found = benchmark.pedantic(lambda: {case: taken(*case) for case in peak.CASES}, rounds=1)
    for (what, size), peaked in found.items():
        value = f"{peaked / 1e6:.0f} MB, {peaked / found['pass', size]:.2f} of a pass"
        fact(f"peak of {what}, resnet20, batch {size}", value)


def test_prospr_of_vgg19(benchmark: BenchmarkFixture, fact: Fact, measuring: bool, device: torch.device) -> None:
    model = models.build("vgg19-bn", 3, 32, 10).to(device)
    _, data = problem(512 if measuring else 2, 4, device)
    with measured(device) as cost:
        benchmark.pedantic(lambda: pai_bench.score(model, data, "prospr", dtype="float32"), rounds=1)
    fact("ProsPr, VGG-19, batch 512, 3 steps", f"{cost.seconds:.2f} s, {(cost.peak_bytes or 0) / 1e9:.2f} GB")
