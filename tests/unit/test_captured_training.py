"""Tests of trainings with captured steps on the CPU substitute for CUDA graphs: bit for bit the eager ones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pai_bench import models
from pai_bench.cells import Cell
from pai_bench.datasets.loading import InMemoryDataset
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.recipes import Recipe
from pai_bench.training import launches, loop
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import RoundRobin
from pai_bench.training.loop import Trained, train
from pai_bench.training.step import GraphStep
from tests.unit import killing
from tests.unit.graph_device import Device


class Tiny(nn.Sequential):
    """A small network that reads a value in eval mode, which a capture would not permit."""

    def __init__(self, inputs: int = 64, outputs: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))
        models.initialise(self, "torch", 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = super().forward(x)
        return outputs if self.training or float(outputs.sum()) < 1e9 else -outputs


def recipe(**changes: object) -> Recipe:
    """Return a recipe without augmentation that evaluates after each epoch."""
    made = killing.recipe(**{"epochs": 4, "evaluate_every": 1, "batch_size": 4, **changes})
    return dataclasses.replace(made, data=dataclasses.replace(made.data, padding=0, flip=False))


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Device]:
    """A function after which trainings are captured."""

    def start() -> Device:
        device = Device(monkeypatch)
        monkeypatch.setattr(launches, "CAPTURE_STEPS", 1)
        monkeypatch.setattr(loop, "make_step", lambda *arguments: device.of(GraphStep(*arguments)))
        return device

    return start


def trained(model: nn.Module, data: InMemoryDataset, settings: Recipe, *more: Any) -> tuple[Tensor, Trained]:
    """Return all parameters and buffers of a network after its training under masks, and the outcome."""
    masks = {n: torch.arange(p.numel()).view(p.shape) % 3 > 0 for n, p in model.named_parameters() if p.dim() > 1}
    found = train(model, masks, data, settings, 0, *more)
    return torch.cat([tensor.double().flatten() for tensor in model.state_dict().values()]), found


def same(ours: tuple[Tensor, Trained], theirs: tuple[Tensor, Trained]) -> bool:
    plain = dataclasses.replace(ours[1], seconds=0.0, mechanism="") == dataclasses.replace(
        theirs[1], seconds=0.0, mechanism=""
    )
    return plain and torch.equal(ours[0], theirs[0]) and ours[1].mechanism == "cuda-graph"


@pytest.mark.parametrize(("steps", "count"), [(391, 17), (390, 15), (64, 16), (46, 23), (29, 16), (5, 5), (0, 0)])
def test_a_graph_contains_a_divisor_of_the_steps_of_an_epoch_near_16(steps: int, count: int) -> None:
    assert launches.in_a_graph(steps) == count


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_epochs_of_an_odd_length_and_rates_that_change_inside_a_graph(
    capturing: Callable[[], Device], schedule: str
) -> None:
    """29 whole batches and a short one in an epoch, of which 16 are in a graph; milestones and an end inside graphs."""
    drops = {"schedule": schedule, "milestones": (1,), "milestone_steps": (5, 19, 38), "warmup_epochs": 0.3}
    settings, data = recipe(epochs=0, steps=53, **drops), killing.small_data(4 * 29 + 3)
    eager = trained(Tiny(), data, settings)
    device = capturing()
    assert same(trained(Tiny(), data, settings), eager)
    assert 4 * 16 in device.replays and 4 in device.replays


@pytest.mark.slow
def test_a_training_that_is_stopped_inside_graphs_ends_as_one_never_stopped(
    capturing: Callable[[], Device], tmp_path: Path
) -> None:
    """It stops at the end of a graph; each attempt captures again, from steps that are no multiples of 16."""
    data, settings = killing.small_data(4 * 35), recipe(epochs=3, evaluate_every=3)
    eager = trained(Tiny(), data, settings)
    capturing()
    stops = []
    for attempt in range(4):
        checkpoints = Checkpoints(tmp_path, f"a{attempt}")
        saved = checkpoints.load()
        more = killing.StopAfter(checkpoints, 21), checkpoints, saved
        stops += [(saved["epoch"], saved["step"])] if saved is not None else []
        with contextlib.suppress(Interrupted):
            ours = trained(Tiny(), data, settings, *more)
    assert stops == [(0, 21), (1, 16), (2, 16)] and same(ours, eager)


@pytest.mark.slow
def test_vectors_and_the_binary_loss_are_captured_by_single_steps(capturing: Callable[[], Device]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(66, 2, generator=generator), torch.arange(66) % 2
    data = InMemoryDataset("made-up", x, y, x[:9], y[:9], 2, "", "")
    settings = recipe(batch_size=16, loss="binary-cross-entropy")
    settings = dataclasses.replace(
        settings, data=dataclasses.replace(settings.data, kind="vectors", mean=(0.0, 0.0), std=(1.0, 1.0))
    )
    eager = trained(Tiny(2, 1), data, settings)
    device = capturing()
    assert same(trained(Tiny(2, 1), data, settings), eager) and set(device.replays) == {16, 2}


@pytest.mark.slow
def test_packed_cells_with_changing_masks_and_searches_are_captured(
    capturing: Callable[[], Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mask updates, rewound weights and the search of a subnetwork between the replays of other cells."""
    images = killing.small_data(8 * 9 + 5)
    methods = ("rigl:every=5", "gmp:every=3", "ltr", "edge-popup", "gem-miner:every=1", "snip")
    settings = recipe(epochs=2, batch_size=8)
    runs = [Run(Cell(method, "digits", "mlp-16x3", 0.5, 0), settings) for method in methods]
    runner = CellRunner(device="cpu")
    monkeypatch.setattr(runner, "dataset", lambda run: images)
    eager = {run: runner.run(run).result for run in runs}
    device = capturing()
    pack: RoundRobin[Run, Outcome] = RoundRobin(torch.device("cpu"))
    for run in runs:
        pack.add(run, runner.running(run))
    for run, outcome in pack.drain().items():
        assert isinstance(outcome, Outcome), outcome
        ours, theirs = outcome.result, eager[run]
        assert ours.provenance["step"] == "cuda-graph" and theirs.provenance["step"] == "eager"
        for name in ("accuracy", "curve", "mask_hash", "mask_updates", "sparsity", "status"):
            assert getattr(ours, name) == getattr(theirs, name), (run, name)
    assert 8 * 9 in device.replays
