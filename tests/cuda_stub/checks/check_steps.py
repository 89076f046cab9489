"""Checks of captured steps: their launches, refused captures, and the state afterwards."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from pai_bench import models
from pai_bench.core.precision import laid_out
from pai_bench.datasets.loading import InMemoryDataset
from pai_bench.experiment.searching import SearchNetwork
from pai_bench.recipes import Recipe
from pai_bench.results import Epoch
from pai_bench.scoring import registry
from pai_bench.scoring.problem import prunable
from pai_bench.scoring.searching import searches
from pai_bench.training import graph_step, launches
from pai_bench.training.callbacks import Callback
from pai_bench.training.loop import train
from pai_bench.training.step import GraphStep, make_step
from tests.cuda_stub import device
from tests.cuda_stub.device import Counts
from tests.gpu_steps.common import Trainings, cifar_recipe
from tests.unit import killing

CUDA = torch.device("cuda")
BATCH = 8


def network(name: str = "conv8") -> nn.Module:
    return models.build(name, 1, 8, 10).to(CUDA)


def masks(model: nn.Module) -> dict[str, Tensor]:
    return {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.dim() > 1}


def data(images: int = 64) -> InMemoryDataset:
    x, y = torch.zeros(images, 1, 8, 8, dtype=torch.uint8), torch.arange(images) % 10
    return InMemoryDataset("made-up", x, y, x[:10], y[:10], 10, "", "").to(CUDA)


def recipe(**changes: object) -> Recipe:
    return killing.recipe(batch_size=BATCH, **changes)


def steps(model: nn.Module, count: int, **changes: object) -> GraphStep:
    settings = recipe(**changes).train
    step = make_step(laid_out(model, settings.channels_last), masks(model), settings)
    assert isinstance(step, GraphStep)
    x, y = torch.zeros(BATCH, 1, 8, 8, device=CUDA), torch.zeros(BATCH, dtype=torch.long, device=CUDA)
    for _ in range(count):
        step(x, y, 0.1)
    return step


class Reading(nn.Module):
    """A network that reads a value, which a capture does not permit, and draws random numbers."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.net, self.dropout = network(), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.dropout(self.net(x))
        return outputs * 0 if float(outputs.detach().sum()) > 1e9 else outputs


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_continues_after_a_refused_capture(dropout: float) -> None:
    """Random draws of the process continue too, which PyTorch 2.11 refuses after a failed capture."""
    with pytest.warns(RuntimeWarning, match="no CUDA graph: .*captur"):
        step = steps(Reading(dropout), 7)
    assert step.mechanism == "eager"
    torch.rand(4, device=CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = steps(nn.Sequential(nn.Dropout(0.5), network()), 7)
    assert after.mechanism == "cuda-graph"


class ReadingInEvaluation(Reading):
    """A network that reads a value in eval mode only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.training else super().forward(x)


def test_a_network_that_reads_a_value_in_evaluation_only_is_captured() -> None:
    assert train(ReadingInEvaluation(), {}, data(), recipe(), seed=0).mechanism == "cuda-graph"


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy"])
def test_steps_on_vectors_are_captured_one_by_one(loss: str) -> None:
    """Their batches are not gathered from bytes: a copy of inputs and of labels precedes each graph."""
    x, y = torch.zeros(64 + 4, 2, device=CUDA), torch.arange(64 + 4, device=CUDA) % 2
    points = InMemoryDataset("made-up", x, y, x[:8], y[:8], 2, "", "")
    settings = recipe(epochs=12, evaluate_every=12, loss=loss)
    vectors = dataclasses.replace(settings.data, kind="vectors", mean=(0.0, 0.0), std=(1.0, 1.0), padding=0, flip=False)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1 if loss.startswith("binary") else 2)).to(CUDA)
    before = Counts.now()
    assert train(model, {}, points, dataclasses.replace(settings, data=vectors), seed=0).mechanism == "cuda-graph"
    # All steps but the warm-up of each batch size; the step that is captured is replayed once for the comparison.
    assert Counts.now().since(before).graph_launches == 12 * 9 - 2 * graph_step.WARM_UP


class HostDraws(nn.Module):
    """A network, such as a plug-in's, that draws on the host; a replay would repeat the draw of the capture."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.net(x) * (1 + torch.rand(()).item())
        return outputs


def test_a_network_that_draws_on_the_host_is_not_captured() -> None:
    with pytest.warns(RuntimeWarning, match="draws random numbers on the host"):
        assert steps(HostDraws(), 6).mechanism == "eager"


def test_a_step_is_captured_by_default_and_not_where_it_is_switched_off() -> None:
    trained = train(network(), {}, data(), recipe(), seed=0)
    assert trained.mechanism == "cuda-graph"
    assert train(network(), {}, data(), recipe(cuda_graph=False), seed=0).mechanism == "eager"


def test_out_of_memory_in_a_capture_is_raised_beside_other_cells_and_costs_the_graph_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: GraphStep, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream),
        ):
            work()
            torch.empty(2 * device.MEMORY, dtype=torch.uint8, device=CUDA)
        raise AssertionError("the memory has sufficed")

    monkeypatch.setattr(GraphStep, "_captured", full)
    alone = [True]
    for alone[0] in (True, False):
        model = network()
        step = GraphStep(model, masks(model), recipe().train, lambda: alone[0])
        x, y = torch.zeros(BATCH, 1, 8, 8, device=CUDA), torch.zeros(BATCH, dtype=torch.long, device=CUDA)
        for _ in range(graph_step.WARM_UP):
            step(x, y, 0.1)
        if alone[0]:
            with pytest.warns(RuntimeWarning, match="no CUDA graph"):
                step(x, y, 0.1)
        else:
            with pytest.raises(torch.OutOfMemoryError):
                step(x, y, 0.1)
    torch.rand(4, device=CUDA)


@pytest.mark.parametrize("failing", [0, 1], ids=["before the step by hand", "after it"])
@pytest.mark.parametrize("alone", [True, False])
def test_out_of_memory_for_the_comparison_costs_the_graph_alone(
    failing: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, copies, calls = network(), GraphStep._copies, iter(range(9))

    def full(self: GraphStep) -> list[list[Tensor]]:
        if next(calls) == failing:
            torch.empty(2 * device.MEMORY, dtype=torch.uint8, device=CUDA)
        return copies(self)

    monkeypatch.setattr(GraphStep, "_copies", full)
    step = GraphStep(model, masks(model), recipe().train, lambda: alone)
    x, y = torch.zeros(BATCH, 1, 8, 8, device=CUDA), torch.zeros(BATCH, dtype=torch.long, device=CUDA)
    for _ in range(graph_step.WARM_UP):
        step(x, y, 0.1)
    if alone:
        with pytest.warns(RuntimeWarning, match="no CUDA graph: the memory does not suffice"):
            step(x, y, 0.1)
        step(x, y, 0.1)
        assert step.mechanism == "eager"
    else:
        with pytest.raises(torch.OutOfMemoryError):
            step(x, y, 0.1)


def test_memory_does_not_grow_with_the_cells_of_a_process() -> None:
    """Some versions of PyTorch keep a workspace for each stream that has captured, of which there are 32."""
    model, found = network("lenet-300-100"), []
    for _ in range(40):
        assert steps(copy.deepcopy(model), 6).mechanism == "cuda-graph"
        torch.cuda.empty_cache()
        found.append(torch.cuda.memory_allocated())
    assert max(found[1:]) - found[0] < 8e6


@pytest.mark.parametrize(
    ("precision", "channels_last"), [("float32", False), ("bfloat16", False), ("tf32", True)], ids=lambda value: value
)
def test_tf32_implies_channels_last(precision: str, channels_last: bool) -> None:
    """Weights, inputs and outputs of convolutions, in captured and eager training and in evaluation."""
    layouts: set[bool] = set()

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        for tensor in (*inputs, module.weight, output):
            assert isinstance(tensor, Tensor)
            last = tensor.is_contiguous(memory_format=torch.channels_last)
            if last != tensor.is_contiguous():  # both for single pixels
                layouts.add(last)

    x, y = torch.zeros(64, 3, 8, 8, dtype=torch.uint8, device=CUDA), torch.zeros(64, dtype=torch.long, device=CUDA)
    colours = dataclasses.replace(data(), train_x=x, train_y=y, test_x=x[:8], test_y=y[:8])
    for cuda_graph in ("auto", False):
        model, settings = models.build("conv8", 3, 8, 10).to(CUDA), recipe(precision=precision, cuda_graph=cuda_graph)
        values = dataclasses.replace(settings.data, mean=(0.5,) * 3, std=(0.5,) * 3)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(note)
        layouts.clear()
        trained = train(model, {}, colours, dataclasses.replace(settings, data=values), seed=0)
        assert trained.mechanism == ("eager" if cuda_graph is False else "cuda-graph")
        assert layouts == {channels_last}


def test_the_check_of_a_capture_waits_a_few_times() -> None:
    step = steps(network(), graph_step.WARM_UP)
    x, y = torch.zeros(BATCH, 1, 8, 8, device=CUDA), torch.zeros(BATCH, dtype=torch.long, device=CUDA)
    before = Counts.now()
    step(x, y, 0.1)
    assert step.mechanism == "cuda-graph" and Counts.now().since(before).waits <= 8


def nodes(model: nn.Module, **changes: object) -> int:
    steps(model, 6, **changes)
    return Counts.now().graph_nodes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_counters_and_casts_take_one_kernel_for_all_layers(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = nodes(network(), precision=precision, channels_last=True)
    monkeypatch.setattr(graph_step.FewerKernels, "run", lambda self, forward: backward(forward()))
    plain = nodes(network(), precision=precision, channels_last=True)
    model = network()
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    layers = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.modules())
    assert plain - ours >= norms - 1 + (2 * layers - 4 if precision == "bfloat16" else 0)


def backward(loss: Tensor) -> Tensor:
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def test_an_epoch_needs_no_launch_but_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and learning rates are inside the graphs, which contain several steps each; nor is a precision set."""
    images, settings = 64 * BATCH, recipe(epochs=40, evaluate_every=40)
    counts: list[Counts] = []
    switches, real = [0], graph_step.float32_products

    def switching(products: str) -> AbstractContextManager[None]:
        switches[-1] += 1
        return real(products)

    class Noting(Callback):
        def epoch(self, epoch: Epoch, epochs: int) -> None:
            counts.append(Counts.now())
            switches.append(0)

    monkeypatch.setattr(graph_step, "float32_products", switching)
    train(network(), {}, data(images), settings, seed=0, callback=Noting())
    found = counts[5].since(counts[4])
    assert launches.in_a_graph(64) == 16 and found.graph_launches == 4
    assert found.launches + found.copies <= 30
    assert switches[0] and not switches[5]


def test_the_host_does_not_run_far_ahead_and_sleeps_while_it_waits() -> None:
    import time

    settings = recipe(epochs=2, evaluate_every=2)
    with device.seconds(graph=0.02):
        cpu, wall = time.process_time(), time.perf_counter()
        trained = train(network(), {}, data(64 * BATCH), settings, seed=0)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert trained.seconds == pytest.approx(wall, rel=0.2)
    assert wall > 2 and cpu < 0.6 * wall


def test_draws_of_a_captured_dropout_are_seeded_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(launches, "seed_draws", lambda seed, device: seeds.append(seed))
    train(nn.Sequential(nn.Dropout(0.1), network()), {}, data(), recipe(epochs=20, evaluate_every=20), seed=0)
    assert len(set(seeds)) == 20 * 64 // BATCH
    seeds.clear()
    train(network(), {}, data(), recipe(epochs=20, evaluate_every=20), seed=0)
    assert len(set(seeds)) == graph_step.WARM_UP + 1


def test_no_capture_allocates_where_cuda_forbids_it() -> None:
    before = Counts.now()
    steps(network("resnet20"), 6)
    assert Counts.now().since(before).forbidden == 0


@pytest.mark.parametrize("method", ["edge-popup", "gem-miner"])
def test_the_search_of_a_subnetwork_is_captured(method: str) -> None:
    """Its choice of weights reads no value from the device."""
    scorer, model = registry.get(method, {}), network()
    assert searches(scorer)
    weights = prunable(model)
    kept = sum(weight.numel() for weight in weights.values()) // 2
    assert steps(SearchNetwork(model, weights, scorer, kept), 6).mechanism == "cuda-graph"


def test_the_measurements_of_a_gpu_tell_one_step_in_a_graph_from_several() -> None:
    x, y = torch.zeros(64, 3, 32, 32, dtype=torch.uint8, device=CUDA), torch.zeros(64, dtype=torch.long, device=CUDA)
    images = InMemoryDataset("made-up", x, y, x[:8], y[:8], 10, "", "")
    found = []
    for several in (False, True):
        trainings = Trainings(1, images, cifar_recipe(batch_size=4), several)
        trainings.run(40)
        before, steps = Counts.now(), trainings.steps
        trainings.run(32)
        found.append(Counts.now().since(before).graph_launches / (trainings.steps - steps))
    assert found == [1, 1 / 16] and launches.CAPTURE_STEPS == 50
