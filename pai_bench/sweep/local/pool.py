"""Worker pool: distribute a sweep's jobs to worker processes on this machine, and replace workers that die."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import Run
from pai_bench.results import Failure
from pai_bench.sweep.execution import device_fault
from pai_bench.sweep.execution.claims import survey
from pai_bench.sweep.execution.packing import alike
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.local.worker import GRACE_SECONDS
from pai_bench.sweep.local.worker_process import Events, Worker, places
from pai_bench.sweep.planning.plan import Job

MAX_DEATHS = 3
"""Number of worker deaths on one cell, without an epoch of progress in between, after which the cell has failed."""

HANG_SECONDS = 1800.0
"""Default of the time without progress after which a worker is killed."""

LOOK_SECONDS = 2.0
"""Seconds between two checks of cells that other processes have claimed."""


class Observer(Protocol):
    """Receiver of a pool's events, which shows the progress."""

    def started(self, run: Run) -> None: ...
    def phase(self, run: Run, phase: str) -> None: ...
    def epoch(self, run: Run, epoch: int, epochs: int) -> None: ...
    def done(self, run: Run, accuracy: float | None, status: str) -> None: ...
    def done_elsewhere(self, run: Run) -> None: ...
    def failed(self, run: Run, cause: str) -> None: ...
    def lost(self, run: Run, cause: str) -> None: ...
    def elsewhere(self, run: Run) -> None: ...
    def unwritable(self, run: Run, cause: str) -> None: ...
    def tick(self) -> None: ...


class Pool:
    """Feeds runs to worker processes, replaces dead workers, and waits for cells that other processes have claimed."""

    def __init__(
        self,
        jobs: Sequence[Job],
        settings: RunSettings,
        observer: Observer,
        elsewhere: Sequence[Run] = (),
        *,
        workers: int | None = None,
        hang_after: float = HANG_SECONDS,
    ) -> None:
        """Prepare up to `workers` workers (None: as many as fit), killed after `hang_after` s without progress."""
        self._jobs = deque(job.runs for job in jobs)
        self._settings = settings
        self._hang_after = hang_after
        self._observer = observer
        self._events: Events = queue.SimpleQueue()
        self._workers: dict[int, Worker] = {}
        self._deaths: dict[Run, int] = {}
        self._reached: dict[Run, int] = {}
        self._elsewhere: dict[Run, Failure | None] = {}
        """Runs claimed by other processes, with the failure note that existed at that time."""
        self._places = deque(places(workers, sum(map(len, self._jobs)) + len(elsewhere)))
        """Devices without a worker."""
        self._started = 0
        self._failed_starts = 0
        self._ending = False
        self._checked = time.monotonic()
        for run in elsewhere:
            self._leave(run)

    def run(self) -> None:
        """Run until no cell is left; all workers have ended when the method returns or raises.

        The first interrupt gives running cells some seconds to save a checkpoint; a second one ends the workers at
        once.
        """
        try:
            self._assign_work()
            while self._workers or self._elsewhere:
                self._step()
        except KeyboardInterrupt:
            self._end()
            for worker in self._workers.values():
                worker.dismiss()
            # Workers exit after GRACE_SECONDS themselves; their last events need a moment longer.
            end = time.monotonic() + GRACE_SECONDS + 1
            while self._workers and time.monotonic() < end:
                self._step()
            raise
        finally:
            for worker in self._workers.values():
                worker.kill()

    def _end(self) -> None:
        """Stop handing out runs."""
        self._ending = True
        self._jobs.clear()
        self._elsewhere.clear()
        for worker in self._workers.values():
            worker.pending.clear()

    def _step(self) -> None:
        try:
            # The timeout lets the display and the checks for hanging workers continue while no event arrives.
            number, event = self._events.get(timeout=0.5)
        except queue.Empty:
            self._observer.tick()
        else:
            if event is None:
                self._handle_exit(self._workers[number])
            else:
                self._handle(self._workers[number], event)
        for worker in self._workers.values():
            worker.check(self._hang_after)
        if self._elsewhere and time.monotonic() - self._checked >= LOOK_SECONDS:
            self._check_elsewhere()

    def _assign_work(self) -> None:
        """Give runs to idle workers, start as many workers as there is work for, and dismiss workers without work."""
        for worker in self._workers.values():
            if worker.free:
                self._feed(worker)
        starting = sum(not worker.ready for worker in self._workers.values())
        for _ in range(min(len(self._jobs) + self._not_begun() - starting, len(self._places))):
            worker = Worker(self._started, self._places.popleft(), self._settings, self._events)
            self._workers[self._started] = worker
            self._started += 1

    def _feed(self, worker: Worker) -> None:
        while worker.free and (run := self._next(worker)) is not None:
            worker.give(run)
            self._observer.started(run)
        if worker.idle and not self._elsewhere:  # else keep it: cells claimed by others return if their owners die
            worker.dismiss()

    def _not_begun(self) -> int:
        """Count the runs assigned to workers but not yet sent to them."""
        return sum(len(worker.pending) for worker in self._workers.values())

    def _next(self, worker: Worker) -> Run | None:
        """Choose the next run for a worker.

        A busy worker gets only a run that may share a pack with its runs and that no idle worker needs. An idle worker
        without a job of its own gets the last run of the worker with the most runs left.
        """
        if not worker.pending and not worker.current and not self._jobs and self._not_begun():
            return max(self._workers.values(), key=lambda other: len(other.pending)).pending.pop()
        if not worker.pending:
            waiting = sum(not other.current for other in self._workers.values()) if worker.current else 0
            if len(self._jobs) <= waiting or not self._may_join(self._jobs[0][0], worker):
                return None
            worker.pending.extend(self._jobs.popleft())
        return worker.pending.popleft() if self._may_join(worker.pending[0], worker) else None

    def _may_join(self, run: Run, worker: Worker) -> bool:
        """Return True if the run may join the worker's runs; a run on which a worker has died runs alone."""
        others = list(worker.current.values())
        return not others or (alike(run, others[0]) and not any(cell in self._deaths for cell in (run, *others)))

    def _handle(self, worker: Worker, event: dict[str, Any]) -> None:
        kind, run = event["event"], worker.current.get(event.get("id", 0))
        worker.sign()
        if kind == "ready":
            worker.ready = True
            self._failed_starts = 0
            self._feed(worker)
        elif kind == "room":
            worker.room = event["room"]
            self._assign_work()
        elif run is None:
            return
        elif kind == "phase":
            self._observer.phase(run, event["phase"])
        elif kind == "epoch":
            worker.epochs[run] = event["epoch"]
            self._observer.epoch(run, event["epoch"], event["epochs"])
        elif kind == "ended":
            worker.take_back(event["id"])
            self._ended(run, event)
            self._assign_work()

    def _ended(self, run: Run, ended: dict[str, Any]) -> None:
        kind = ended["kind"]
        if kind in ("done", "duplicate"):
            self._observer.done(run, ended["accuracy"], ended["status"])
        elif kind == "present":
            self._observer.done_elsewhere(run)
        elif kind == "failed":
            self._observer.failed(run, ended["cause"])
        elif kind == "unwritten":
            # The next result could not be written either: running cells end, and no more are handed out.
            self._end()
            self._observer.unwritable(run, ended["cause"])
        elif kind == "claimed" and not self._ending:
            self._leave(run)

    def _leave(self, run: Run) -> None:
        """Leave a run to the process that has claimed it, and check on it later."""
        # An earlier failure must not be taken for the outcome of the attempt that is running elsewhere.
        self._elsewhere[run] = results.read_failure(self._settings.root, run.key())
        self._observer.elsewhere(run)

    def _check_elsewhere(self) -> None:
        """Check the cells claimed by other processes, and take back cells whose owners are dead."""
        root = self._settings.root
        held = {claim.key for claim in survey(root) if claim.verdict == "alive"}
        for run, failure in list(self._elsewhere.items()):
            key = run.key()
            if key in held:
                continue
            del self._elsewhere[run]
            noted = results.read_failure(root, key)
            if noted is not None and noted.kind != results.UNREAD and noted != failure:
                self._observer.failed(run, noted.cause)
            else:
                self._jobs.append((run,))  # the worker that takes the run checks for an existing result
        # The interval begins after the survey, which takes long on a slow file server.
        self._checked = time.monotonic()
        self._assign_work()

    def _handle_exit(self, worker: Worker) -> None:
        """Handle the end of a worker: requeue its runs, and free its device for another worker."""
        code = worker.wait()
        del self._workers[worker.number]
        self._places.append(worker.place)
        if not worker.ready and not self._ending:
            self._failed_starts += 1
            # In a broken environment no worker gets ready, and each would be replaced without end.
            if self._failed_starts >= MAX_DEATHS:
                raise PaiBenchError(f"workers exited with code {code} before they were ready", f"see {worker.log}")
        if not self._ending:
            if worker.pending:
                self._jobs.appendleft(tuple(worker.pending))
            # The runs return one by one, because any of them may have killed the worker.
            for run in worker.current.values():
                if self._died(worker, run, code):
                    self._jobs.appendleft((run,))
        self._assign_work()

    def _died(self, worker: Worker, run: Run, code: int) -> bool:
        """Record that a worker has died on a run; return True if the run may be tried again."""
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        cause = f"the worker died ({how})"
        if code == device_fault.EXIT_CODE:
            cause = "the GPU reported an error that ended the worker; see the log of the cell"
        if worker.hung:
            cause = f"the worker hung: no sign of progress for {self._hang_after:g} s"
        epoch = worker.epochs[run]
        # A cell that gains an epoch in each attempt will finish, however often its worker is killed.
        deaths = 0 if epoch > self._reached.get(run, 0) else self._deaths.get(run, 0)
        self._reached[run] = max(epoch, self._reached.get(run, 0))
        self._deaths[run] = deaths + 1
        if self._deaths[run] < MAX_DEATHS:
            self._observer.lost(run, cause)
            return True
        cause = f"{cause}, {MAX_DEATHS} times"
        kind = "hang" if worker.hung else "died"
        with suppress(OSError):
            # On a full disk the other cells continue, and the summary still names the failure.
            results.write_failure(self._settings.root, run.key(), cause=cause, traceback="", kind=kind)
        self._observer.failed(run, cause)
        return False
