"""Masks that change during training: exact counts, resuming at every step, and the record in the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import pai_bench
from pai_bench.cells import Cell, kept_count
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.results import Result
from pai_bench.results.measures import SCORING
from pai_bench.scoring import Length, MaskChange, Moment, Problem, Rewinding, registry
from pai_bench.sweep import single_cell
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import RoundRobin
from pai_bench.training.mask_updates import Changing, MaskUpdates, changed, update_steps
from pai_bench.training.rates import recipe_epochs

from . import killing
from .test_checkpoints import StopInTraining

STEPS = 6
"""Training steps of a cell: two epochs of three steps."""
METHODS = ("rigl:every=2,stop=1", "set:every=2,stop=1", "set:every=2,stop=1,drops=constant", "gmp:every=2,stop=1")


def run(method: str = METHODS[0], sparsity: float = 0.9, **changes: Any) -> Run:
    return Run(
        Cell(method, "digits", "lenet-300-100", sparsity, 0),
        killing.recipe(**{"epochs": 2, "batch_size": 512, **changes}),
    )


@pytest.fixture
def runner() -> CellRunner:
    """A runner that shares no first training with another test."""
    return CellRunner(device="cpu")


def resumed(runner: CellRunner, method: str, folder: Path, stops: Sequence[int]) -> Outcome:
    for attempt, stop in enumerate(stops):
        checkpoints = Checkpoints(folder, str(attempt))
        with pytest.raises(Interrupted):
            runner.run(run(method), StopInTraining(checkpoints, stop), checkpoints)
    return runner.run(run(method), None, Checkpoints(folder, "last"))


def test_the_builtin_methods_that_change_masks() -> None:
    searched = {"edge-popup", "gem-miner"}
    changing = set(registry.names()) - set(pai_bench.list_methods()) - {"small-dense"} - searched
    assert changing == {"rigl", "set", "gmp", "after-training", "ltr", "lr-rewinding"}
    assert not searched & set(registry.affordable_names())
    assert {registry.sees(name) for name in searched} == {"training"} and all(map(registry.has_controls, searched))
    assert not changing & set(registry.default_names())
    assert changing & set(registry.affordable_names()) == {"rigl", "set", "gmp"}
    assert {registry.sees(name) for name in changing} == {"training"}
    assert not any(registry.has_controls(name) for name in changing)


def scoring_counts_of(result: Result) -> list[float | None]:
    return [result.costs[name] for name in SCORING]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_counts_are_exact_after_every_update_and_resuming_changes_no_bit(
    method: str, tmp_path: Path, runner: CellRunner
) -> None:
    whole = runner.run(run(method))
    result = whole.result
    target = kept_count(0.9, result.n_prunable)
    updates = result.mask_updates
    assert result.status == "ok" and result.n_kept == target == sum(int(m.sum()) for m in whole.masks.values())
    assert updates["step"] == ([2, 4] if method[:3] != "gmp" else [2, 4, 6])
    if method.startswith("gmp"):
        first = result.n_prunable - target
        assert updates["kept"] == [target + round(first * (1 - p / 3) ** 3) for p in (1, 2, 3)]
        assert updates["grown"] == [0, 0, 0] and result.saw == "2 epochs"
    else:
        assert updates["kept"] == [target, target] and min(updates["grown"]) > 0 and result.saw == "2 epochs"
    assert scoring_counts_of(result) == [updates["step"][-1]] * 2 + [1437] * 2
    # Before, in and after steps in which masks change.
    again = resumed(runner, method, tmp_path, (1, 1, 2))
    for name in ("accuracy", "curve", "mask_hash", "layers", "effective_sparsity", "mask_updates", "saw", "costs"):
        if name != "costs":
            assert getattr(again.result, name) == getattr(result, name), name
    assert again.result.costs["flops_sparse"] == result.costs["flops_sparse"]
    assert all((again.masks[name] == mask).all() for name, mask in whole.masks.items())


@pytest.mark.slow
def test_packed_cells_change_their_own_masks(runner: CellRunner) -> None:
    alone = {method: runner.run(run(method)).result for method in METHODS[:2]}
    pack: RoundRobin[str, Outcome] = RoundRobin(torch.device("cpu"))
    for method in alone:
        pack.add(method, runner.running(run(method)))
    for method, outcome in pack.drain().items():
        assert isinstance(outcome, Outcome)
        assert outcome.result.mask_hash == alone[method].mask_hash
        assert outcome.result.curve == alone[method].curve


@pytest.mark.slow
def test_the_cached_masks_stay_those_of_the_start(runner: CellRunner) -> None:
    first, second = (runner.run(run(METHODS[0])).result for _ in range(2))
    assert first.mask_hash == second.mask_hash and first.curve == second.curve


@pytest.mark.slow
def test_fixed_masks_have_no_updates_and_results_record_the_data_that_methods_saw(runner: CellRunner) -> None:
    assert [runner.run(run(name, epochs=1)).result.saw for name in ("random", "snip")] == ["nothing", "labels"]
    assert runner.run(run("snip", epochs=1)).result.mask_updates == {}


@pytest.mark.parametrize("function", [pai_bench.prune, pai_bench.score])
def test_prune_and_score_refuse_methods_that_change_masks(function: Any) -> None:
    with pytest.raises(PaiBenchError, match="rigl changes its masks during training"):
        function(torch.nn.Linear(3, 2), [(torch.ones(2, 3), torch.tensor([0, 1]))], "rigl", sparsity=0.5)


def test_the_command_prune_refuses_methods_that_change_masks(tmp_path: Path) -> None:
    options = single_cell.Options("digits", "conv8", None, (), 0, None, (), as_json=False)
    with pytest.raises(PaiBenchError, match="gmp:every=5 changes its masks during training"):
        single_cell.prune(options, "gmp:every=5", "0.9", tmp_path / "masks.npz")
    assert not (tmp_path / "masks.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rigl:every=50", "gmp:every=50"])
def test_a_training_without_an_update_is_refused(method: str, runner: CellRunner) -> None:
    with pytest.raises(PaiBenchError, match=f"{method} would never change its masks in a training of {STEPS} steps"):
        runner.run(run(method))


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ({"every": 0}, "every must be more than 0"),
        ({"stop": 1.5}, "stop must be more than 0 and at most 1, not 1.5"),
        ({"stop": 0.0}, "stop must be"),
    ],
)
@pytest.mark.parametrize("name", ["rigl", "set", "gmp"])
def test_wrong_schedules_are_refused(name: str, spec: dict[str, Any], cause: str) -> None:
    with pytest.raises(PaiBenchError, match=f"{name}:{cause}"):
        registry.get(name, spec)


def test_gmp_starts_before_it_stops_and_set_has_two_schedules() -> None:
    with pytest.raises(PaiBenchError, match="gmp:start must be from 0 to below stop"):
        registry.get("gmp", {"start": 0.8})
    with pytest.raises(PaiBenchError, match="set:drops must be 'cosine' or 'constant'"):
        registry.get("set", {"drops": "linear"})


def moment(step: int, seed: int = 0) -> Moment:
    generator = torch.Generator().manual_seed(seed)
    masks = {"a": torch.rand(6, 5, generator=generator) < 0.5, "b": torch.rand(40, generator=generator) < 0.3}
    weights = {name: torch.randn(mask.shape, generator=generator) * mask for name, mask in masks.items()}
    gradients = {name: torch.randn(mask.shape, generator=generator) for name, mask in masks.items()}
    kept = sum(int(mask.sum()) for mask in masks.values())
    return Moment(step, Length(100, 10), weights, gradients, masks, kept, torch.Generator().manual_seed(step))


def test_rigl_moves_the_smallest_weights_to_the_largest_gradients() -> None:
    now = moment(10)
    method: Any = registry.get("rigl", {"every": 10})
    found = changed(now.masks, method.update_masks(now))
    for name, mask in now.masks.items():
        dropped, grown = mask & ~found[name], found[name] & ~mask
        assert int(found[name].sum()) == int(mask.sum()) and int(dropped.sum()) == int(grown.sum()) > 0
        stay = mask & found[name]
        assert now.weights[name].abs()[dropped].max() < now.weights[name].abs()[stay].max()
        slope = now.gradients[name].abs()
        assert slope[grown].min() >= slope[~mask & ~grown].max()


def test_set_draws_the_same_weights_at_the_same_step_only() -> None:
    method = registry.get("set", {"every": 10})
    first, again, later = (
        changed(moment(10).masks, method.update_masks(m)) for m in (moment(10), moment(10), moment(11))
    )  # type: ignore[attr-defined]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], later[name]) for name in first)


@pytest.mark.slow
def test_masks_that_miss_the_sparsity_and_schedules_outside_the_training_are_refused(
    monkeypatch: pytest.MonkeyPatch, runner: CellRunner
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Lossy:
        """Removes one weight too many."""

        starts_dense: ClassVar[bool] = True

        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            return dict(problem.weights)

        def update_steps(self, length: Length) -> Sequence[int]:
            return [length.steps]

        def update_masks(self, moment: Moment) -> MaskChange:
            return MaskChange({name: w.abs() for name, w in moment.weights.items()}, moment.kept - 1)

    monkeypatch.setitem(registry._given, "lossy", Lossy)
    with pytest.raises(PaiBenchError, match="method lossy keeps 5019 weights at the end of training, not 5020"):
        runner.run(run("lossy", epochs=1))
    outside = Changing(Lossy(), "lossy", 1, 2)
    monkeypatch.setattr(Lossy, "update_steps", lambda self, length: [0, 3])
    with pytest.raises(PaiBenchError, match="lossy would change its masks in step 0"):
        update_steps(outside, Length(3, 3))


@pytest.mark.slow
def test_a_training_that_diverges_is_a_result_with_the_masks_at_that_point(runner: CellRunner) -> None:
    result = runner.run(run("gmp:every=2,stop=1", lr=1e30)).result
    assert result.status == "diverged" and result.n_kept > kept_count(0.9, result.n_prunable)


CYCLES = ("ltr:cycles=2,early=0.3", "lr-rewinding:cycles=2,early=0.3", "after-training:tuning=0.5")


@pytest.mark.slow
@pytest.mark.parametrize("method", CYCLES)
def test_cycles_prune_at_their_ends_and_resume_to_the_bit(method: str, tmp_path: Path, runner: CellRunner) -> None:
    """Two epochs of three steps, then cycles of the second epoch."""
    whole = runner.run(run(method))
    result = whole.result
    target, size = kept_count(0.9, result.n_prunable), result.n_prunable
    many = method != CYCLES[2]
    assert result.n_kept == target and [epoch.epoch for epoch in result.curve] == list(range(1, 5 if many else 4))
    assert result.mask_updates["step"] == ([6, 9] if many else [6])
    assert result.mask_updates["kept"] == ([round(size * (target / size) ** 0.5), target] if many else [target])
    assert result.saw == ("3 epochs" if many else "2 epochs")
    assert scoring_counts_of(result) == [9 if many else 6] * 2 + [1437] * 2
    # In the first training, in its last evaluation, and in the last cycle.
    again = resumed(CellRunner(device="cpu"), method, tmp_path, (4, 3, 2))
    for name in ("accuracy", "curve", "mask_hash", "mask_updates", "saw"):
        assert getattr(again.result, name) == getattr(result, name), name


def states(method: str, runner: CellRunner, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Tensor]]]:
    """The tensors before and after each prune, and at the beginning of the second epoch."""
    seen: dict[str, list[dict[str, Tensor]]] = {"early": [], "before": [], "after": []}
    before, after = MaskUpdates.before, MaskUpdates.after

    def copied(updates: MaskUpdates) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in updates._tensors.items()}

    def spied_before(updates: MaskUpdates, epoch: int) -> None:
        if epoch == 1:
            seen["early"].append(copied(updates))
        before(updates, epoch)

    def spied_after(updates: MaskUpdates, epoch: int) -> None:
        count, old = len(updates.past), copied(updates)
        after(updates, epoch)
        if len(updates.past) > count:
            seen["before"].append(old)
            seen["after"].append(copied(updates) | {f"mask {n}": m.clone() for n, m in updates._masks.items()})
            buffers = [state["momentum_buffer"] for state in updates._one_step.optimizer.state.values()]
            assert not any(bool(buffer.any()) for buffer in buffers)

    monkeypatch.setattr(MaskUpdates, "before", spied_before)
    monkeypatch.setattr(MaskUpdates, "after", spied_after)
    runner.run(run(method))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("method", CYCLES)
def test_weights_return_to_the_early_epoch_or_stay(
    method: str, runner: CellRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = states(method, runner, monkeypatch)
    early = seen["early"][0]
    for before, after in zip(seen["before"], seen["after"], strict=True):
        masks = {name.removeprefix("mask "): mask for name, mask in after.items() if name.startswith("mask ")}
        source = early if method.startswith("ltr") else before
        for name, tensor in source.items():
            assert torch.equal(after[name], tensor * masks[name] if name in masks else tensor), name
        # The largest weights of the network that were still kept.
        pool = torch.cat([before[name].abs().flatten() for name in masks])
        kept = torch.cat([mask.flatten() for mask in masks.values()])
        assert pool[kept].min() >= pool[~kept].max()


def test_the_number_of_cycles_follows_from_the_density() -> None:
    ltr: Any = registry.get("ltr")
    assert [ltr.rewinding(160, density).cycles for density in (0.8, 0.64, 0.1, 0.02)] == [1, 2, 11, 18]
    assert ltr.rewinding(160, 0.1).epoch == 5 and ltr.rewinding(160, 0.1).weights
    rates: Any = registry.get("lr-rewinding", {"cycles": 3})
    assert rates.rewinding(160, 0.1).cycles == 3 and not rates.rewinding(160, 0.1).weights
    tuned: Any = registry.get("after-training")
    assert tuned.rewinding(160, 0.1).epoch == 120 and tuned.rewinding(160, 0.1).cycles == 1


def test_the_learning_rate_repeats_the_last_epochs_of_the_recipe() -> None:
    assert recipe_epochs(4, None) == [0, 1, 2, 3]
    assert recipe_epochs(4, Rewinding(2, 2, weights=True)) == [0, 1, 2, 3, 2, 3, 2, 3]


def test_cycles_of_no_training_are_refused() -> None:
    class Wrong:
        def rewinding(self, epochs: int, density: float) -> Rewinding:
            return Rewinding(0 if density > 0.5 else 1, epochs, weights=True)

    method: Any = Wrong()
    for kept, cause in ((9, "would train again 0 times"), (1, "would train again 1 times from epoch 3 on")):
        with pytest.raises(PaiBenchError, match=cause):
            Changing(method, "wrong", kept, 10).rewinding(3)
    ltr: Any = registry.get("ltr", {"early": 1.0})
    assert ltr.rewinding(1, 0.5).epoch == 0 and ltr.rewinding(8, 0.5).epoch == 7
