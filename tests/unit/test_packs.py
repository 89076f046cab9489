"""Tests of packs: cells that train in turns give the same results as alone."""

from __future__ import annotations

import dataclasses
import gc
import os
import random
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.core.randomness import seed_draws
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.sweep.execution import attempt, trial
from pai_bench.sweep.execution.attempt import AttemptOutcome, executing
from pai_bench.sweep.execution.cell_log import CellLog
from pai_bench.sweep.execution.device_fault import DeviceFault
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.execution.packing import PackedRunner, Sizes, best_size
from pai_bench.sweep.execution.settings import RunSettings, parse_pack
from pai_bench.sweep.slurm import crashes
from pai_bench.sweep.slurm import task_runner as work
from pai_bench.sweep.slurm.specification import Entry, Spec
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import RoundRobin, SharedClock, Task, run_to_completion
from pai_bench.training.loop import Trained, training
from tests.unit import killing
from tests.unit.test_checkpoints import StopInTraining
from tests.unit.test_slurm import spec

CPU = torch.device("cpu")
DATA = killing.small_data(200)


def member(
    seed: int, checkpoints: Checkpoints | None = None, callback: Callback | None = None
) -> Task[tuple[str, Trained]]:
    """Train with dropout, norms and momentum; return the hash of the final state, and the training record."""
    model = killing.network()
    generator = torch.Generator().manual_seed(seed)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.3 for n, p in model.named_parameters() if p.dim() > 1}
    saved = checkpoints.load() if checkpoints is not None else None
    trained = yield from training(model, masks, DATA, killing.recipe(), seed, callback, checkpoints, saved)
    return tensors_hash(model.state_dict()), dataclasses.replace(trained, seconds=0.0)


class Chancy(nn.Module):
    """A layer that draws from every random generator of the host, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = killing.network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = random.random() + np.random.rand()
        return nn.functional.dropout(self.net(x), 0.5) * (1 + noise)  # without `training=`, as is easily forgotten


def chancy(seed: int, checkpoints: Checkpoints | None = None, callback: Callback | None = None) -> Task[Trained]:
    torch.manual_seed(seed)
    model = Chancy()
    saved = checkpoints.load() if checkpoints is not None else None
    trained = yield from training(model, {}, DATA, killing.recipe(), seed, callback, checkpoints, saved)
    return dataclasses.replace(trained, seconds=0.0)


@pytest.mark.slow
def test_every_draw_is_determined_by_seed_epoch_and_step(tmp_path: Path) -> None:
    alone = {seed: run_to_completion(chancy(seed), CPU) for seed in range(2)}
    assert alone[0] == run_to_completion(chancy(0), CPU) != alone[1]
    with pytest.raises(Interrupted):
        checkpoints = Checkpoints(tmp_path, "1")
        run_to_completion(chancy(1, checkpoints, killing.StopAfter(checkpoints, 3)), CPU)
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    pack: RoundRobin[int, Trained] = RoundRobin(CPU)
    pack.add(0, chancy(0))
    pack.turn()
    pack.add(1, chancy(1, Checkpoints(tmp_path, "2")))
    assert pack.drain() == alone
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]


def test_errors_during_the_measurement_are_shown_and_left_to_the_cell(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def damaged(self: Sizes, run: Run) -> int:
        raise PaiBenchError("data_batch_1 is not what it should be", "fetch it again")

    sizes, run = Sizes(CellRunner(device="cpu"), None), Run(Cell("snip", "digits", "conv8", 0.9, 0), killing.recipe())
    with monkeypatch.context() as patched:
        patched.setattr(Sizes, "_measure", damaged)
        assert sizes.of(run) == 1
    assert "conv8 on digits could not be measured (PaiBenchError: data_batch_1" in capfd.readouterr().err
    monkeypatch.setattr(Sizes, "_measure", lambda self, run: 3)
    assert sizes.of(run) == 3


@pytest.mark.slow
def test_members_give_the_same_results_as_alone_whenever_they_join(tmp_path: Path) -> None:
    alone = {seed: run_to_completion(member(seed), CPU) for seed in range(3)}
    with pytest.raises(Interrupted):
        checkpoints = Checkpoints(tmp_path, "1")
        run_to_completion(member(2, checkpoints, killing.StopAfter(checkpoints, 3)), CPU)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    pack: RoundRobin[int, tuple[str, Trained]] = RoundRobin(CPU)
    pack.add(0, member(0))
    for _ in range(3):
        pack.turn()
    pack.add(1, member(1))
    pack.add(2, member(2, Checkpoints(tmp_path, "2")))
    assert pack.drain() == alone
    assert torch.equal(torch.get_rng_state(), before)


def run(method: str, sparsity: float = 0.9, seed: int = 0, **changes: object) -> Run:
    return Run(Cell(method, "digits", "conv8", sparsity, seed), killing.recipe(batch_size=512, **changes))


@pytest.mark.slow
def test_an_error_in_one_cell_does_not_affect_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [run("snip"), run("random", 0.98, 1), run("dense", 0.0)]
    alone = {cell: CellRunner(device="cpu").run(cell) for cell in good}
    diverges, collapses, raises, stops = run("random", lr=1e30), run("uniform", 0.9999), run("erk"), run("magnitude")
    runner = CellRunner(device="cpu")
    real = runner.masks

    def masks(cell: Run, *rest: object) -> object:
        if cell == raises:
            raise ValueError("no scores")
        return real(cell, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "masks", masks)
    pack: RoundRobin[Run, Outcome] = RoundRobin(CPU)
    checkpoints = Checkpoints(tmp_path, "1")
    pack.add(stops, runner.running(stops, StopInTraining(checkpoints, 2), checkpoints))
    for cell in (good[0], diverges, raises, good[1], collapses, good[2]):
        pack.add(cell, runner.running(cell))
    ended = pack.drain()
    assert isinstance(ended[raises], ValueError) and isinstance(ended[stops], Interrupted)
    for cell, status in ((diverges, "diverged"), (collapses, "collapsed")):
        outcome = ended[cell]
        assert isinstance(outcome, Outcome) and outcome.result.status == status
    for cell, undisturbed in alone.items():
        outcome = ended[cell]
        assert isinstance(outcome, Outcome)
        for name in ("accuracy", "curve", "mask_hash", "init_hash", "fingerprint", "effective_sparsity", "status"):
            assert getattr(outcome.result, name) == getattr(undisturbed.result, name), name
        assert outcome.result.provenance["pack"] == 6 and undisturbed.result.provenance["pack"] == 1
        assert outcome.result.costs["train_peak_bytes"] is None


def test_the_wall_time_is_divided_among_the_cells_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pai_bench.training.cooperative.time.perf_counter", lambda: now[0])
    clock = SharedClock()
    now[0] += 5  # nobody trains
    with clock.share() as first:
        now[0] += 1
        assert first.alone and first.seconds == 1
        with clock.share() as second:
            now[0] += 4
            with clock.unshared():
                now[0] += 100
            assert not first.alone
        now[0] += 0.5
    assert (first.seconds, second.seconds) == (3.5, 2.0) and first.most == second.most == 2


@pytest.mark.slow
def test_seconds_of_packed_cells_sum_up_to_the_time_of_the_worker() -> None:
    clock = SharedClock()

    def training_cell(seed: int) -> Task[float]:
        with clock.share() as share:
            done = yield from training(killing.network(), {}, DATA, killing.recipe(), seed, share=share)
            return done.seconds

    pack: RoundRobin[int, float] = RoundRobin(CPU)
    for seed in range(2):
        pack.add(seed, training_cell(seed))
    began = time.perf_counter()
    seconds = [ended for ended in pack.drain().values() if isinstance(ended, float)]
    wall = time.perf_counter() - began
    assert len(seconds) == 2 and 0.8 * wall < sum(seconds) <= wall


def test_the_size_is_the_fastest_that_fits() -> None:
    assert best_size({1: 10.0, 2: 19.0, 4: 30.0, 8: 31.0}.get) == 4
    assert best_size({1: 10.0, 2: 20.0}.get) == 2
    assert best_size({1: 10.0, 2: 10.1, 4: 40.0}.get) == 1
    assert best_size({}.get) == 1
    with pytest.raises(PaiBenchError, match="auto"):
        parse_pack("many")


@pytest.mark.slow
def test_measuring_sizes_trains_nothing_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SIZES", (1, 2, 4)), ("SETTLING_TURNS", 1), ("WARM_UP_SECONDS", 0), ("ROUND_SECONDS", 0)):
        monkeypatch.setattr(trial, name, value)
    torch.manual_seed(3)
    before = torch.get_rng_state()

    def short(seed: int, callback: Callback) -> Task[Trained]:
        """A training of fewer steps than the measurement takes."""
        if seed == 3:
            raise torch.OutOfMemoryError
        data = killing.small_data(64)
        return (yield from training(killing.network(), {}, data, killing.recipe(epochs=1), seed, callback))

    found = trial.speeds(CPU, lambda seed, callback: short(0, callback))
    assert found.keys() == {1, 2, 4} and min(found.values()) > 0
    assert trial.speeds(CPU, lambda seed, callback: short(3 if seed == 2 else 0, callback)).keys() == {1, 2}
    assert torch.equal(torch.get_rng_state(), before)
    assert Sizes(CellRunner(device="cpu"), None).of(run("snip")) == 1, "on a CPU processes do better"


@pytest.mark.slow
def test_sizes_take_turns_and_their_medians_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of an idle GPU is low at first, and a burst of load affects one round."""
    order: list[int] = []
    seconds = iter([1, 1, 1, 1, 9, 1, 1, 1, 1, 1])

    def run(self: trial._Trial, size: int, seconds_of_a_round: float) -> float:
        order.append(size)
        return 100 * size / next(seconds)

    monkeypatch.setattr(trial._Trial, "fitting", lambda self: [1, 2, 4])
    monkeypatch.setattr(trial._Trial, "run", run)
    assert trial.speeds(CPU, lambda seed, callback: raising(ValueError())) == {1: 100, 2: 200, 4: 400}
    assert order == [4, 1, 2, 4, 1, 2, 4, 1, 2, 4]


def raising(error: Exception) -> Task[Trained]:
    yield
    raise error


@pytest.mark.slow
def test_a_pack_that_does_not_fit_continues_with_fewer_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five cells share memory for two; one of them does not fit even alone."""
    runs = [run("random", seed=seed, epochs=1) for seed in range(4)] + [run("random", sparsity=0.5, epochs=1)]
    runner = CellRunner(device="cpu")
    real, training_now = training, set[int]()

    def tight(model: Any, masks: Any, data: Any, recipe: Any, seed: int, *rest: Any) -> Task[Trained]:
        work = real(model, masks, data, recipe, seed, *rest)
        training_now.add(id(work))
        try:
            yield
            if len(training_now) > 2 or sum(int(m.sum()) for m in masks.values()) > 0.4 * sum(
                m.numel() for m in masks.values()
            ):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return (yield from work)
        finally:
            training_now.discard(id(work))

    monkeypatch.setattr("pai_bench.training.loop.training", tight)
    sizes, settings = Sizes(runner, 5), RunSettings(tmp_path)
    owner = Owner.current()
    packed = PackedRunner(runner, sizes, lambda cell, alone: executing(cell, settings, runner, owner, alone=alone))
    for cell in runs:
        assert packed.takes(cell)
        packed.add(cell)
    assert not packed.takes(run("snip", epochs=1)) and not packed.takes(run("snip"))
    ended: dict[Run, AttemptOutcome] = {}
    while packed.busy:
        ended |= dict(packed.turn())
    assert [ended[cell].kind for cell in runs] == ["done"] * 4 + ["failed"]
    assert "out of memory" in str(ended[runs[4]].cause)
    assert len(list(tmp_path.rglob("failed/**/*.json"))) == 1 and sizes.of(runs[0]) <= 2
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".claim", ".beat")]


@pytest.mark.slow
def test_a_cluster_task_saves_its_pack_and_resumes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM without a kill, then the warning of the time limit, and requeue the task."""
    monkeypatch.setattr(work, "PAUSE_SECONDS", 0.1)
    runs = [run("random", seed=seed, epochs=3) for seed in range(3)]
    entries = tuple(Entry(cell.cell, cell.recipe.as_dict(), cell.fingerprint()) for cell in runs)
    place = spec(tmp_path, code={}, plugins=(), gpus=0, checkpoint_every=1e6, tasks=(entries,), pack=2).write()
    ticks = [0]
    real = attempt._AttemptCallback.tick

    def tick(callback: Any) -> None:
        real(callback)
        ticks[0] += callback._phase == "training"
        if ticks[0] == 4:
            task.pause()
        elif ticks[0] == 9:
            task._ending.set()
            task.pause()

    monkeypatch.setattr(attempt._AttemptCallback, "tick", tick)
    task = work.Work(str(place))
    task.run()
    assert not list(tmp_path.glob("runs/**/*.json")) and len(list(tmp_path.rglob("*.checkpoint"))) >= 2
    assert task._has_progressed() and len(task._current) == 2
    again = work.Work(str(place))
    again.run()
    assert again._ended["done"] == 3 and len(list(tmp_path.glob("runs/**/*.json"))) == 3
    logs = [log.read_text() for log in (tmp_path / "state" / "logs" / "cells").rglob("*.log")]
    assert sorted(text.count("resumes from a checkpoint") for text in logs) == [0, 2, 2]


@pytest.mark.slow
def test_a_cell_that_breaks_the_gpu_of_its_jobs_fails_alone_and_the_others_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any cell of a pack may have caused the error, so each of them runs alone afterwards, and last."""
    runs = [run("random", seed=seed, epochs=1) for seed in range(3)]
    entries = tuple(Entry(cell.cell, cell.recipe.as_dict(), cell.fingerprint()) for cell in runs)
    broken, other, last = entries
    place = spec(tmp_path, code={}, plugins=(), gpus=0, tasks=(entries,), pack=2).write()
    real = attempt._AttemptCallback.tick

    def tick(callback: Any) -> None:
        real(callback)
        if callback._phase == "training" and callback._claim.path == broken.key.claim_path(tmp_path):
            raise DeviceFault("illegal memory access")

    monkeypatch.setattr(attempt._AttemptCallback, "tick", tick)
    monkeypatch.setattr(work, "STALE_SECONDS", -60)

    def job(number: int) -> tuple[list[int], list[int]]:
        """Run a job; return the seeds of the cells with a result, and of the failed ones."""
        monkeypatch.setenv("SLURM_JOB_ID", str(number))
        with pytest.raises(DeviceFault) if number < 4 else nullcontext():
            work.Work(str(place)).run()
        gc.collect()  # the claims of the cells that the error has ended
        done = [entry.cell.seed for entry in entries if entry.key.path(tmp_path).exists()]
        return done, [entry.cell.seed for entry in entries if entry.key.failure_path(tmp_path).exists()]

    assert job(1) == ([], [])
    assert crashes.suspected(tmp_path, [entry.key.name for entry in entries]) == {broken.key.name, other.key.name}
    assert job(2) == ([2], [])
    assert job(3) == ([2], [0])
    note = results.read_failure(tmp_path, broken.key)
    assert note is not None and (note.kind, note.cause) == (
        "died", "3 jobs died on it: 3 GPU error, 2 GPU error, 1 GPU error"
    )  # fmt: skip
    without = dataclasses.replace(Spec.read(place), tasks=((other, last),))
    monkeypatch.setattr(work.Spec, "read_trusted", lambda path: without)
    assert job(4) == ([1, 2], [0])
    crashes.forget(tmp_path, [broken.key.name])
    assert not crashes.suspected(tmp_path, [broken.key.name])


def test_output_of_interleaved_cells_goes_to_their_own_logs(tmp_path: Path) -> None:
    def printing(name: str) -> Task[None]:
        with CellLog(tmp_path / name, "1") as log:
            for step in range(3):
                with log.printing():
                    os.write(1, f"{name}{step} ".encode())
                yield

    pack: RoundRobin[str, None] = RoundRobin(CPU)
    for name in "ab":
        pack.add(name, printing(name))
    pack.drain()
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a0 a1 a2 ", "b0 b1 b2 "]


def test_draws_of_members_do_not_mix() -> None:
    def draws(seed: int) -> Task[list[float]]:
        found = []
        for step in range(4):
            yield
            seed_draws(10 * seed + step, CPU)
            found.append(float(torch.rand(())))
        return found

    alone = {seed: run_to_completion(draws(seed), CPU) for seed in (1, 2)}
    pack: RoundRobin[int, list[float]] = RoundRobin(CPU)
    for seed in alone:
        pack.add(seed, draws(seed))
    assert pack.drain() == alone
