"""Tests on a GPU: masks equal the CPU's, captured steps equal eager ones, packed and resumed cells end alike.

PAI_TEST_DEVICE=cpu runs the tests that need no GPU, to check the tests themselves.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pai_bench
from pai_bench import models, recipes
from pai_bench.cells import Cell
from pai_bench.core.precision import float32_products
from pai_bench.datasets import loading
from pai_bench.datasets.loading import InMemoryDataset
from pai_bench.experiment.cost import measured
from pai_bench.experiment.runner import CellRunner, Outcome, Run, device_name
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.selection import keep_exactly
from pai_bench.scoring import registry
from pai_bench.scoring.problem import prunable
from pai_bench.testing import check_method
from pai_bench.training import launches
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import RoundRobin
from pai_bench.training.loop import Trained, train
from pai_bench.training.mask_updates import Changing
from pai_bench.training.step import make_step
from tests.cli.program import pai_bench as program
from tests.cli.program import results
from tests.cuda import patterns
from tests.unit import killing
from tests.unit.test_checkpoints import StopInTraining
from tests.unrolling import unrolled_prospr

DEVICE = torch.device(os.environ.get("PAI_TEST_DEVICE", "cuda"))
if DEVICE.type == "cuda" and not torch.cuda.is_available():
    pytest.skip("no CUDA device is here", allow_module_level=True)

of_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="this needs a CUDA device")
FEW: dict[str, dict[str, Any]] = {"iterative-snip": {"rounds": 5}, "force": {"rounds": 5}, "ntk-sap": {"rounds": 5}}
FEW |= {"iterative-grasp": {"rounds": 5}, "dpai": {"steps": 20}}
"""Rounds of the methods that take minutes with all of theirs on a CPU."""


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of cuDNN that add in a fixed order, so that two runs can be compared bit for bit."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


Batches = list[tuple[torch.Tensor, torch.Tensor]]


def small_data() -> InMemoryDataset:
    """Load 140 images for training; no batch size of the tests divides this number."""
    data = loading.load(patterns.NAME)
    assert isinstance(data, InMemoryDataset)
    return dataclasses.replace(data, train_x=data.train_x[:140], train_y=data.train_y[:140]).to(DEVICE)


def problem(name: str = "conv8", channels: int = 1, side: int = 8, size: int = 20) -> tuple[nn.Module, Batches]:
    model = models.build(name, channels, side, 10)
    models.initialise(model, "kaiming-normal-fan-in", 0)
    generator = torch.Generator().manual_seed(0)
    return model, [
        (torch.randn(size, channels, side, side, generator=generator), torch.arange(size) % 10) for _ in range(10)
    ]


def moved(model: nn.Module, data: Batches) -> tuple[nn.Module, Batches]:
    return copy.deepcopy(model).to(DEVICE), [(x.to(DEVICE), y.to(DEVICE)) for x, y in data]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_weights_are_those_kept_on_the_cpu(dtype: torch.dtype) -> None:
    """Include scores with many ties, which are kept in the order of their position."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.rand(100_000, dtype=dtype, generator=generator)
    candidates = torch.rand(100_000, generator=generator) < 0.3
    for scores in (plain, (plain * 20).round(), plain.sort(descending=True).values):
        for count in (0, 1, 2_000, 20_000, int(candidates.sum())):
            kept = keep_exactly(scores.to(DEVICE), candidates.to(DEVICE), 0.5, count)
            assert torch.equal(kept.cpu(), keep_exactly(scores, candidates, 0.5, count))


@pytest.mark.parametrize("method", pai_bench.list_methods())
def test_masks_are_those_of_the_cpu(method: str) -> None:
    model, data = problem()
    ours = pai_bench.prune(model, data, method, sparsity=0.9, **FEW.get(method, {}))
    theirs = pai_bench.prune(*moved(model, data), method, sparsity=0.9, **FEW.get(method, {}))
    for name, mask in ours.items():
        assert theirs[name].device.type == DEVICE.type and torch.equal(theirs[name].cpu(), mask), name


@pytest.mark.parametrize("granularity", ["kernel", "channel", "2:4", "constant-fan-in"])
def test_masks_of_units_are_those_of_the_cpu(granularity: str) -> None:
    model, data = problem("resnet20", 3, 32)
    ours = pai_bench.prune(model, data[:1], "snip", sparsity=0.6, granularity=granularity)
    theirs = pai_bench.prune(*moved(model, data[:1]), "snip", sparsity=0.6, granularity=granularity)
    assert all(torch.equal(theirs[name].cpu(), mask) for name, mask in ours.items())


@pytest.mark.parametrize("method", pai_bench.list_methods())
def test_every_method_obeys_its_laws(method: str) -> None:
    few = ",".join(f"{name}={value}" for name, value in FEW.get(method, {}).items() if name != "rounds")
    check_method(f"{method}:{few}" if few else method, device=DEVICE.type, rounds=2)


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "prospr"])
def test_scores_of_a_deep_network_are_those_of_the_cpu(method: str) -> None:
    model, data = problem("resnet20", 3, 32)
    ours = pai_bench.score(model, data[:4], method)
    theirs = pai_bench.score(*moved(model, data[:4]), method)
    for name, scores in ours.items():
        assert (theirs[name].cpu() - scores).norm() <= 1e-9 * scores.norm(), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_prospr_is_plain_unrolling(momentum: float) -> None:
    model, data = moved(*problem("resnet20", 3, 32))
    ours = pai_bench.score(model, data[:4], "prospr", lr=0.1, momentum=momentum)
    theirs = unrolled_prospr(model, data[:4], lr=0.1, momentum=momentum)
    for name, scores in ours.items():
        assert (theirs[name] - scores).norm() <= 1e-12 * scores.norm(), name


def test_scoring_leaves_model_and_random_numbers_alone() -> None:
    model, data = moved(*problem())
    before = copy.deepcopy(model.state_dict())
    draws = torch.cuda.get_rng_state(DEVICE) if DEVICE.type == "cuda" else torch.get_rng_state()
    for method in pai_bench.list_methods():
        pai_bench.score(model, data, method, **FEW.get(method, {}))
    after = torch.cuda.get_rng_state(DEVICE) if DEVICE.type == "cuda" else torch.get_rng_state()
    assert torch.equal(draws, after) and all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_float32_scores_are_ieee_whatever_the_caller_allows() -> None:
    model, data = moved(*problem("resnet20", 3, 32))
    strict = pai_bench.score(model, data, "snip", dtype="float32")
    with float32_products("tf32"):
        allowed = pai_bench.score(model, data, "snip", dtype="float32")
    assert all(torch.equal(strict[name], scores) for name, scores in allowed.items())


def stepped(dtype: torch.dtype, **options: object) -> tuple[torch.Tensor, str]:
    """All parameters and buffers after 20 masked steps, and how these were done."""
    model, data = problem("resnet20", 3, 32, size=64)
    model, data = moved(model.to(dtype), [(x.to(dtype), y) for x, y in data])
    generator = torch.Generator().manual_seed(1)
    masks = {
        n: (torch.rand(p.shape, generator=generator) < 0.3).to(DEVICE)
        for n, p in model.named_parameters()
        if p.dim() > 1
    }
    step = make_step(model, masks, dataclasses.replace(killing.recipe().train, **options))  # type: ignore[arg-type]
    for number in range(20):
        # Exact in float32, in which a captured step has its learning rate.
        step(*data[number % len(data)], 2.0 ** -(5 + number // 5))
    assert step.masked.intact()
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()]), step.mechanism


@of_cuda
def test_a_captured_step_is_the_step() -> None:
    (graph, how), (eager, plain) = stepped(torch.float64), stepped(torch.float64, cuda_graph=False)
    assert (how, plain) == ("cuda-graph", "eager") and (graph - eager).norm() <= 1e-9 * eager.norm()


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_captured_training_is_the_training(monkeypatch: pytest.MonkeyPatch, precision: str, dropout: float) -> None:
    """Batches from tables, several steps in a graph, casts and counters in one kernel: bit for bit the eager steps."""
    monkeypatch.setattr(launches, "CAPTURE_STEPS", 1)

    def trained(cuda_graph: bool | str) -> tuple[torch.Tensor, Trained]:
        model = nn.Sequential(nn.Dropout(dropout), models.build("resnet20", 1, 8, 10)).to(DEVICE)
        models.initialise(model, "kaiming-normal-fan-in", 0)
        generator = torch.Generator().manual_seed(1)
        masks = {
            n: (torch.rand(p.shape, generator=generator) < 0.3).to(DEVICE)
            for n, p in model.named_parameters()
            if p.dim() > 1
        }
        last = precision == "bfloat16"
        recipe = killing.recipe(epochs=4, batch_size=8, precision=precision, channels_last=last, cuda_graph=cuda_graph)
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, padding=2, flip=True))
        found = train(model, masks, small_data(), recipe, seed=0)
        return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()]), found

    (ours, captured), (theirs, eager) = trained("auto"), trained(False)
    assert torch.equal(ours, theirs) and captured.curve == eager.curve
    assert eager.mechanism == "eager" and captured.mechanism == ("cuda-graph" if DEVICE.type == "cuda" else "eager")


@pytest.mark.parametrize("method", ["rigl", "set", "gmp"])
def test_captured_graphs_stay_valid_when_masks_change(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Mask updates between graphs of several steps, in place: bit for bit the training without graphs."""
    monkeypatch.setattr(launches, "CAPTURE_STEPS", 1)

    def trained(cuda_graph: bool | str) -> tuple[torch.Tensor, Trained, dict[str, torch.Tensor]]:
        model = models.build("resnet20", 1, 8, 10).to(DEVICE)
        models.initialise(model, "kaiming-normal-fan-in", 0)
        weights = prunable(model)
        generator = torch.Generator().manual_seed(1)
        masks = {
            n: (torch.rand(p.shape, generator=generator) < (1.1 if method == "gmp" else 0.3)).to(DEVICE)
            for n, p in weights.items()
        }
        size = sum(w.numel() for w in weights.values())
        kept = round(0.3 * size)
        kept = kept if method == "gmp" else sum(int(mask.sum()) for mask in masks.values())
        scorer: Any = registry.get(method, {"every": 25, "stop": 1.0})
        recipe = killing.recipe(epochs=6, batch_size=8, cuda_graph=cuda_graph)
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, padding=2, flip=True))
        data = small_data()
        found = train(model, masks, data, recipe, seed=0, changing=Changing(scorer, method, kept, size))
        return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()]), found, masks

    (ours, captured, masks), (theirs, eager, others) = trained("auto"), trained(False)
    assert torch.equal(ours, theirs) and captured.curve == eager.curve
    assert all(torch.equal(mask, others[name]) for name, mask in masks.items())
    assert captured.mask_updates == eager.mask_updates and len(captured.mask_updates["step"]) >= 4
    assert captured.mechanism == ("cuda-graph" if DEVICE.type == "cuda" else "eager")


@of_cuda
@pytest.mark.control_flow
@pytest.mark.parametrize(
    ("name", "side"), [("vgg16-bn", 32), ("resnet18", 32), ("lenet-300-100", 28), ("vgg16-bn-tinyimagenet", 64)]
)
def test_other_networks_are_captured(name: str, side: int) -> None:
    """With max pooling, with biases without batch norm, with dropout, and with a short last batch."""
    model = models.build(name, 1 if side == 28 else 3, side, 10).to(DEVICE)
    x = torch.zeros(20, 1 if side == 28 else 3, side, side, dtype=torch.uint8)
    data = InMemoryDataset("made-up", x, torch.arange(20) % 10, x, torch.arange(20) % 10, 10, "", "").to(DEVICE)
    recipe = killing.recipe(epochs=8, batch_size=8)
    channels = x.shape[1]
    recipe = dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, mean=(0.5,) * channels, std=(0.5,) * channels)
    )
    assert train(model, {}, data, recipe, seed=0).mechanism == "cuda-graph"


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow"])
def test_exact_zeros_of_scores_are_those_of_the_cpu(method: str) -> None:
    """Weights into and out of dead channels have a score of exactly zero, and ties are broken by position."""
    model, data = problem("resnet20", 3, 32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 4:
                weight[::2] = 0
            elif name.endswith("bias"):
                weight.zero_()
    ours = pai_bench.score(model, data[:2], method)
    theirs = pai_bench.score(*moved(model, data[:2]), method)
    assert sum(int((scores == 0).sum()) for scores in ours.values()) > 1000
    for name, scores in ours.items():
        assert torch.equal(theirs[name].cpu() == 0, scores == 0), name


@pytest.mark.parametrize("name", ["conv8", "resnet20", "vgg16-bn"])
def test_effective_masks_are_those_of_the_cpu(name: str) -> None:
    model, _ = problem(name, 3, 32)
    generator = torch.Generator().manual_seed(2)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.02 for n, p in model.named_parameters() if p.dim() > 1}
    ours = effective_masks(model, masks, (3, 32, 32))
    theirs = effective_masks(
        copy.deepcopy(model).to(DEVICE), {n: mask.to(DEVICE) for n, mask in masks.items()}, (3, 32, 32)
    )
    assert all(torch.equal(theirs[n].cpu(), mask) for n, mask in ours.items())


@of_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_captured_steps_repeat_themselves(precision: str) -> None:
    options: dict[str, object] = {"cuda_graph": True, "precision": precision}
    (first, how), (second, _) = stepped(torch.float32, **options), stepped(torch.float32, **options)
    assert how == "cuda-graph" and torch.equal(first, second)


def cells(**changes: object) -> list[Run]:
    settings = killing.recipe(cuda_graph=True, **changes)
    kinds = [("dense", 0.0, 0), ("snip", 0.9, 0), ("random", 0.98, 1), ("prospr", 0.9, 1)]
    return [Run(Cell(method, patterns.NAME, "conv8", sparsity, seed), settings) for method, sparsity, seed in kinds]


def told(outcome: object) -> tuple[object, ...]:
    assert isinstance(outcome, Outcome), outcome
    result = outcome.result
    return result.accuracy, result.curve, result.mask_hash, result.init_hash, result.status, result.fingerprint


def test_cells_that_train_side_by_side_end_as_alone() -> None:
    runner = CellRunner(device=str(DEVICE))
    alone = {run: told(runner.run(run)) for run in cells()}
    diverging = dataclasses.replace(cells()[2], recipe=killing.recipe(cuda_graph=True, lr=1e30))
    pack: RoundRobin[Run, Outcome] = RoundRobin(DEVICE)
    for run in (cells()[0], diverging, *cells()[1:]):
        pack.add(run, runner.running(run))
    ended = pack.drain()
    assert isinstance(wild := ended.pop(diverging), Outcome) and wild.result.status == "diverged"
    assert {run: told(outcome) for run, outcome in ended.items()} == alone


@pytest.mark.parametrize("steps", [0, 2, 30])
def test_a_cell_that_was_stopped_ends_as_one_never_stopped(tmp_path: Path, steps: int) -> None:
    """An interruption may come at any step, also before and after the capture; the next process captures again."""
    run = cells()[1]
    undisturbed = told(CellRunner(device=str(DEVICE)).run(run))
    checkpoints = Checkpoints(tmp_path, "1")
    with pytest.raises(Interrupted):
        CellRunner(device=str(DEVICE)).run(run, StopInTraining(checkpoints, steps), checkpoints)
    again = CellRunner(device=str(DEVICE)).run(run, None, Checkpoints(tmp_path, "2"))
    assert told(again) == undisturbed and len(again.result.provenance["earlier_attempts"]) == 1


@of_cuda
def test_memory_of_prospr_hardly_grows_with_its_steps() -> None:
    def peak(steps: int) -> int:
        with measured(DEVICE) as cost:
            pai_bench.score(model, data[: steps + 1], "prospr", steps=steps, dtype="float32")
        return cost.peak_bytes or 0

    model, data = moved(*problem("resnet20", 3, 32, size=128))
    peak(1)
    assert peak(8) <= 1.1 * peak(1)


def test_a_sweep_has_the_masks_of_the_cpu(tmp_path: Path) -> None:
    """Measurements of packs do not affect the masks."""
    grid = ("--methods", "snip,prospr", "--models", "conv8", "--sparsities", "0.9,0.98", "--seeds", "0")
    done = program(tmp_path, "sweep", "--where", "local", "--workers", "1", *patterns.PLUGIN, *grid)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "results")
    cpu = CellRunner(device="cpu")
    assert len(found) == 5
    for result in found.values():
        assert result["provenance"]["device"] == device_name(DEVICE)
        cell = Cell(*(result[key] for key in ("method", "dataset", "model", "sparsity", "seed")))
        outcome = cpu.run(Run(cell, recipes.load(patterns.RECIPE, patterns.NAME, "conv8")))
        assert (result["mask_hash"], result["init_hash"]) == (outcome.result.mask_hash, outcome.result.init_hash)
