"""Run a sweep's jobs on this machine: worker processes that may die, and a sweep that goes on."""

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
from pai_bench.sweep.execution.claims import survey
from pai_bench.sweep.execution.packing import alike
from pai_bench.sweep.execution.settings import Settings
from pai_bench.sweep.local.worker import GRACE_SECONDS
from pai_bench.sweep.local.worker_process import Events, Worker, places
from pai_bench.sweep.planning.plan import Job

MAX_DEATHS = 3
"""A cell on which this many workers have died, none of them an epoch further than the one before, has failed."""

LOOK_SECONDS = 2.0
"""How often it is looked what has become of cells that others work on."""


class Observer(Protocol):
    """Is told what happens; shows it."""

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
    """Feeds runs to worker processes and outlives their deaths; waits for cells that others work on."""

    def __init__(
        self, jobs: Sequence[Job], settings: Settings, observer: Observer, elsewhere: Sequence[Run] = ()
    ) -> None:
        self._jobs = deque(job.runs for job in jobs)
        self._settings = settings
        self._observer = observer
        self._events: Events = queue.SimpleQueue()
        self._workers: dict[int, Worker] = {}
        self._deaths: dict[Run, int] = {}
        self._reached: dict[Run, int] = {}
        self._elsewhere: dict[Run, Failure | None] = {}
        """Runs that others have claimed, and the note of failure that was there then."""
        self._places = deque(places(settings.workers, sum(map(len, self._jobs)) + len(elsewhere)))
        """Devices that have no worker."""
        self._started = 0
        self._stillborn = 0
        self._ending = False
        self._looked = time.monotonic()
        for run in elsewhere:
            self._leave(run)

    def run(self) -> None:
        """Work until nothing is left; on any way out no worker stays behind.

        Interrupted, it lets the cells that run be saved for some seconds; a second time, it ends at once.
        """
        try:
            self._staff()
            while self._workers or self._elsewhere:
                self._step()
        except KeyboardInterrupt:
            self._end()
            for worker in self._workers.values():
                worker.dismiss()
            end = time.monotonic() + GRACE_SECONDS + 1
            while self._workers and time.monotonic() < end:
                self._step()
            raise
        finally:
            for worker in self._workers.values():
                worker.kill()

    def _end(self) -> None:
        """Hand out nothing any more."""
        self._ending = True
        self._jobs.clear()
        self._elsewhere.clear()
        for worker in self._workers.values():
            worker.pending.clear()

    def _step(self) -> None:
        try:
            number, event = self._events.get(timeout=0.5)
        except queue.Empty:
            self._observer.tick()
        else:
            if event is None:
                self._bury(self._workers[number])
            else:
                self._handle(self._workers[number], event)
        for worker in self._workers.values():
            worker.check(self._settings.hang_after)
        if self._elsewhere and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()

    def _staff(self) -> None:
        """Give idle workers what there is to do, start as many as there is work for, let go who is not needed."""
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
        if worker.idle and not self._elsewhere:  # else it may be needed, should their owners die
            worker.dismiss()

    def _not_begun(self) -> int:
        """How many runs are in the hands of workers that are busy with others."""
        return sum(len(worker.pending) for worker in self._workers.values())

    def _next(self, worker: Worker) -> Run | None:
        """A run for a worker; beside others only one that may share with them, and that no other worker waits for.

        An idle worker takes the last run of the one that has most left, rather than to have none.
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
        """Whether a worker may have it beside those that it has; one that a worker has died with is run alone."""
        others = list(worker.current.values())
        return not others or (alike(run, others[0]) and not any(cell in self._deaths for cell in (run, *others)))

    def _handle(self, worker: Worker, event: dict[str, Any]) -> None:
        kind, run = event["event"], worker.current.get(event.get("id", 0))
        worker.sign()
        if kind == "ready":
            worker.ready = True
            self._stillborn = 0
            self._feed(worker)
        elif kind == "room":
            worker.room = event["room"]
            self._staff()
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
            self._staff()

    def _ended(self, run: Run, ended: dict[str, Any]) -> None:
        kind = ended["kind"]
        if kind in ("done", "duplicate"):
            self._observer.done(run, ended["accuracy"], ended["status"])
        elif kind == "present":
            self._observer.done_elsewhere(run)
        elif kind == "failed":
            self._observer.failed(run, ended["cause"])
        elif kind == "unwritten":
            # What cannot be written now can not be written after the next cell either: others end theirs, no more.
            self._end()
            self._observer.unwritable(run, ended["cause"])
        elif kind == "claimed" and not self._ending:
            self._leave(run)

    def _leave(self, run: Run) -> None:
        """Leave a run to others, and keep an eye on it."""
        self._elsewhere[run] = results.read_failure(*self._address(run))
        self._observer.elsewhere(run)

    def _address(self, run: Run) -> tuple[Any, Any, str, str]:
        return self._settings.results, run.cell, run.recipe.name, run.fingerprint()

    def _look(self) -> None:
        """See what has become of the cells that others work on, and take those whose owners are dead."""
        held = {(h.cell, h.recipe, h.fingerprint) for h in survey(self._settings.results) if h.verdict == "alive"}
        for run, failure in list(self._elsewhere.items()):
            address = self._address(run)
            if address[1:] in held:
                continue
            del self._elsewhere[run]
            noted = results.read_failure(*address)
            if noted is not None and noted.kind != results.UNREAD and noted != failure:
                self._observer.failed(run, noted.cause)
            else:
                self._jobs.append((run,))  # whoever takes it sees whether it has its result
        self._looked = time.monotonic()
        self._staff()

    def _bury(self, worker: Worker) -> None:
        """A worker's end: give back what it had, and put another in its place if there is work."""
        code = worker.wait()
        del self._workers[worker.number]
        self._places.append(worker.place)
        if not worker.ready and not self._ending:
            self._stillborn += 1
            if self._stillborn >= MAX_DEATHS:
                raise PaiBenchError(f"workers end with code {code} before they are ready", f"see {worker.log}")
        if not self._ending:
            if worker.pending:
                self._jobs.appendleft(tuple(worker.pending))
            for run in worker.current.values():
                if self._died(worker, run, code):
                    self._jobs.appendleft((run,))
        self._staff()

    def _died(self, worker: Worker, run: Run, code: int) -> bool:
        """Note that a worker has died on a run; whether the run may be tried again."""
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        cause = f"the worker died ({how})"
        if worker.hung:
            cause = f"the worker hung: no sign of progress for {self._settings.hang_after:g} s"
        epoch = worker.epochs[run]
        deaths = 0 if epoch > self._reached.get(run, 0) else self._deaths.get(run, 0)
        self._reached[run] = max(epoch, self._reached.get(run, 0))
        self._deaths[run] = deaths + 1
        if self._deaths[run] < MAX_DEATHS:
            self._observer.lost(run, cause)
            return True
        cause = f"{cause}, {MAX_DEATHS} times"
        kind = "hang" if worker.hung else "died"
        with suppress(OSError):
            results.write_failure(*self._address(run), cause=cause, traceback="", kind=kind)
        self._observer.failed(run, cause)
        return False
