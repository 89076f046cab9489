"""Run a sweep's jobs on this machine: worker processes that may die, and a sweep that goes on."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pai_bench import results
from pai_bench.errors import PaiBenchError
from pai_bench.experiment import Run
from pai_bench.sweep.planning import Job

MAX_DEATHS = 3
"""A cell on which this many workers have died is recorded as failed."""


class Observer(Protocol):
    """Is told what happens; shows it."""

    def started(self, run: Run) -> None: ...
    def epoch(self, run: Run, epoch: int, epochs: int) -> None: ...
    def done(self, run: Run, accuracy: float, status: str) -> None: ...
    def failed(self, run: Run, cause: str) -> None: ...
    def lost(self, run: Run, cause: str) -> None: ...
    def tick(self) -> None: ...


@dataclass(frozen=True)
class Settings:
    """Where results and data are, which plug-ins to load, and how many workers to run (None: what fits)."""

    results: Path
    data_dir: Path | None = None
    plugins: tuple[Path, ...] = ()
    workers: int | None = None


@dataclass
class _Worker:
    number: int
    place: str
    process: subprocess.Popen[str]
    log: Path
    ready: bool = False
    pending: deque[Run] = field(default_factory=deque)
    current: Run | None = None


def places(workers: int | None, jobs: int) -> list[str]:
    """The device of each worker: as many as wanted (None: what fits), no more than there are jobs."""
    found = devices()
    return [found[index % len(found)] for index in range(min(workers or len(found), jobs))]


def devices() -> list[str]:
    """Where one worker each can run: every GPU, else every CPU core that this process may use."""
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu"] * usable_cores()


def usable_cores() -> int:
    """CPU cores of this process's affinity, or of its container's quota when that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


class Pool:
    """Feeds jobs to worker processes and outlives their deaths."""

    def __init__(self, jobs: Sequence[Job], settings: Settings, observer: Observer) -> None:
        self._jobs = deque(job.runs for job in jobs)
        self._settings = settings
        self._observer = observer
        self._events: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()
        self._workers: dict[int, _Worker] = {}
        self._deaths: dict[Run, int] = {}
        self._places = places(settings.workers, len(self._jobs))
        self._started = 0
        self._stillborn = 0

    def run(self) -> None:
        """Work until nothing is left; on any way out no worker stays behind."""
        try:
            for place in self._places:
                self._spawn(place)
            while self._workers:
                try:
                    number, event = self._events.get(timeout=0.5)
                except queue.Empty:
                    self._observer.tick()
                    continue
                worker = self._workers[number]
                if event is None:
                    self._bury(worker)
                else:
                    self._handle(worker, event)
        finally:
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.wait()

    def _spawn(self, place: str) -> None:
        number, self._started = self._started, self._started + 1
        device, _, index = place.partition(":")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if index:
            # The index is one of the devices that this process sees, which need not be all of the machine's.
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)] if visible else index
        command = [sys.executable, "-m", "pai_bench.sweep.worker", "--results", str(self._settings.results)]
        command += ["--device", device]
        if self._settings.data_dir is not None:
            command += ["--data-dir", str(self._settings.data_dir)]
        for plugin in self._settings.plugins:
            command += ["--plugin", str(plugin)]
        log = results.log_path(self._settings.results, f"worker-{os.getpid()}-{number}")
        with log.open("w") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
                # Ctrl-C is the sweep's to handle; its workers must not see it first.
                start_new_session=True,
            )
        self._workers[number] = _Worker(number, place, process, log)
        threading.Thread(target=self._listen, args=(number, process), daemon=True).start()

    def _listen(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._events.put((number, json.loads(line)))
            except json.JSONDecodeError:
                break  # cut off in the middle of a line: the worker is dying
        self._events.put((number, None))

    def _feed(self, worker: _Worker) -> None:
        assert worker.process.stdin is not None
        if not self._jobs:
            worker.process.stdin.close()
            return
        runs = self._jobs.popleft()
        worker.pending = deque(runs)
        job = {"cells": [asdict(run.cell) for run in runs], "recipe": runs[0].recipe.as_dict()}
        try:
            worker.process.stdin.write(json.dumps(job) + "\n")
            worker.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; its end is on the way and brings the job back

    def _handle(self, worker: _Worker, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind in ("ready", "idle"):
            worker.ready = True
            self._stillborn = 0
            self._feed(worker)
        elif kind == "start":
            worker.current = worker.pending.popleft()
            self._observer.started(worker.current)
        elif worker.current is not None:
            run = worker.current
            if kind == "epoch":
                self._observer.epoch(run, event["epoch"], event["epochs"])
                return
            worker.current = None
            if kind == "done":
                self._observer.done(run, event["accuracy"], event["status"])
            else:
                self._observer.failed(run, event["cause"])

    def _bury(self, worker: _Worker) -> None:
        """A worker's end: give back what it had, and put another in its place if there is work."""
        code = worker.process.wait()
        del self._workers[worker.number]
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= MAX_DEATHS:
                raise PaiBenchError(f"workers end with code {code} before they are ready", f"see {worker.log}")
        left = list(worker.pending)
        run = worker.current
        if run is not None:
            cause = f"the worker died ({'signal ' + str(-code) if code < 0 else 'exit code ' + str(code)})"
            self._deaths[run] = self._deaths.get(run, 0) + 1
            if self._deaths[run] < MAX_DEATHS:
                self._observer.lost(run, cause)
                left.insert(0, run)
            else:
                cause = f"{cause}, {MAX_DEATHS} times"
                results.write_failure(
                    self._settings.results, run.cell, run.recipe.name, run.fingerprint(), cause=cause, traceback=""
                )
                self._observer.failed(run, cause)
        if left:
            self._jobs.appendleft(tuple(left))
        if self._jobs:
            self._spawn(worker.place)
