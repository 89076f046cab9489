"""Dense trainings shared between cells of pruning after training: once, to the same bits, and never a fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.experiment import first_trainings
from pai_bench.experiment.first_trainings import FirstTrainings
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.results import Result
from pai_bench.results.cleanup import tidy
from pai_bench.sweep.execution.claims import Owner
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.execution.shared import shared_trainings
from pai_bench.sweep.planning.plan import Plan, PlannedRun, jobs
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import RoundRobin
from pai_bench.training.loop import _Progress

from . import killing
from .test_checkpoints import StopInTraining

LTR, RATES = "ltr:cycles=2,early=0.3", "lr-rewinding:cycles=1,early=0.3"


def run(method: str = "after-training:tuning=0.5", sparsity: float = 0.9, seed: int = 0) -> Run:
    recipe = killing.recipe(epochs=2, batch_size=512)
    return Run(Cell(method, "digits", "lenet-300-100", sparsity, seed), recipe)


def numbers(result: Result) -> tuple[Any, ...]:
    names = ("accuracy", "status", "curve", "mask_hash", "mask_updates", "saw", "layers", "effective_sparsity")
    return tuple(getattr(result, name) for name in names)


class Jumps(Callback):
    """The epochs that were trained, not taken over."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def epoch(self, epoch: results.Epoch, epochs: int) -> None:
        self.epochs.append(epoch.epoch)


@pytest.fixture(scope="module")
def alone() -> dict[tuple[str, float], tuple[Any, ...]]:
    """Return the numbers of cells that share nothing."""
    cells = (("after-training:tuning=0.5", 0.9), ("after-training:tuning=0.5", 0.5), (LTR, 0.9), (RATES, 0.9))
    return {cell: numbers(CellRunner(device="cpu").run(run(*cell)).result) for cell in cells}


def trained(trainings: FirstTrainings, method: str, sparsity: float) -> tuple[list[int], Any]:
    jumps = Jumps()
    return jumps.epochs, numbers(CellRunner(device="cpu", trainings=trainings).run(run(method, sparsity), jumps).result)


@pytest.mark.slow
def test_the_dense_training_is_done_once_for_all_sparsities_and_methods(
    tmp_path: Path, alone: dict[tuple[str, float], tuple[Any, ...]]
) -> None:
    epochs = {}
    for method, sparsity in alone:
        found, result = trained(shared_trainings(RunSettings(tmp_path), Owner.current()), method, sparsity)
        assert result == alone[method, sparsity]
        epochs[method, sparsity] = found
    assert list(epochs.values()) == [
        [1, 2, 3],
        [3],  # fine-tuning alone
        [1, 3, 4],  # the early epoch to which weights return, then the cycles
        [3],
    ]
    assert len(list(results.trainings_folder(tmp_path).iterdir())) == 1
    assert trained(shared_trainings(RunSettings(tmp_path, redo=True), Owner.current()), LTR, 0.9)[0] == [1, 2, 3, 4]


def test_other_seeds_and_recipes_share_nothing(tmp_path: Path) -> None:
    trainings = FirstTrainings(tmp_path)
    keys = set()
    identity = {"init_hash": "a", "data_hash": "b"}
    for changed in (run(), run(seed=1), run(LTR), Run(run().cell, killing.recipe(epochs=3, batch_size=512))):
        with trainings.of(changed, identity, "cpu") as first:
            assert first is not None
            keys.add(first._key)
    assert len(keys) == 3  # of two methods there is one
    for other in ("rigl:every=2", "edge-popup", "snip"):
        with trainings.of(run(other), identity, "cpu") as first:
            assert first is None


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["damaged", "unwritable"])
def test_a_state_that_cannot_be_used_is_trained_again(
    fault: str, tmp_path: Path, alone: dict[tuple[str, float], tuple[Any, ...]]
) -> None:
    folder = tmp_path / "trainings"
    trained(FirstTrainings(folder), RATES, 0.9)
    (place,) = folder.iterdir()
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    if fault == "unwritable":
        place.unlink()
        folder.rmdir()
        folder.write_text("not a folder")
    found, result = trained(FirstTrainings(folder), RATES, 0.9)
    assert found == [1, 2, 3] and result == alone[RATES, 0.9]


@pytest.mark.slow
def test_cells_of_a_pack_wait_for_the_one_that_trains(
    tmp_path: Path, alone: dict[tuple[str, float], tuple[Any, ...]]
) -> None:
    runner = CellRunner(device="cpu", trainings=FirstTrainings(tmp_path))
    pack: RoundRobin[tuple[str, float], Outcome] = RoundRobin(torch.device("cpu"))
    seen = {cell: Jumps() for cell in alone if cell[0] != LTR}
    for cell, jumps in seen.items():
        pack.add(cell, runner.running(run(*cell), jumps))
    for cell, outcome in pack.drain().items():
        assert isinstance(outcome, Outcome) and numbers(outcome.result) == alone[cell]
    assert sorted(jumps.epochs for jumps in seen.values()) == [[1, 2, 3], [3], [3]]


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[CellRunner]:
    """Two runners as two processes have them, which look for the state of the other one at every turn."""
    monkeypatch.setattr(first_trainings, "LOOK_SECONDS", 0.0)
    return [
        CellRunner(device="cpu", trainings=shared_trainings(RunSettings(tmp_path), Owner.current())) for _ in range(2)
    ]


@pytest.mark.slow
def test_processes_wait_for_the_one_that_trains(
    tmp_path: Path, others: list[CellRunner], alone: dict[tuple[str, float], tuple[Any, ...]]
) -> None:
    pack: RoundRobin[tuple[str, float], Outcome] = RoundRobin(torch.device("cpu"))
    seen = {cell: Jumps() for cell in alone if cell[0] == "after-training:tuning=0.5"}
    for runner, (cell, jumps) in zip(others, seen.items(), strict=True):
        pack.add(cell, runner.running(run(*cell), jumps))
    for cell, outcome in pack.drain().items():
        assert isinstance(outcome, Outcome) and numbers(outcome.result) == alone[cell]
    assert sorted(jumps.epochs for jumps in seen.values()) == [[1, 2, 3], [3]]
    assert [path.suffix for path in results.trainings_folder(tmp_path).iterdir()] == [".training"]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["interrupted", "dead"])
def test_a_process_that_ends_lets_another_one_train(
    end: str, tmp_path: Path, others: list[CellRunner], alone: dict[tuple[str, float], tuple[Any, ...]]
) -> None:
    first, second = others
    if end == "interrupted":
        checkpoints = Checkpoints(tmp_path / "cell", "1")
        with pytest.raises(Interrupted):
            first.run(run(), StopInTraining(checkpoints, 1), checkpoints)
        assert not list(results.trainings_folder(tmp_path).glob("*.claim"))
    else:
        dead = replace(Owner.current(), id="dead", pid=2**22 + 1, job=None)
        trainings = shared_trainings(RunSettings(tmp_path), dead)
        waiting = CellRunner(device="cpu", trainings=trainings).running(run())
        while not list(results.trainings_folder(tmp_path).glob("*.claim")):
            next(waiting)
    jumps = Jumps()
    assert numbers(second.run(run(sparsity=0.5), jumps).result) == alone["after-training:tuning=0.5", 0.5]
    assert jumps.epochs == [1, 2, 3]


def test_cells_with_one_dense_training_are_one_job() -> None:
    cells = [run(method, sparsity, seed) for method in (LTR, RATES) for sparsity in (0.9, 0.5) for seed in (0, 1)]
    todo = tuple(PlannedRun(cell, "", "missing") for cell in [*cells, run("rigl:every=2"), run("rigl:every=2", 0.5)])
    found = [{(cell.cell.method, cell.cell.seed) for cell in job.runs} for job in jobs(Plan(todo, todo))]
    assert found == [{(LTR, 0), (RATES, 0)}, *[{("rigl:every=2", 0)}] * 2, {(LTR, 1), (RATES, 1)}]


@pytest.mark.slow
def test_an_interrupted_cell_lets_another_one_train_and_jumps_when_it_resumes(
    tmp_path: Path, alone: dict[tuple[str, float], tuple[Any, ...]]
) -> None:
    runner = CellRunner(device="cpu", trainings=FirstTrainings(tmp_path / "state"))
    checkpoints = Checkpoints(tmp_path / "cell", "1")
    with pytest.raises(Interrupted):
        runner.run(run(), StopInTraining(checkpoints, 1), checkpoints)
    assert numbers(runner.run(run(sparsity=0.5)).result) == alone["after-training:tuning=0.5", 0.5]
    jumps = Jumps()
    result = runner.run(run(), jumps, Checkpoints(tmp_path / "cell", "2")).result
    assert numbers(result) == alone["after-training:tuning=0.5", 0.9] and jumps.epochs == [1, 3]


@pytest.mark.slow
def test_the_full_time_of_the_training_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = FirstTrainings(tmp_path)
    capture = _Progress.capture
    monkeypatch.setattr(_Progress, "capture", lambda at: {**capture(at), "seconds": 1000.0})
    CellRunner(device="cpu", trainings=trainings).run(run(RATES))
    result = CellRunner(device="cpu", trainings=trainings).run(run(RATES)).result
    assert (result.costs["train_seconds"] or 0) >= 1000.0


def test_files_are_bounded_and_old_ones_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = results.trainings_folder(tmp_path)
    trainings = FirstTrainings(folder)
    state = {"model": {"w": torch.zeros(1000)}}
    assert trainings._files is not None
    monkeypatch.setattr(trainings._files, "_limit", 10_000)
    for number in range(4):
        trainings.store(str(number), state)
    assert 1 <= len(list(folder.iterdir())) < 4 and trainings.find("3") is not None
    monkeypatch.setattr("pai_bench.results.cleanup.DAY", -1.0)
    tidy(tmp_path)
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_without_a_folder_the_last_state_is_in_memory(alone: dict[tuple[str, float], tuple[Any, ...]]) -> None:
    trainings = FirstTrainings()
    for cell, epochs in ((("after-training:tuning=0.5", 0.9), [1, 2, 3]), ((RATES, 0.9), [3])):
        assert trained(trainings, *cell) == (epochs, alone[cell])
    assert trainings.find("other") is None
