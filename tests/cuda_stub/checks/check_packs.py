"""Checks of packs: seconds, errors of the device, and the launches of a cell besides its training steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pai_bench.cells import Cell
from pai_bench.experiment.cost import float64_slowdown
from pai_bench.experiment.run import Run
from pai_bench.experiment.runner import CellRunner, Outcome
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.selection import score_at
from pai_bench.sweep.execution import trial
from pai_bench.sweep.execution.attempt import AttemptOutcome, executing
from pai_bench.sweep.execution.device_fault import DeviceFault, ends_process
from pai_bench.sweep.execution.owner import Owner
from pai_bench.sweep.execution.packing import PackedRunner, Sizes
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.training.callbacks import Callback
from pai_bench.training.cooperative import RoundRobin, SharedClock, Task, run_to_completion
from pai_bench.training.graph_step import GraphStep
from pai_bench.training.loop import Trained, train, training
from tests.cuda_stub import device
from tests.cuda_stub.checks.check_steps import BATCH, CUDA, data, masks, network, recipe
from tests.cuda_stub.device import Counts


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CellRunner:
    """A runner whose data set needs no library to be read."""
    made, images = CellRunner(device="cuda"), data(32 * BATCH)
    monkeypatch.setattr(made, "dataset", lambda run: images)
    return made


def cell(seed: int) -> Run:
    # All weights are kept: without kernels no mask of a given size can be selected.
    return Run(Cell("dense", "digits", "conv8", 0.0, seed), recipe(epochs=4, evaluate_every=4))


def test_seconds_of_cells_on_a_slow_device_sum_up_to_the_wall_time() -> None:
    clock = SharedClock()

    def member(seed: int) -> Task[float]:
        with clock.share() as share:
            done = yield from training(
                network(), {}, data(32 * BATCH), recipe(epochs=3, evaluate_every=3), seed, share=share
            )
            return done.seconds

    train(network(), {}, data(), recipe(), 0)  # imports and initialisations
    pack: RoundRobin[int, float] = RoundRobin(CUDA)
    for seed in range(2):
        pack.add(seed, member(seed))
    with device.seconds(graph=0.02):
        began = time.perf_counter()
        seconds = [ended for ended in pack.drain().values() if isinstance(ended, float)]
        wall = time.perf_counter() - began
    assert wall > 1 and 0.9 * wall < sum(seconds) <= wall
    assert max(seconds) < 1.5 * min(seconds)


def test_packed_cells_are_captured_and_record_it(runner: CellRunner) -> None:
    pack: RoundRobin[Run, Outcome] = RoundRobin(CUDA)
    for seed in range(2):
        pack.add(cell(seed), runner.running(cell(seed)))
    results = [outcome.result for outcome in pack.drain().values() if isinstance(outcome, Outcome)]
    assert [(result.provenance["step"], result.provenance["pack"]) for result in results] == [("cuda-graph", 2)] * 2


def test_an_error_that_the_device_repeats_ends_the_process_and_blames_no_cell(
    tmp_path: Path, runner: CellRunner
) -> None:
    """In another process, for which another pack stands here, all cells continue from their checkpoints."""

    def pack(**options: float) -> PackedRunner:
        settings = RunSettings(tmp_path, **options)  # type: ignore[arg-type]
        made = PackedRunner(
            runner, Sizes(runner, 2), lambda run, alone: executing(run, settings, runner, Owner.current(), alone=alone)
        )
        for seed in range(2):
            made.add(cell(seed))
        return made

    packed = pack(checkpoint_every=0.0)
    for _ in range(6):
        packed.turn()
    ended: list[tuple[Run, AttemptOutcome]] = []
    with pytest.raises(DeviceFault, match="illegal memory access"), device.failing_after(40):
        while packed.busy:
            ended += packed.turn()
    assert not ended and not list(tmp_path.rglob("failed/**/*.json"))
    logs = [path.read_text() for path in (tmp_path / "state" / "logs" / "cells").rglob("*.log")]
    assert sum("illegal memory access" in log for log in logs) == 1
    packed._pack.close()  # a process that has ended holds no claim
    again = pack()
    while again.busy:
        ended += again.turn()
    assert [outcome.kind for _, outcome in ended] == ["done", "done"]
    found = [json.loads(path.read_text())["provenance"] for path in tmp_path.glob("runs/**/*.json")]
    assert [len(provenance["earlier_attempts"]) for provenance in found] == [1, 1]


@pytest.mark.parametrize("moment", ["scoring", "measuring", "training", 1, 127, 129], ids=str)
def test_a_device_error_is_recognised_in_any_phase(moment: str | int, tmp_path: Path, runner: CellRunner) -> None:
    """In any phase, in the last epoch, and after the batch of its evaluation, which follows 128 steps."""

    class Failing(Callback):
        ticks = 0
        now = ""

        def phase(self, phase: str) -> None:
            self.now = phase
            if phase == moment:
                device.fail_after(0)

        def tick(self) -> None:
            self.ticks += self.now == "training"
            if self.ticks == moment:
                device.fail_after(0)

    work = executing(cell(0), RunSettings(tmp_path), runner, Owner.current(), callback=Failing())
    with pytest.raises(DeviceFault, match="illegal memory access"), device.failing_after(10**9):
        run_to_completion(work, CUDA)
    assert not list(tmp_path.rglob("failed/**/*.json"))


def test_a_device_error_is_recognised_in_an_error_of_a_library(tmp_path: Path, runner: CellRunner) -> None:
    """An illegal access of an earlier kernel makes cuBLAS, cuDNN or Triton raise errors of other types."""

    def running(*arguments: object) -> Task[Outcome]:
        yield
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`")

    runner.running = running  # type: ignore[method-assign]
    for healthy in (False, True):
        work = executing(cell(0), RunSettings(tmp_path), runner, Owner.current())
        if healthy:
            assert run_to_completion(work, CUDA).kind == "failed"
        else:
            with pytest.raises(DeviceFault, match="CUBLAS"), device.failing_after(0):
                run_to_completion(work, CUDA)
        assert len(list(tmp_path.rglob("failed/**/*.json"))) == int(healthy)


def test_out_of_memory_in_a_capture_makes_the_pack_smaller(
    tmp_path: Path, runner: CellRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, real = Sizes(runner, 2), GraphStep._captured
    packed = PackedRunner(
        runner, sizes, lambda run, alone: executing(run, RunSettings(tmp_path), runner, Owner.current(), alone=alone)
    )

    def full(self: GraphStep, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        if not self._alone():
            torch.empty(2 * device.MEMORY, dtype=torch.uint8, device=CUDA)
        return real(self, work)

    monkeypatch.setattr(GraphStep, "_captured", full)
    for seed in range(2):
        assert packed.takes(cell(seed))
        packed.add(cell(seed))
    ended: list[tuple[Run, AttemptOutcome]] = []
    while packed.busy:
        ended += packed.turn()
    assert [outcome.kind for _, outcome in ended] == ["done", "done"] and sizes.of(cell(0)) == 1
    steps = [json.loads(path.read_text())["provenance"]["step"] for path in tmp_path.glob("runs/**/*.json")]
    assert steps == ["cuda-graph"] * 2


def test_a_device_error_in_the_last_kernels_of_a_cell_ends_the_process(
    runner: CellRunner,
) -> None:
    def start(run: Run, alone: Callable[[], bool]) -> Task[AttemptOutcome]:
        yield
        return AttemptOutcome("done")

    packed = PackedRunner(runner, Sizes(runner, 2), start)
    packed.add(cell(0))
    packed.turn()
    with pytest.raises(DeviceFault, match="illegal memory access"), device.failing_after(0):
        packed.turn()


def test_an_error_of_a_capture_does_not_end_the_process() -> None:
    x = torch.zeros((), device="cuda")
    with (
        pytest.raises(torch.AcceleratorError) as caught,
        torch.cuda.stream(torch.cuda.current_stream()),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        x.item()
    assert isinstance(caught.value, torch.AcceleratorError) and not ends_process(caught.value)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        x.add_(1)  # random draws fail in PyTorch 2.11 until a capture succeeds


def test_a_network_that_draws_is_eager_in_a_pack() -> None:
    def member() -> Task[Trained]:
        model = nn.Sequential(nn.Dropout(0.5), network())
        return (yield from training(model, masks(model), data(), recipe(), 0))

    pack: RoundRobin[int, Trained] = RoundRobin(CUDA)
    pack.add(0, member())
    with pytest.warns(RuntimeWarning, match="it draws random numbers"):
        ended = pack.drain()[0]
    assert isinstance(ended, Trained) and ended.mechanism == "eager"


def test_random_states_are_read_once_in_the_life_of_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    real = torch.cuda.get_rng_state
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: reads.append(device) or real(device))
    pack: RoundRobin[int, Trained] = RoundRobin(CUDA)
    for seed in range(2):
        pack.add(seed, training(network(), {}, data(), recipe(), seed))
    pack.drain()
    assert len(reads) == 1


def test_pack_sizes_are_measured_with_captured_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes its time for each member: more of them at a time are faster."""
    monkeypatch.setattr(trial, "SIZES", (1, 2))

    def member(seed: int, callback: Callback) -> Task[Trained]:
        return training(network(), {}, data(64 * BATCH), recipe(epochs=1000, evaluate_every=1000), seed, callback)

    with device.seconds(graph=0.02):
        found = trial.speeds(CUDA, member)
    assert found[2] > 1.5 * found[1] > 200  # several steps in a graph of 20 ms


@pytest.mark.parametrize("n", [1000, 100_000])
def test_a_threshold_is_found_by_a_sort(n: int) -> None:
    scores = torch.zeros(n, device=CUDA)
    before = device.launched("gatherKthValue"), device.launched("ort")
    score_at(scores, 500)
    assert device.launched("gatherKthValue") == before[0] and device.launched("ort") > before[1]


def test_effective_masks_are_computed_where_zeros_stay_zeros() -> None:
    """cuDNN may transform convolutions so that an exact zero becomes 1e-18."""
    model = network()
    kept = masks(model)
    before = Counts.now()
    effective_masks(model, kept, (1, 8, 8))
    assert Counts.now().since(before).launches <= 2 * len(kept)


def test_the_slowdown_of_float64_is_measured_once_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    float64_slowdown.cache_clear()
    real = torch.autograd.grad

    def grad(*arguments: Any) -> Any:
        if arguments[0].dtype == torch.float64:
            time.sleep(0.2)
        return real(*arguments)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    found = float64_slowdown(CUDA)
    assert found > 4
    before = Counts.now()
    assert float64_slowdown(CUDA) == found and Counts.now() == before
