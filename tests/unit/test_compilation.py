"""Tests of compiled training steps: the recipe alone decides on them, and earlier cells do not change the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pai_bench import models, recipes
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.searching import search_recipe
from pai_bench.scoring import registry
from pai_bench.scoring.searching import searches
from pai_bench.training import compilation
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import RoundRobin
from pai_bench.training.loop import Trained, train, training
from tests.unit import killing

COMPILED = killing.recipe(compile=True, warmup_epochs=0.0, batch_size=16)


class Tiny(nn.Module):
    """Layers that the compiler fuses, batch norm, and random draws."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.dropout(self.norm(self.first(x.flatten(1))).sigmoid()))
        return outputs


def network(dropout: float = 0.2) -> nn.Module:
    model = Tiny(dropout)
    models.initialise(model, "torch", 3)
    return model


def masks(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in model.named_parameters() if p.dim() > 1}


def weights(model: nn.Module) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A backend that needs no C++ compiler; the numbers of operations of the graphs that it has compiled."""
    compiled: list[int] = []
    new_process(monkeypatch, compiled)
    return compiled


def new_process(monkeypatch: pytest.MonkeyPatch, compiled: list[int]) -> None:
    """Forget what was compiled, as a new process would, by setting a new backend, to which compiled code belongs."""

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", {"backend": backend})


def test_compilation_is_part_of_the_fingerprint_and_of_the_name_where_it_is_on() -> None:
    recipe = recipes.load("quick", "digits", "conv8")
    (on,) = recipes.variants(recipe, (("train.compile", "true"),))
    assert on.name == "quick+train.compile=true" and on.identity()["train"]["compile"] is True
    assert not recipe.train.compile and "compile" not in recipe.identity()["train"]
    assert recipes.Recipe.from_dict(on.as_dict()).train.compile


def test_the_search_of_a_subnetwork_is_not_compiled() -> None:
    method = registry.get("edge-popup", {})
    assert searches(method) and not search_recipe(COMPILED, method).train.compile


@pytest.mark.slow
def test_a_recipe_compiles_every_step_and_no_evaluation(quick: list[int]) -> None:
    """A batch of 16 and one of 8; a second cell finds both compiled. The backend computes with the same kernels.

    Hooks that a measurement registers afterwards are called, which they are not after `model.compile()` in place.
    """
    data = killing.small_data(40)
    plain, ours, later = network(0.0), network(0.0), network(0.0)
    wanted = train(plain, masks(plain), data, dataclasses.replace(COMPILED, train=settings(compile=False)), seed=0)
    assert not quick
    found = train(ours, masks(ours), data, COMPILED, seed=0)
    assert len(quick) == 2 and found.mechanism == wanted.mechanism == "eager"
    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-5, atol=1e-6)
    assert list(ours.state_dict()) == list(plain.state_dict())
    train(later, masks(later), data, COMPILED, seed=0)
    assert len(quick) == 2 and torch.equal(weights(later), weights(ours))
    calls: list[nn.Module] = []
    ours.first.register_forward_hook(lambda module, inputs, outputs: calls.append(module))
    ours.train()(data.train_x[:16].float())  # the shape of a compiled batch
    assert calls == [ours.first]


def settings(**changes: object) -> recipes.Train:
    return dataclasses.replace(COMPILED.train, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_packed_and_stopped_cells_end_as_alone(
    quick: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = killing.small_data(32)

    def member(seed: int, checkpoints: Checkpoints | None = None, stop: int = 0) -> tuple[Tensor, Trained]:
        model = network()
        saved = checkpoints.load() if checkpoints is not None else None
        callback = killing.StopAfter(checkpoints, stop) if checkpoints is not None else None
        found = train(model, masks(model), data, COMPILED, seed, callback, checkpoints, saved)
        return weights(model), found

    alone = [member(seed) for seed in range(2)]
    models_, pack = [network(), network()], RoundRobin[int, Trained](torch.device("cpu"))
    for seed, model in enumerate(models_):
        pack.add(seed, training(model, masks(model), data, COMPILED, seed))
    ended = pack.drain()
    for seed, model in enumerate(models_):
        trained = ended[seed]
        assert isinstance(trained, Trained) and trained.curve == alone[seed][1].curve
        assert torch.equal(weights(model), alone[seed][0])
    for attempt in range(9):
        try:
            resumed = member(0, Checkpoints(tmp_path, f"a{attempt}"), 3)
        except Interrupted:
            new_process(monkeypatch, quick)
        else:
            break
    assert attempt >= 1 and torch.equal(resumed[0], alone[0][0]) and resumed[1].curve == alone[0][1].curve


@pytest.mark.slow
def test_results_do_not_depend_on_the_networks_that_were_compiled_before(quick: list[int]) -> None:
    """More of them than torch.compile keeps (8 by default), after which it would run networks without compiling."""
    data, first = killing.small_data(40), network(0.0)
    train(first, masks(first), data, COMPILED, seed=0)
    with torch._dynamo.config.patch(recompile_limit=3):
        for size in (17, 18):
            other = dataclasses.replace(COMPILED, train=settings(batch_size=size))
            train(network(0.0), {}, killing.small_data(size), other, seed=0)
        compiled, again = len(quick), network(0.0)
        assert compiled == 2 + 2
        train(again, masks(again), data, COMPILED, seed=0)
    assert len(quick) == compiled and torch.equal(weights(again), weights(first))


class Counting(Tiny):
    """A network whose forward depends on the number of its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + self.calls)


@pytest.mark.slow
def test_a_network_that_would_be_compiled_in_every_step_is_refused(
    quick: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "COMPILING_STEPS", 2)
    with pytest.raises(PaiBenchError, match="Counting was compiled again in 3 training steps"):
        train(Counting(), {}, killing.small_data(160), COMPILED, seed=0)
    assert len(quick) == 3


@pytest.mark.slow
def test_a_missing_compiler_is_named_and_memory_errors_keep_their_type(
    quick: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Callable[..., Any]:
        def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
            raise error

        return backend

    model = network()
    for error, expected, text in (
        (
            RuntimeError("\nNo working C++ compiler found"),
            PaiBenchError,
            "RuntimeError: No working C.*\n.*train.compile",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "out of memory"),
    ):
        monkeypatch.setattr(compilation, "BACKEND", {"backend": failing(error)})
        with pytest.raises(expected, match=text):
            train(model, {}, killing.small_data(16), COMPILED, seed=0)


@pytest.mark.slow
def test_code_of_the_default_backend_rounds_differently_and_repeats_itself() -> None:
    """The first cell compiles, the second one does not; the draws of both are functions of seed and step."""
    from torch._dynamo.utils import counters

    data, found = killing.small_data(32), []
    for _ in range(2):
        model, before = network(), counters["stats"]["unique_graphs"]
        train(model, masks(model), data, COMPILED, seed=0)
        found.append((weights(model), counters["stats"]["unique_graphs"] - before))
    (first, compiled), (second, again) = found
    assert (compiled, again) == (1, 0) and torch.equal(first, second)
    plain, ours = network(0.0), network(0.0)
    train(plain, masks(plain), data, dataclasses.replace(COMPILED, train=settings(compile=False)), seed=0)
    train(ours, masks(ours), data, COMPILED, seed=0)
    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-4, atol=1e-5)
    assert not torch.equal(weights(ours), weights(plain))
