"""Checks of networks that torch.compile has compiled: by their builder, or by the recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pai_bench.core.precision import laid_out
from pai_bench.training import compilation, graph_step
from pai_bench.training.cooperative import RoundRobin
from pai_bench.training.loop import Trained, train, training
from pai_bench.training.step import make_step
from tests.cuda_stub.checks.check_steps import BATCH, CUDA, Reading, data, masks, network, recipe
from tests.cuda_stub.device import Counts

# The compiler looks at the gradients of signals between two graphs.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A backend without kernels of its own, which the stub could not launch; the numbers of operations per graph."""
    found: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        found.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", {"backend": backend})
    return found


def test_a_network_compiled_by_its_builder_is_captured() -> None:
    """A module within a compiled one, and one compiled in place."""
    inner = nn.Sequential(network(), torch.compile(nn.Linear(10, 10).to(CUDA), backend="eager", dynamic=False))
    in_place = network()
    in_place.compile(backend="eager", dynamic=False)
    for model in (inner, in_place):
        trained = train(model, {}, data(), recipe(epochs=3, precision="bfloat16"), seed=0)
        assert trained.mechanism == "cuda-graph"


def test_steps_of_a_compiled_recipe_are_captured_and_its_evaluations_are_not_compiled(compiled: list[int]) -> None:
    """A whole and a short batch are compiled, for all cells of the process."""
    settings = recipe(epochs=12, evaluate_every=12, compile=True)
    for seed in range(2):
        trained = train(network(), {}, data(64 + 4), settings, seed)
        assert trained.mechanism == "cuda-graph" and len(compiled) == 2


def test_packed_compiled_cells_are_captured(compiled: list[int]) -> None:
    pack: RoundRobin[int, Trained] = RoundRobin(CUDA)
    for seed in range(3):
        model = network()
        pack.add(seed, training(model, masks(model), data(), recipe(compile=True), seed))
    ended = [trained for trained in pack.drain().values() if isinstance(trained, Trained)]
    assert [trained.mechanism for trained in ended] == ["cuda-graph"] * 3 and len(compiled) == 1


def test_a_compiled_network_that_cannot_be_captured_is_compiled_in_eager_steps(compiled: list[int]) -> None:
    model = Reading()
    with pytest.warns(RuntimeWarning, match="no CUDA graph"):
        step = make_step(laid_out(model, False), {}, recipe(compile=True).train)
        x, y = torch.zeros(BATCH, 1, 8, 8, device=CUDA), torch.zeros(BATCH, dtype=torch.long, device=CUDA)
        for _ in range(graph_step.WARM_UP + 1):
            step(x, y, 0.1)
    assert step.mechanism == "eager" and compiled
    before = len(compiled)
    step(x, y, 0.1)
    assert len(compiled) == before
    torch.rand(4, device=CUDA)


def test_a_compiled_network_keeps_all_kernels_of_its_graph(compiled: list[int]) -> None:
    """A compiled step launches the kernels of the compiler: it keeps its weights and counters."""
    nodes = []
    for compile in (False, True):
        model = network()
        step = make_step(
            laid_out(model, True), {}, recipe(precision="bfloat16", channels_last=True, compile=compile).train
        )
        x, y = torch.zeros(BATCH, 1, 8, 8, device=CUDA), torch.zeros(BATCH, dtype=torch.long, device=CUDA)
        for _ in range(graph_step.WARM_UP + 1):
            step(x, y, 0.1)
        assert step.mechanism == "cuda-graph"
        nodes.append(Counts.now().graph_nodes)
    assert nodes[1] > nodes[0]
