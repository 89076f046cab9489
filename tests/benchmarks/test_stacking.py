"""Packs that are one network, against cells that take turns: their cost, and the equality of their training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pai_bench import models, recipes
from pai_bench.core.precision import float32_products
from pai_bench.training.cooperative import RoundRobin, Task
from pai_bench.training.step import Step, make_step
from tests.benchmarks.conftest import Compare
from tests.benchmarks.stacking import Grouped, Joint, Stacked, joint_step

SETTINGS = dataclasses.replace(
    recipes.load("quick", "digits", "resnet20").train,
    momentum=0.9,
    nesterov=False,
    weight_decay=1e-4,
    precision="float32",
    channels_last=False,
    cuda_graph=True,
)
LR = 0.1


@dataclasses.dataclass
class Cells:
    """Networks, masks that keep a tenth, and a batch for each, [cells, B, ...]."""

    networks: list[nn.Module]
    masks: list[dict[str, Tensor]]
    x: Tensor
    y: Tensor


def cells(seeds: list[int], batch: int, side: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Cells:
    """ResNet-20s; all of a cell follows from its seed."""
    made = Cells([], [], torch.empty(0), torch.empty(0))
    images, labels = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        model = models.build("resnet20", 3, side, 10)
        models.initialise(model, "kaiming-normal-fan-in", seed)
        kept = {n: torch.rand(p.shape, generator=generator) < 0.1 for n, p in model.named_parameters() if p.dim() > 1}
        made.networks.append(model.to(device, dtype))
        made.masks.append({name: mask.to(device) for name, mask in kept.items()})
        images.append(torch.randn(batch, 3, side, side, generator=generator))
        labels.append(torch.randint(10, (batch,), generator=generator))
    made.x, made.y = torch.stack(images).to(device, dtype), torch.stack(labels).to(device)
    return made


def joint(kind: type[Joint], some: Cells) -> tuple[Joint, Step]:
    network = kind(some.networks)
    return network, joint_step(network, some.masks, SETTINGS)


def steps_without_end(step: Step, x: Tensor, y: Tensor) -> Task[object]:
    while True:
        step(x, y, LR)
        yield


def in_turns(some: Cells, device: torch.device) -> Callable[[], None]:
    """A step of each cell, one after the other; on a GPU captured, each in a stream of its own."""
    pack: RoundRobin[int, object] = RoundRobin(device)
    for index, (network, masks) in enumerate(zip(some.networks, some.masks, strict=True)):
        pack.add(index, steps_without_end(make_step(network, masks, SETTINGS), some.x[index], some.y[index]))

    def turn() -> None:
        for _, ended in pack.turn():
            assert isinstance(ended, Exception)
            raise ended

    return turn


def by_separate(kind: type[Joint], size: int, compare: Compare, measuring: bool, device: torch.device) -> None:
    """Compare steps of all cells as one network with steps of one cell after the other (on a GPU twenty, captured)."""
    on_gpu = device.type == "cuda"
    batch, number = ((128, 20) if on_gpu else (32, 1)) if measuring else (2, 1)
    some = cells(list(range(size)), batch, 32, device)
    with float32_products("ieee"):
        _, together = joint(kind, some)
        turn = in_turns(some, device)

        def ours() -> None:
            for _ in range(number):
                together(some.x, some.y, LR)

        def theirs() -> None:
            for _ in range(number):
                turn()

        if on_gpu:
            ours()  # also makes the captures
            theirs()
        unit = f"of {size} separate cells, batch {batch}, {together.mechanism}"
        compare(ours, theirs, unit, rounds=11 if on_gpu else 7)


@pytest.mark.parametrize("size", [4, 8])
def test_stacked_by_separate(compare: Compare, measuring: bool, device: torch.device, size: int) -> None:
    by_separate(Stacked, size, compare, measuring, device)


@pytest.mark.parametrize("size", [4, 8])
def test_grouped_by_separate(compare: Compare, measuring: bool, device: torch.device, size: int) -> None:
    by_separate(Grouped, size, compare, measuring, device)


@pytest.mark.parametrize("kind", [Stacked, Grouped])
def test_joint_cells_train_as_separate_ones(kind: type[Joint]) -> None:
    """After five steps in float64, to rounding: parameters, running statistics, pruned weights, losses."""
    some = cells([0, 1, 2, 3], 4, 8, torch.device("cpu"), torch.float64)
    network, together = joint(kind, some)
    separate = [make_step(model, masks, SETTINGS) for model, masks in zip(some.networks, some.masks, strict=True)]
    for _ in range(5):
        together(some.x, some.y, LR)
        for index, step in enumerate(separate):
            step(some.x[index], some.y[index], LR)
    assert together.masked.intact()
    assert float(together.total) == pytest.approx(sum(float(step.total) for step in separate), rel=1e-5)
    for index, model in enumerate(some.networks):
        found, wanted = network.cell(index), model.state_dict()
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            assert (found[name] - value.flatten()).abs().max() < 1e-9, name


@pytest.mark.parametrize("kind", [Stacked, Grouped])
def test_a_joint_cell_does_not_depend_on_its_neighbours(kind: type[Joint]) -> None:
    """Not by a bit, after three steps in float32, whatever their weights, masks and batches are."""
    found = []
    for seeds in ([0, 1, 2, 3], [0, 4, 5, 6]):
        some = cells(seeds, 4, 8, torch.device("cpu"))
        network, together = joint(kind, some)
        for _ in range(3):
            together(some.x, some.y, LR)
        found.append([network.cell(index) for index in (0, 1)])
    (ours, neighbour), (again, other) = found
    assert all(torch.equal(value, again[name]) for name, value in ours.items())
    assert not all(torch.equal(value, other[name]) for name, value in neighbour.items())
