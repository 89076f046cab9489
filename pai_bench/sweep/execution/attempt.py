"""One attempt at a cell, on any machine: claim it, resume from its checkpoint, run it, and deliver the result."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.results import DamagedResult, Epoch
from pai_bench.sweep.execution import dataset_copy
from pai_bench.sweep.execution.cell_log import CellLog
from pai_bench.sweep.execution.claims import Claim, Owner, take
from pai_bench.sweep.execution.device_fault import DeviceFault, ends_process
from pai_bench.sweep.execution.retries import Unusable, retrying
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import Task, release, run_to_completion

_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory", re.IGNORECASE)

T = TypeVar("T")


@dataclass(frozen=True)
class AttemptOutcome:
    """The outcome of an attempt at a cell.

    Kinds: "done"; "present" (the cell already had a result); "duplicate" (another process delivered first); "claimed"
    (another process, possibly alive, has claimed the cell); "failed"; "interrupted"; "unwritten" (the results folder
    cannot be read or written: the cell remains to be done); "crowded" (out of memory while other cells ran in the same
    process: the cell remains to be done, with fewer at a time).
    """

    kind: str
    cause: str | None = None
    accuracy: float | None = None
    status: str | None = None


class Stop:
    """A request to all running cells to save a checkpoint and stop; safe to use in a signal handler."""

    def __init__(self) -> None:
        self.requested = False
        self._asked: list[Checkpoints] = []

    def request(self) -> None:
        """Stop the cells at their next step; a cell that has not begun to train has nothing to save."""
        self.requested = True
        for checkpoints in list(self._asked):
            checkpoints.request_stop()

    @contextmanager
    def reaching(self, checkpoints: Checkpoints) -> Iterator[None]:
        """Forward requests to `checkpoints` while the context is active."""
        self._asked.append(checkpoints)
        if self.requested:
            checkpoints.request_stop()
        try:
            yield
        finally:
            self._asked.remove(checkpoints)


def execute(
    run: Run,
    settings: RunSettings,
    runner: CellRunner,
    owner: Owner,
    *,
    callback: Callback | None = None,
    stop: Stop | None = None,
) -> AttemptOutcome:
    """Run `executing` to completion."""
    work = executing(run, settings, runner, owner, callback=callback, stop=stop)
    try:
        return run_to_completion(work, runner.device)
    except DeviceFault as fault:
        print(f"pai-bench: {fault}", file=sys.stderr, flush=True)
        raise


def executing(
    run: Run,
    settings: RunSettings,
    runner: CellRunner,
    owner: Owner,
    *,
    callback: Callback | None = None,
    stop: Stop | None = None,
    jobs: Mapping[str, str] | None = None,
    alone: Callable[[], bool] = lambda: True,
) -> Task[AttemptOutcome]:
    """Run a cell step by step, unless it has a result or a live process has claimed it. The result or failure is on
    disk afterwards.

    `jobs` holds the states of the SLURM jobs, as far as they are known. `alone` returns True when no other cell is
    running in this process.
    """
    callback = callback or Callback()
    attempt = _Attempt(run, settings, owner, callback, stop or Stop(), alone)
    try:
        if not settings.redo and attempt.present():
            return AttemptOutcome("present")
        claim = attempt.retry(lambda: take(settings.root, attempt.key, owner, jobs, callback.tick))
        if claim is None:
            return AttemptOutcome("claimed")
        with claim, CellLog(attempt.key.log_path(settings.root), owner.attempt) as log:
            if not settings.redo and attempt.present():
                return AttemptOutcome("present")  # its owner delivered the result just before we took the claim
            log.say(f"begins: {run.cell} · {run.recipe.name}")
            work = attempt.run(runner, claim, log)
            ended: AttemptOutcome | None = None
            while ended is None:
                with log.printing():
                    try:
                        next(work)
                    except StopIteration as end:
                        ended = end.value
                if ended is None:
                    yield
            log.say(f"{ended.kind}{f': {ended.cause}' if ended.cause else ''}")
    except Unusable as error:
        return AttemptOutcome("unwritten", str(error))
    if ended.kind in ("oom", "crowded"):
        if alone():
            runner.forget()
        release()
    return replace(ended, kind="failed") if ended.kind == "oom" else ended


class _Attempt:
    """The state that the steps of an attempt at a cell share."""

    def __init__(
        self,
        run: Run,
        settings: RunSettings,
        owner: Owner,
        callback: Callback,
        stop: Stop,
        alone: Callable[[], bool],
    ) -> None:
        self._run = run
        self._settings = settings
        self._owner = owner
        self._callback = callback
        self._stop = stop
        self._alone = alone
        self.key = run.key()

    def present(self) -> bool:
        """Return True if the cell has a result. A damaged result does not count; delivery sets it aside.

        Raises: Unusable when the file cannot be read within `disk_patience`.
        """
        try:
            return self.retry(lambda: results.present(self._settings.root, self.key), cannot="be read")
        except DamagedResult:
            return False

    def run(self, runner: CellRunner, claim: Claim, log: CellLog) -> Task[AttemptOutcome]:
        """Run the claimed cell and deliver the result."""
        root, settings = self._settings.root, self._settings
        folder = self.key.checkpoints_folder(root)
        checkpoints = _LoggedCheckpoints(folder, self._owner.attempt, settings.checkpoint_every, note=log.say)
        callback = _AttemptCallback(claim, log, self._stop, self._callback)
        try:
            callback.phase("loading")
            origin = runner.dataset(self._run).origin
            self.retry(lambda: dataset_copy.settle(root, self._run.cell.dataset, origin), callback)
            with self._stop.reaching(checkpoints):
                outcome = yield from runner.running(self._run, callback, checkpoints)
            delivery = self.retry(
                lambda: results.deliver(root, outcome.result, outcome.masks, owner=self._owner.id, redo=settings.redo),
                callback,
            )
        except Interrupted:
            return AttemptOutcome("interrupted")
        except Unusable as error:
            return AttemptOutcome("unwritten", str(error))
        except Exception as error:
            return self._failed(error, log)
        # The result is on disk; the next sweep repeats the clean-up if it fails here.
        with suppress(OSError):
            results.clear_failure(root, self.key)
        if settings.keep_checkpoints:
            results.keep_checkpoints(root, self.key)
        else:
            checkpoints.clear()
        result = outcome.result
        if delivery.differs:
            log.say(f"the result delivered first has a different {', a different '.join(delivery.differs)}")
        return AttemptOutcome("duplicate" if delivery.duplicate else "done", None, result.accuracy, result.status)

    def _failed(self, error: Exception, log: CellLog) -> AttemptOutcome:
        line = f"{type(error).__name__}: {str(error).partition(chr(10))[0] or 'no message'}"
        if isinstance(error, PaiBenchError):
            line = f"{error.cause}; {error.remedy}"
        kind = "error"
        if ends_process(error):
            log.say(traceback.format_exc().rstrip())
            # Kernels run asynchronously: any cell of the process may have caused the error. No cell is recorded as
            # failed here; each of them resumes alone, which shows the one that fails again.
            raise DeviceFault(line)
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
            isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error))
        ):
            kind = "oom"
            if not self._alone():
                log.say(f"{line}; the cell resumes when fewer cells run")
                return AttemptOutcome("crowded", line)
            line = f"out of memory ({line}); use fewer workers, a smaller batch size or a larger device"
        trace = traceback.format_exc()
        log.say(trace.rstrip())
        with suppress(OSError):
            results.write_failure(self._settings.root, self.key, cause=line, traceback=trace, kind=kind)
        return AttemptOutcome("oom" if kind == "oom" else "failed", line)

    def retry(self, action: Callable[[], T], callback: Callback | None = None, *, cannot: str = "be written to") -> T:
        """Run an action on the results folder, and retry it for `disk_patience` seconds.

        Raises: Unusable when the action still fails then.
        """
        return retrying(
            *(action, self._settings.disk_patience, lambda: self._stop.requested),
            phases=callback or self._callback,
            ticks=self._callback,
            cannot=cannot,
        )


class _LoggedCheckpoints(Checkpoints):
    """Checkpoints that record in the cell's log the step from which the cell resumes."""

    def load(self, **expected: Any) -> dict[str, Any] | None:
        state = super().load(**expected)
        if state is not None:
            self._note(f"resumes from a checkpoint: epoch {state['epoch']}, step {state['step']}")
        return state


class _AttemptCallback(Callback):
    """A callback that forwards the events of a cell to its claim, its log and the caller's callback."""

    def __init__(self, claim: Claim, log: CellLog, stop: Stop, callback: Callback) -> None:
        self._claim = claim
        self._log = log
        self._stop = stop
        self._callback = callback
        self._phase = ""
        self._began: float | None = None

    def phase(self, phase: str) -> None:
        self._phase = phase
        self._began = time.monotonic()
        self._claim.beat(phase=phase)
        self._log.say(phase)
        self._callback.phase(phase)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        now = time.monotonic()
        seconds = None if self._began is None else round(now - self._began, 3)
        self._began = now
        self._claim.beat(epoch=epoch.epoch, epochs=epochs, seconds_per_epoch=seconds)
        self._log.say(f"epoch {epoch.epoch}/{epochs}: loss {epoch.loss}, accuracy {epoch.accuracy}")
        self._callback.epoch(epoch, epochs)

    def tick(self) -> None:
        self._claim.tick()
        self._callback.tick()
        # Scoring has no checkpoints: it stops at once, and begins again in the next attempt.
        if self._stop.requested and self._phase == "scoring":
            raise Interrupted
