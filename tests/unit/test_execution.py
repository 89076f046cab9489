"""Tests of an attempt at a cell: the files on disk after success, failure and interruption."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pai_bench import recipes, results
from pai_bench.cells import Cell
from pai_bench.experiment.runner import CellRunner, Outcome, Run
from pai_bench.results import Epoch
from pai_bench.sweep.execution import attempt as execution
from pai_bench.sweep.execution import claims
from pai_bench.sweep.execution.attempt import AttemptOutcome, Stop, execute
from pai_bench.sweep.execution.claims import Owner, survey, take
from pai_bench.sweep.execution.settings import NAMES, RunSettings
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import Task
from tests.disk import Disk
from tests.unit.test_results import result

RUN = Run(Cell("random", "digits", "conv8", 0.9, 0), recipes.load("quick", "digits", "conv8"))
MASKS = {"w": np.random.default_rng(0).random(100_000) < 0.5}
Act = Callable[[Callback, Checkpoints], None]


class Lab(CellRunner):
    """A cell runner that does `act` and hands out a made-up result."""

    def __init__(self, act: Act = lambda callback, checkpoints: None, **changes: Any) -> None:
        super().__init__()
        self.act, self.changes, self.runs, self.forgot = act, changes, 0, False

    def running(
        self, run: Run, callback: Callback | None = None, checkpoints: Checkpoints | None = None
    ) -> Task[Outcome]:
        assert callback is not None and checkpoints is not None
        self.runs += 1
        callback.phase("training")
        checkpoints.save({"epoch": self.runs, "step": 0, "w": torch.zeros(3)})
        callback.epoch(Epoch(1, 0.5, None), 2)
        self.act(callback, checkpoints)
        yield
        made = result(**{**vars_of(run), **self.changes})
        return Outcome(made, MASKS)

    def forget(self) -> None:
        self.forgot = True


def vars_of(run: Run) -> dict[str, Any]:
    names = ("method", "dataset", "model", "sparsity", "seed")
    return {
        **{name: getattr(run.cell, name) for name in names},
        "recipe": run.recipe.name,
        "fingerprint": run.fingerprint(),
    }


def attempt(root: Path, runner: CellRunner, **options: Any) -> AttemptOutcome:
    settings = {name: options.pop(name) for name in NAMES & options.keys()}
    return execute(RUN, RunSettings(root, **settings), runner, Owner.current(), **options)


def raising(error: Exception) -> Act:
    def act(callback: Callback, checkpoints: Checkpoints) -> None:
        raise error

    return act


def log(root: Path) -> str:
    return RUN.key().log_path(root).read_text()


def leftovers(root: Path) -> list[str]:
    """Temporary files, claims and heartbeats."""
    return [path.name for path in root.rglob("*") if path.suffix in (".tmp", ".claim", ".beat")]


@pytest.mark.slow
def test_a_cell_is_done_once_and_leaves_its_result_and_its_log(tmp_path: Path) -> None:
    lab = Lab(lambda *_: os.write(1, b"a method may print\n"))
    assert attempt(tmp_path, lab) == AttemptOutcome("done", None, 0.75, "ok")
    assert attempt(tmp_path, lab) == AttemptOutcome("present") and lab.runs == 1
    assert results.state(tmp_path, RUN.key()) == "done"
    assert "begins: random" in log(tmp_path) and "epoch 1/2" in log(tmp_path) and "a method may print" in log(tmp_path)
    assert not leftovers(tmp_path) and not RUN.key().checkpoints_folder(tmp_path).exists()
    assert attempt(tmp_path, Lab(accuracy=0.5), redo=True).kind == "done"
    assert results.read(RUN.key().path(tmp_path)).accuracy == 0.5


@pytest.mark.slow
def test_a_claimed_cell_is_not_run(tmp_path: Path) -> None:
    lab = Lab()
    claim = take(tmp_path, RUN.key(), Owner.current())
    assert claim is not None
    with claim:
        assert attempt(tmp_path, lab) == AttemptOutcome("claimed") and lab.runs == 0
    assert attempt(tmp_path, lab).kind == "done"


@pytest.mark.slow
def test_the_second_result_of_a_cell_is_a_duplicate(tmp_path: Path) -> None:
    first = result(**vars_of(RUN))
    lab = Lab(lambda *_: results.write(tmp_path, first, MASKS), accuracy=0.5)
    assert attempt(tmp_path, lab).kind == "duplicate"
    assert results.read(RUN.key().path(tmp_path)) == first
    assert "a different accuracy" in log(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no"), "error"),
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "oom"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), "oom"),
    ],
)
def test_failures_are_recorded_counted_and_distinguished(tmp_path: Path, error: Exception, kind: str) -> None:
    lab = Lab(raising(error))
    for attempts in (1, 2):
        ended = attempt(tmp_path, lab)
        assert ended.kind == "failed" and ended.cause is not None
        failure = results.read_failure(tmp_path, RUN.key())
        assert failure is not None and (failure.kind, failure.attempts) == (kind, attempts)
        assert failure.cause == ended.cause and "Traceback" in failure.traceback and "Traceback" in log(tmp_path)
    assert lab.forgot == (kind == "oom") == ended.cause.startswith("out of memory")
    assert not leftovers(tmp_path)
    assert attempt(tmp_path, Lab()).kind == "done" and results.read_failure(tmp_path, RUN.key()) is None


@pytest.mark.slow
def test_a_stopped_cell_keeps_its_checkpoint(tmp_path: Path) -> None:
    stop = Stop()

    def act(callback: Callback, checkpoints: Checkpoints) -> None:
        stop.request()
        assert checkpoints.stop_requested
        raise Interrupted

    assert attempt(tmp_path, Lab(act), stop=stop).kind == "interrupted"
    assert results.state(tmp_path, RUN.key()) == "missing" and not leftovers(tmp_path)
    assert len(list(RUN.key().checkpoints_folder(tmp_path).iterdir())) == 1
    assert attempt(tmp_path, Lab(), keep_checkpoints=True).kind == "done"
    results.tidy(tmp_path)
    assert len(list(RUN.key().checkpoints_folder(tmp_path).glob("*.checkpoint"))) == 2


@pytest.mark.slow
def test_scoring_stops_at_once(tmp_path: Path) -> None:
    stop = Stop()

    def act(callback: Callback, checkpoints: Checkpoints) -> None:
        callback.phase("scoring")
        callback.tick()
        stop.request()
        callback.tick()

    assert attempt(tmp_path, Lab(act), stop=stop).kind == "interrupted"


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file of this process grow larger, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_full_disk_leaves_the_cell_to_do(tmp_path: Path) -> None:
    with small_files(4096):
        ended = attempt(tmp_path, Lab(), disk_patience=0.0)
    assert ended == AttemptOutcome("unwritten", "the results folder cannot be written to: File too large")
    assert results.state(tmp_path, RUN.key()) == "missing"
    assert not leftovers(tmp_path) and not list(results.result_paths(tmp_path))
    assert attempt(tmp_path, Lab()).kind == "done"


AWAY = ("ENOSPC", "EROFS", "EIO", "ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "EREMOTEIO", "ENOLCK", "EHOSTDOWN", "EMFILE")


@pytest.mark.slow
@pytest.mark.parametrize("code", [getattr(errno, name) for name in AWAY if hasattr(errno, name)])
def test_a_result_waits_in_memory_for_a_disk_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real, calls, signs = results.deliver, [], []

    def deliver(*args: Any, **options: Any) -> results.Delivery:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(code, os.strerror(code))
        return real(*args, **options)

    class Counter(Callback):
        def tick(self) -> None:
            signs.append("tick")

        def phase(self, phase: str) -> None:
            signs.append(phase)

    monkeypatch.setattr(execution.results, "deliver", deliver)
    monkeypatch.setattr(execution.time, "sleep", lambda _: None)
    lab = Lab()
    assert attempt(tmp_path, lab, callback=Counter()).kind == "done" and lab.runs == 1
    assert f"waiting: the results folder cannot be written to: {os.strerror(code)}" in signs and "tick" in signs
    calls.clear()
    monkeypatch.setattr(execution.results, "deliver", lambda *_, **__: (_ for _ in ()).throw(OSError(code, "no")))
    assert attempt(tmp_path, lab, redo=True, disk_patience=0.0).kind == "unwritten"


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.ENOENT])
def test_an_error_that_persists_after_retries_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(execution.results, "deliver", lambda *_, **__: (_ for _ in ()).throw(OSError(code, "no")))
    assert attempt(tmp_path, Lab()).kind == "failed"


@pytest.mark.slow
def test_an_unreadable_result_is_retried_and_never_recomputed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    lab = Lab()
    assert attempt(tmp_path, lab).kind == "done"
    monkeypatch.setattr(execution.time, "sleep", lambda _: None)
    disk.refuse("*/runs/*/*/*/*.json", errno.EIO, times=2)
    assert attempt(tmp_path, lab) == AttemptOutcome("present") and lab.runs == 1
    disk.refuse("*/runs/*/*/*/*.json", errno.EIO)
    ended = attempt(tmp_path, lab, disk_patience=0.0)
    assert (
        ended == AttemptOutcome("unwritten", "the results folder cannot be read: Input/output error") and lab.runs == 1
    )
    disk.heal()
    assert results.state(tmp_path, RUN.key()) == "done" and not leftovers(tmp_path)


@pytest.mark.slow
def test_waiting_for_a_stale_claim_sends_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "WATCHED_SECONDS", 0.01)
    far = replace(Owner.current(), id="other", machine="elsewhere", job=None)
    claim = take(tmp_path, RUN.key(), far)
    assert claim is not None
    then = claim.path.stat().st_mtime - 7200
    os.utime(claim.path, (then, then))
    signs: list[str] = []

    class Counter(Callback):
        def tick(self) -> None:
            signs.append("tick")

        def phase(self, phase: str) -> None:
            signs.append(phase)

    assert attempt(tmp_path, Lab(), callback=Counter()).kind == "done" and signs[0] == "tick"


@pytest.mark.slow
def test_files_of_dead_owners_are_removed(tmp_path: Path) -> None:
    assert attempt(tmp_path, Lab()).kind == "done"
    old, new = (tmp_path / "runs" / f".{name}.json.{'0' * 32}.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("")
    then = new.stat().st_mtime - 25 * 3600
    os.utime(old, (then, then))
    left, other = (
        replace(RUN.key(), cell=cell).checkpoints_folder(tmp_path) / "e1-s1-x.checkpoint"
        for cell in (RUN.cell, replace(RUN.cell, seed=1))
    )
    for path in (left, other):
        path.parent.mkdir(parents=True)
        path.write_text("")
    results.tidy(tmp_path)
    assert (old.exists(), new.exists(), left.exists(), other.exists()) == (False, True, False, True)
    assert results.state(tmp_path, RUN.key()) == "done" and survey(tmp_path) == []
