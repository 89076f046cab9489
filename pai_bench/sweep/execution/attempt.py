"""One attempt at a cell, on any machine: claim it, resume from its checkpoint, run it, and deliver the result."""

from __future__ import annotations

import errno
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import torch

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.experiment.score_cache import DiskCache, ScoreCache
from pai_bench.results import DamagedResult, Epoch
from pai_bench.sweep.execution import dataset_copy
from pai_bench.sweep.execution.cell_log import CellLog
from pai_bench.sweep.execution.claims import Claim, Owner, take
from pai_bench.sweep.execution.device_fault import DeviceFault, ends_process
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import Task, release, run_to_completion

_FULL_OR_FORBIDDEN = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE")
_DISK_AWAY = ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "EREMOTEIO", "ENOLCK", "EHOSTDOWN")
UNWRITABLE = {getattr(errno, name) for name in (*_FULL_OR_FORBIDDEN, *_DISK_AWAY) if hasattr(errno, name)}
"""Error numbers of a folder that temporarily accepts no writes, also on NFS, Lustre and FUSE."""

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


class _Unwritten(Exception):
    """The results folder stayed unusable for longer than `disk_patience`."""


def execute(run: Run, root: Path, runner: CellRunner, owner: Owner, **options: Unpack[Options]) -> AttemptOutcome:
    """Run `executing` to completion."""
    try:
        return run_to_completion(executing(run, root, runner, owner, **options), runner.device)
    except DeviceFault as fault:
        print(f"pai-bench: {fault}", file=sys.stderr, flush=True)
        raise


def shared_scores(root: Path, redo: bool) -> ScoreCache:
    """Return the score cache of this process, shared with the other processes of a results folder.

    With `redo` the cached scores are ignored.
    """
    return ScoreCache(cache=None if redo else DiskCache(results.scores_folder(root)))


class Options(TypedDict, total=False):
    """Keyword options of `executing`."""

    callback: Callback
    stop: Stop
    redo: bool
    checkpoint_every: float
    keep_checkpoints: bool
    patience: float
    """Seconds during which writes to an unusable results folder (a full disk) are retried."""
    jobs: Mapping[str, str]
    """States of the SLURM jobs, as far as they are known."""
    alone: Callable[[], bool]
    """Returns True when no other cell is running in this process."""


def executing(
    run: Run,
    root: Path,
    runner: CellRunner,
    owner: Owner,
    *,
    callback: Callback | None = None,
    stop: Stop | None = None,
    redo: bool = False,
    checkpoint_every: float = 60.0,
    keep_checkpoints: bool = False,
    patience: float = 300.0,
    jobs: Mapping[str, str] | None = None,
    alone: Callable[[], bool] = lambda: True,
) -> Task[AttemptOutcome]:
    """Run a cell step by step, unless it has a result or a live process has claimed it. The result or failure is on
    disk afterwards. For the options see `Options`.
    """
    callback = callback or Callback()
    attempt = _Attempt(run, root, owner, callback, stop or Stop(), patience, alone)
    try:
        if not redo and attempt.present():
            return AttemptOutcome("present")
        claim = attempt.patiently(lambda: take(root, attempt.key, owner, jobs, callback.tick))
        if claim is None:
            return AttemptOutcome("claimed")
        with claim, CellLog(attempt.key.log_path(root), owner.attempt) as log:
            if not redo and attempt.present():
                return AttemptOutcome("present")  # its owner delivered the result just before we took the claim
            log.say(f"begins: {run.cell} · {run.recipe.name}")
            work = attempt.run(runner, claim, log, redo, checkpoint_every, keep_checkpoints)
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
    except _Unwritten as error:
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
        root: Path,
        owner: Owner,
        callback: Callback,
        stop: Stop,
        patience: float,
        alone: Callable[[], bool],
    ) -> None:
        self._run = run
        self._root = root
        self._owner = owner
        self._watch = callback
        self._stop = stop
        self._patience = patience
        self._alone = alone
        self.key = run.key()

    def present(self) -> bool:
        """Return True if the cell has a result. A damaged result does not count; delivery sets it aside.

        Raises: _Unwritten when the file cannot be read within `disk_patience`.
        """
        try:
            return self.patiently(lambda: results.present(self._root, self.key), cannot="be read")
        except DamagedResult:
            return False

    def run(
        self, runner: CellRunner, claim: Claim, log: CellLog, redo: bool, every: float, keep: bool
    ) -> Task[AttemptOutcome]:
        """Run the claimed cell and deliver the result."""
        checkpoints = _Noted(self.key.checkpoints_folder(self._root), self._owner.attempt, every, note=log.say)
        callback = _Watch(claim, log, self._stop, self._watch)
        try:
            callback.phase("loading")
            origin = runner.dataset(self._run).origin
            self.patiently(lambda: dataset_copy.settle(self._root, self._run.cell.dataset, origin), callback)
            with self._stop.reaching(checkpoints):
                outcome = yield from runner.running(self._run, callback, checkpoints)
            delivery = self.patiently(
                lambda: results.deliver(self._root, outcome.result, outcome.masks, owner=self._owner.id, redo=redo),
                callback,
            )
        except Interrupted:
            return AttemptOutcome("interrupted")
        except _Unwritten as error:
            return AttemptOutcome("unwritten", str(error))
        except Exception as error:
            return self._failed(error, log)
        # The result is on disk; the next sweep repeats the clean-up if it fails here.
        with suppress(OSError):
            results.clear_failure(self._root, self.key)
        if keep:
            results.keep_checkpoints(self._root, self.key)
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
            results.write_failure(self._root, self.key, cause=line, traceback=trace, kind=kind)
        return AttemptOutcome("oom" if kind == "oom" else "failed", line)

    def patiently(
        self, action: Callable[[], T], callback: Callback | None = None, *, cannot: str = "be written to"
    ) -> T:
        """Run an action on the results folder; while the folder cannot be read or written, wait and retry.

        Raises: _Unwritten when the action still fails after `disk_patience` seconds.
        """
        callback = callback or self._watch
        end = time.monotonic() + self._patience
        pause = 0.5
        while True:
            try:
                return action()
            except OSError as error:
                if error.errno not in UNWRITABLE:
                    raise
                cause = f"the results folder cannot {cannot}: {error.strerror}"
            if time.monotonic() >= end or self._stop.requested:
                raise _Unwritten(cause)
            callback.phase(f"waiting: {cause}")
            again = min(end, time.monotonic() + pause)
            while time.monotonic() < again and not self._stop.requested:
                time.sleep(0.1)
                self._watch.tick()
            pause = min(2 * pause, 30.0)


class _Noted(Checkpoints):
    """Checkpoints that record in the cell's log the step from which the cell resumes."""

    def load(self, **wanted: Any) -> dict[str, Any] | None:
        state = super().load(**wanted)
        if state is not None:
            self._note(f"resumes from a checkpoint: epoch {state['epoch']}, step {state['step']}")
        return state


class _Watch(Callback):
    """A callback that forwards the events of a cell to its claim, its log and the caller's callback."""

    def __init__(self, claim: Claim, log: CellLog, stop: Stop, callback: Callback) -> None:
        self._claim = claim
        self._log = log
        self._stop = stop
        self._watch = callback
        self._phase = ""
        self._began: float | None = None

    def phase(self, phase: str) -> None:
        self._phase = phase
        self._began = time.monotonic()
        self._claim.beat(phase=phase)
        self._log.say(phase)
        self._watch.phase(phase)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        now = time.monotonic()
        seconds = None if self._began is None else round(now - self._began, 3)
        self._began = now
        self._claim.beat(epoch=epoch.epoch, epochs=epochs, seconds_per_epoch=seconds)
        self._log.say(f"epoch {epoch.epoch}/{epochs}: loss {epoch.loss}, accuracy {epoch.accuracy}")
        self._watch.epoch(epoch, epochs)

    def tick(self) -> None:
        self._claim.tick()
        self._watch.tick()
        if self._stop.requested and self._phase == "scoring":
            raise Interrupted
