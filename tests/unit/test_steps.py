"""Tests of alternative training steps: they may change rounding and speed, and nothing else."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pai_bench import models, recipes
from pai_bench.core import precision as arithmetic
from pai_bench.core.dispatch import DispatchMode
from pai_bench.core.randomness import host_random_state
from pai_bench.recipes import Train
from pai_bench.training import graph_step as steps
from pai_bench.training import launches, loop
from pai_bench.training.loop import train
from pai_bench.training.step import GraphStep, Step, make_step
from tests.unit import killing
from tests.unit.graph_device import Device, FakeStream

SETTINGS = dataclasses.replace(killing.recipe().train, batch_size=16)


def network() -> nn.Module:
    model = models.build("conv8", 1, 8, 10)
    models.initialise(model, "torch", 3)
    return model


def masks(model: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: torch.rand(p.shape, generator=generator) < 0.3 for n, p in model.named_parameters() if p.dim() > 1}


def batches(count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    for _ in range(count):
        yield torch.randn(16, 1, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
def test_bfloat16_trains_float32_weights_under_masks(channels_last: bool) -> None:
    settings = killing.recipe(epochs=6, precision="bfloat16", channels_last=channels_last)
    model = network()
    trained = train(model, masks(model), killing.small_data(1024), settings, seed=0)
    assert not trained.diverged and trained.accuracy > 0.6
    for name, mask in masks(model).items():
        weight = model.get_parameter(name)
        assert weight.dtype == torch.float32 and not weight[~mask].any() and weight[mask].all()


def run(settings: Train, double: bool = True) -> torch.Tensor:
    model = network().double() if double else network()
    step = make_step(arithmetic.laid_out(model, settings.channels_last), masks(model), settings)
    for x, y in batches(5):
        step(x.double() if double else x, y, 0.1)
    return weights(model)


@pytest.mark.slow
def test_channels_last_changes_only_rounding() -> None:
    torch.testing.assert_close(
        run(dataclasses.replace(SETTINGS, channels_last=True)), run(SETTINGS), rtol=1e-9, atol=1e-12
    )


@pytest.mark.slow
def test_bfloat16_changes_results_and_a_graph_needs_a_gpu() -> None:
    plain = run(SETTINGS, double=False)
    assert not torch.equal(run(dataclasses.replace(SETTINGS, precision="bfloat16"), double=False), plain)
    assert torch.equal(run(dataclasses.replace(SETTINGS, cuda_graph=True), double=False), plain)
    assert type(make_step(network(), {}, dataclasses.replace(SETTINGS, cuda_graph=True))) is Step


class Operators(DispatchMode):
    """A mode that counts the operators called in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_masks_add_one_operator_per_step() -> None:
    def operators(sparse: bool) -> Counter[str]:
        model = network()
        step = Step(model, masks(model) if sparse else {}, SETTINGS)
        first, second = batches(2)
        step(*first, 0.1)
        with Operators() as operators:
            step(*second, 0.1)
        return operators.counts

    assert operators(True) - operators(False) == Counter({"aten._foreach_mul_": 1})
    assert not operators(False) - operators(True)


@pytest.mark.slow
def test_no_step_synchronises_with_the_device() -> None:
    def reads(steps: int) -> int:
        model = network()
        with Operators() as operators:
            train(model, masks(model), killing.small_data(64 * steps), killing.recipe(epochs=1), seed=0)
        return operators.counts["aten._local_scalar_dense"]

    assert reads(8) == reads(2) > 0


def test_product_precision_is_set_inside_and_restored_outside() -> None:
    backends = torch.backends

    def now() -> list[object]:
        found: list[object] = [
            backend.fp32_precision for backend in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
        ]
        # Models read the old switches too (to turn cuDNN off), which raises where they do not agree with the new ones.
        with backends.cudnn.flags(enabled=False, allow_tf32=backends.cudnn.allow_tf32):
            return [*found, backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32]

    before = now()
    with pytest.raises(ZeroDivisionError), arithmetic.float32_products("tf32"):
        assert now() == ["tf32"] * 3 + [True] * 2
        with arithmetic.float32_products("ieee"):
            assert now() == ["ieee"] * 3 + [False] * 2
        assert now() == ["tf32"] * 3 + [True] * 2
        raise ZeroDivisionError
    assert now() == before
    backends.cuda.matmul.fp32_precision = "tf32"  # by the new switch alone: the old one cannot be read
    try:
        with arithmetic.float32_products("ieee"):
            assert now() == ["ieee"] * 3 + [False] * 2
        assert backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        backends.cuda.matmul.allow_tf32, backends.cuda.matmul.fp32_precision = False, before[0]
    assert now() == before


def test_a_layer_may_have_its_first_gradient_later_than_others() -> None:
    """The result equals the plain optimiser's bit for bit, for instance with randomly dropped layers."""

    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self.first, self.now_and_then, self.last = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            x = self.first(x.flatten(1)).relu()
            return self.last(self.now_and_then(x) if self.calls % 3 == 0 else x)

    torch.manual_seed(0)
    ours, plain = Skipping(), Skipping()
    plain.load_state_dict(ours.state_dict())
    masks = {"now_and_then.weight": torch.rand(8, 8) > 0.5}
    step = Step(ours, masks, killing.recipe().train)
    train = killing.recipe().train
    assert train.momentum
    optimizer = torch.optim.SGD(
        plain.parameters(), 0.1, train.momentum, weight_decay=train.weight_decay, nesterov=train.nesterov, fused=False
    )
    with torch.no_grad():
        plain.now_and_then.weight.masked_fill_(~masks["now_and_then.weight"], 0)
    for _ in range(9):
        x, y = torch.rand(16, 1, 8, 8), torch.randint(0, 10, (16,))
        step(x, y, 0.1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        if plain.now_and_then.weight.grad is not None:
            plain.now_and_then.weight.grad.mul_(masks["now_and_then.weight"])
        optimizer.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
    assert not ours.now_and_then.weight[~masks["now_and_then.weight"]].any()


def test_precision_is_part_of_the_fingerprint_except_at_its_default() -> None:
    recipe = killing.recipe()
    assert "precision" not in recipe.identity()["train"] and recipe.values()["train"]["precision"] == "float32"
    changed = [
        killing.recipe(precision="bfloat16"),
        killing.recipe(channels_last=True),
        killing.recipe(cuda_graph=True),  # of results of earlier versions
    ]
    assert len({recipes.fingerprint(other.identity()) for other in (recipe, *changed)}) == 4
    mechanism = killing.recipe(cuda_graph=False)
    assert recipe.train.cuda_graph == "auto" and mechanism.identity() == recipe.identity()
    assert dict(recipes.load("quick", "digits", "conv8").sources)["train.precision"] == "default"


def both(
    device: Device, short: tuple[int, ...] = (6,), rate: Callable[[int], float] = lambda number: 0.1 / (number + 1)
) -> tuple[GraphStep, bool]:
    """Run a graph step on batches, some of them short; return it, and True if it equals the plain step."""
    ours, theirs = nn.Sequential(nn.Dropout(0.1), network()), nn.Sequential(nn.Dropout(0.1), network())
    graph, plain = device.of(GraphStep(ours, masks(ours), SETTINGS)), Step(theirs, masks(theirs), SETTINGS)
    for step in (graph, plain):
        torch.manual_seed(0)
        for number, (x, y) in enumerate(batches(9 + len(short))):
            count = 7 if number in short else 16
            step(x[:count], y[:count], rate(number))
    return graph, torch.equal(weights(ours), weights(theirs)) and torch.equal(graph.total, plain.total)


@pytest.mark.slow
def test_a_graph_step_equals_the_eager_step(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    graph, same = both(device)
    assert same and graph.mechanism == "cuda-graph"
    assert device.replays == [16] * (9 - steps.WARM_UP)


@pytest.mark.slow
def test_a_step_is_captured_while_the_learning_rate_warms_up_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with the rate 0 changes no weight, and the comparison of the replay must accept that."""
    device = Device(monkeypatch)
    graph, same = both(device, rate=lambda number: 0.0 if number <= steps.WARM_UP else 0.01 * number)
    assert same and graph.mechanism == "cuda-graph" and device.replays == [16] * (9 - steps.WARM_UP)


@pytest.mark.slow
def test_batches_of_each_size_have_their_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    graph, same = both(device, short=(1, 4, 5, 8, 10, 13))
    assert same and graph.mechanism == "cuda-graph"
    assert Counter(device.replays) == {16: 9 - steps.WARM_UP, 7: 6 - steps.WARM_UP}


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "error"), [(1.1, None), (1.0, "operation not permitted when stream is capturing")])
def test_a_graph_that_fails_or_differs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, factor: float, error: str | None
) -> None:
    device = Device(monkeypatch, factor, error)
    with pytest.warns(RuntimeWarning, match="no CUDA graph: " + (error or "the replayed step differs")):
        graph, same = both(device)
    assert same and graph.mechanism == "eager"
    assert len(device.replays) == (1 if error is None else 0)


@pytest.mark.slow
@pytest.mark.parametrize(("dropout", "channels_last"), [(0.0, False), (0.0, True), (0.5, False)])
@pytest.mark.parametrize(("images", "batch_size"), [(70, 16), (65, 16), (12, 16)])
def test_a_training_from_tables_equals_the_ordinary_one(
    monkeypatch: pytest.MonkeyPatch, dropout: float, channels_last: bool, images: int, batch_size: int
) -> None:
    """With whole, short and merged last batches, and several steps in a graph."""
    recipe = killing.recipe(epochs=6, batch_size=batch_size, evaluate_every=3, channels_last=channels_last)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, padding=2, flip=True))

    def trained() -> tuple[torch.Tensor, object]:
        model = nn.Sequential(nn.Dropout(dropout), network())
        found = train(model, masks(model), killing.small_data(images), recipe, seed=0)
        return weights(model), (found.accuracy, found.curve, found.mechanism)

    plain, (*told, mechanism) = trained()
    assert mechanism == "eager"
    device = Device(monkeypatch)
    monkeypatch.setattr(launches, "CAPTURE_STEPS", 1)
    monkeypatch.setattr(loop, "make_step", lambda *arguments: device.of(GraphStep(*arguments)))
    ours, (*found, mechanism) = trained()
    assert mechanism == "cuda-graph" and torch.equal(ours, plain) and found == told
    several = images // batch_size * batch_size
    assert (several in device.replays) == (dropout == 0 and images > batch_size)


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.0, 16), (0.06, 16), (0.1, 10), (0.4, 2), (0.6, 1), (5.0, 1)],
    ids=lambda value: str(value),
)
def test_a_launch_takes_at_most_a_second(seconds: float, size: int) -> None:
    """Checkpoints and stops must wait for its end."""

    class Slow:
        several = True
        device = torch.device("cpu")

        def add_state(self, tensor: torch.Tensor) -> None:
            pass

        def replay_seconds(self, key: tuple[int, int]) -> float | None:
            return seconds if key[0] == 1 else None

    class Loader:
        batch_size = 16

        def __len__(self) -> int:
            return 64

        def images(self, index: int) -> int:
            return 16

    class Tables:
        step = torch.zeros(1)

        def fill(self, epoch: int, step: int, rates: list[float]) -> None:
            pass

    schedule = launches.Schedule(lambda epoch, step: 0.1, [64] * 20, 0)
    made: Any = launches.TableLaunches(Slow(), Loader(), Tables(), schedule)  # type: ignore[arg-type]
    assert launches.LAUNCH_SECONDS == 1
    found = [launch.steps for launch in made.epoch(0, 0)]
    assert found[0] == size and sum(found) == 64


@pytest.mark.parametrize(("seconds", "ahead"), [(None, 4), (0.01, 4), (0.3, 3), (0.9, 1), (5.0, 1)], ids=str)
def test_the_host_is_about_a_second_ahead_of_the_device(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, ahead: int
) -> None:
    """More of it would delay a stop, and without any launches ahead the device would be idle between short ones."""
    reached: list[int] = []
    numbers = iter(range(9))

    class Pending:
        def __init__(self) -> None:
            self.number = next(numbers)

        def record(self) -> None:
            pass

        def query(self) -> bool:
            return self.number in reached

    monkeypatch.setattr(torch.cuda, "Event", Pending)
    queue = launches.Queue(torch.device("cuda"))

    def pause() -> Iterator[None]:
        yield

    for _ in range(ahead):
        assert list(queue.room(pause)) == []
        queue.add(seconds)
    waiting = queue.room(pause)
    for _ in range(3):
        next(waiting)
    reached.append(0)
    assert list(waiting) == []
    queue.add(seconds)
    assert next(queue.room(pause)) is None


def test_a_device_without_a_queue_has_room() -> None:
    queue = launches.Queue(torch.device("cpu"))
    for _ in range(9):
        queue.add(None)
    assert list(queue.room(lambda: iter([None]))) == []  # type: ignore[arg-type, return-value]


@pytest.mark.slow
def test_a_graph_with_random_draws_is_not_used_in_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    """All graphs read the offset of the random generator from one shared location."""
    device = Device(monkeypatch)
    device.current = FakeStream()
    with pytest.warns(RuntimeWarning, match="it draws random numbers"):
        graph, same = both(device)
    assert same and graph.mechanism == "eager" and not device.replays


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1)])
def test_random_draws_on_the_host_are_detected(draw: Callable[[], object]) -> None:
    before = host_random_state()
    assert host_random_state() == before
    draw()
    assert host_random_state() != before


@pytest.mark.slow
def test_a_network_that_draws_on_the_host_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    device, draws = Device(monkeypatch), iter(range(10))
    monkeypatch.setattr(steps, "host_random_state", lambda: next(draws))
    with pytest.warns(RuntimeWarning, match="no CUDA graph: it draws random numbers on the host"):
        step, same = both(device)
    assert same and step.mechanism == "eager" and not device.replays
