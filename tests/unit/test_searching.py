"""Masks searched before training: exact counts, resuming in the search and after it, costs, and refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pai_bench
from pai_bench.cells import Cell, kept_count
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.experiment.searching import SearchNetwork
from pai_bench.results import Result
from pai_bench.scoring import registry
from pai_bench.sweep import single_cell
from pai_bench.sweep.planning.checks import check
from pai_bench.sweep.planning.request import Request, expand
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import RoundRobin

from . import killing
from .test_checkpoints import StopInTraining

METHODS = ("edge-popup", "gem-miner:every=1,epochs=3")


def run(method: str, sparsity: float = 0.9, **changes: Any) -> Run:
    recipe = killing.recipe(**{"epochs": 2, "batch_size": 512, **changes})
    return Run(Cell(method, "digits", "lenet-300-100", sparsity, 0), recipe)


def numbers(result: Result) -> tuple[Any, ...]:
    names = ("accuracy", "status", "curve", "mask_hash", "layers", "saw", "effective_sparsity")
    return tuple(getattr(result, name) for name in names)


class StopInSearch(StopInTraining):
    """A callback that requests a stop after a number of steps of the search."""

    def tick(self) -> None:
        self.ticks = getattr(self, "ticks", 0) + (self.phases[-1] == "searching")
        if self.ticks == self.stop:
            self.checkpoints.request_stop()


@pytest.fixture(scope="module")
def runner() -> CellRunner:
    return CellRunner(device="cpu")


@pytest.fixture(scope="module")
def whole(runner: CellRunner) -> dict[str, Result]:
    """The results of undisturbed cells."""
    return {method: runner.run(run(method)).result for method in METHODS}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_counts_are_exact_and_the_cost_of_the_search_is_recorded(method: str, whole: dict[str, Result]) -> None:
    result = whole[method]
    epochs = 3 if method.startswith("gem") else 2
    assert result.status == "ok" and result.n_kept == kept_count(0.9, result.n_prunable)
    assert result.saw == f"{epochs} epochs" and not result.mask_updates and len(result.curve) == 2
    if method == "edge-popup":  # the same density in all layers
        assert all(abs(layer.kept - 0.1 * layer.size) <= 1 for layer in result.layers)
    costs = result.costs
    assert costs["score_forward_passes"] == costs["score_backward_passes"] == 3 * epochs
    assert costs["score_images"] == costs["score_labels"] == 1437 and (costs["score_seconds"] or 0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_stops_in_the_search_and_after_it_change_no_bit(
    method: str, tmp_path: Path, runner: CellRunner, whole: dict[str, Result]
) -> None:
    last_update = 9 if method.startswith("gem") else 6
    for attempt, (kind, stop) in enumerate(((StopInSearch, 2), (StopInSearch, last_update - 3), (StopInTraining, 2))):
        checkpoints = Checkpoints(tmp_path, str(attempt))
        with pytest.raises(Interrupted):
            runner.run(run(method), kind(checkpoints, stop), checkpoints)
    result = runner.run(run(method), None, Checkpoints(tmp_path, "last")).result
    assert numbers(result) == numbers(whole[method])
    assert result.costs["score_images"] == 1437 and len(result.provenance["earlier_attempts"]) == 1


@pytest.mark.slow
def test_packed_cells_search_their_own_masks(runner: CellRunner, whole: dict[str, Result]) -> None:
    pack: RoundRobin[str, Outcome] = RoundRobin(torch.device("cpu"))
    for method in METHODS:
        pack.add(method, runner.running(run(method)))
    for method, outcome in pack.drain().items():
        assert isinstance(outcome, Outcome) and numbers(outcome.result) == numbers(whole[method])


@pytest.mark.slow
def test_controls_apply_to_the_masks_that_are_found(runner: CellRunner, whole: dict[str, Result]) -> None:
    shuffled = runner.run(run("edge-popup:control=shuffle")).result
    assert shuffled.layers == whole["edge-popup"].layers and shuffled.mask_hash != whole["edge-popup"].mask_hash
    other = runner.run(run("edge-popup:control=reinit")).result
    assert other.mask_hash == whole["edge-popup"].mask_hash and other.init_hash != whole["edge-popup"].init_hash
    with pytest.raises(PaiBenchError, match="edge-popup has no control invert"):
        expand(Request(("edge-popup:control=invert",), sparsities=(0.9,), seeds=(0,)))


def test_a_search_changes_scores_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    method: Any = registry.get("gem-miner")
    scores = {name: torch.rand_like(w) for name, w in model.named_parameters() if w.dim() > 1}
    network = SearchNetwork(model, scores, method, 10)
    assert [name for name, _ in network.named_parameters()] == ["0/weight", "3/weight"]
    network.get_parameter("0/weight").data.add_(1)
    before = {name: buffer.clone() for name, buffer in network.network.named_buffers()}
    network(torch.randn(8, 4)).sum().backward()
    assert network.get_parameter("0/weight").max() == 1  # projected
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
    changed = {name for name, buffer in network.network.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_unsupported_uses_of_searches_are_refused(tmp_path: Path, runner: CellRunner) -> None:
    for function in (pai_bench.prune, pai_bench.score):
        with pytest.raises(PaiBenchError, match="edge-popup searches its masks in a training"):
            function(nn.Linear(3, 2), [(torch.ones(2, 3), torch.tensor([0, 1]))], "edge-popup", sparsity=0.5)
    options = single_cell.Options("digits", "conv8", None, (), 0, None, (), as_json=False)
    with pytest.raises(PaiBenchError, match="gem-miner searches its masks in a training"):
        single_cell.prune(options, "gem-miner", "0.9", tmp_path / "masks.npz")
    with pytest.raises(PaiBenchError, match="gem-miner would never change its masks in a training of 6 steps"):
        check([run("gem-miner")], None)
    checked = check([run("gem-miner:epochs=6")], None)
    assert checked.runs and run("gem-miner:epochs=6").search_epochs() == 6
    for scoring, cause in (({"effective": True}, "their effective weights"), ({"data": "noise"}, "training batches")):
        recipe = run("edge-popup").recipe
        altered = dataclasses.replace(recipe, scoring=dataclasses.replace(recipe.scoring, **scoring))  # type: ignore[arg-type]
        with pytest.raises(PaiBenchError, match=cause):
            check([Run(run("edge-popup").cell, altered)], None)
    with pytest.raises(PaiBenchError, match="the search of edge-popup:lr=1e\\+30 has diverged"):
        runner.run(run("edge-popup:lr=1e+30"))
