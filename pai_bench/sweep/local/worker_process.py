"""Control of worker processes by the sweep: start them on a device, exchange messages, and kill them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pai_bench import results
from pai_bench.experiment.runner import Run
from pai_bench.sweep.execution.settings import RunSettings

_COMMAND = (sys.executable, "-m", "pai_bench.sweep.local.worker")

START_SECONDS = 600.0
"""Seconds that a worker may take to be ready; imports from a busy network disk are slow."""

DUMP_SECONDS = 2.0
"""Seconds that a hanging worker has to write its traceback."""


def places(workers: int | None, jobs: int) -> list[str]:
    """Return the device of each worker: `workers` of them (None: as many as fit), at most one per job."""
    found = devices()
    return [found[index % len(found)] for index in range(min(workers or len(found), jobs))]


def devices() -> list[str]:
    """Return a device for each possible worker: every GPU, or else every CPU core that this process may use."""
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu"] * usable_cores()


def usable_cores() -> int:
    """Count the CPU cores in this process's affinity mask, or in its container's quota if that is smaller."""
    # os.cpu_count counts all cores of a node, of which a SLURM job may use only a few.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def command(place: str, settings: RunSettings) -> list[str]:
    """Return the command line of a worker on the device `place`."""
    # The index is left out, because `_environment` makes a single GPU visible to the worker.
    return [*_COMMAND, "--device", place.partition(":")[0], "--settings", settings.to_json()]


Events = queue.SimpleQueue[tuple[int, dict[str, Any] | None]]
"""Queue of (number of the worker, event); None instead of an event marks the worker's end."""


class Worker:
    """One worker process with its assigned runs and its active runs."""

    def __init__(self, number: int, place: str, settings: RunSettings, events: Events) -> None:
        self.number = number
        self.place = place
        self.log = results.log_path(settings.root, f"worker-{os.getpid()}-{number}")
        self.pending: deque[Run] = deque()
        self.current: dict[int, Run] = {}
        """Active runs, by the id used in messages to the worker."""
        self.epochs: dict[Run, int] = {}
        """The last finished epoch of each active run."""
        self.room = settings.pack or 1
        """Number of runs that the worker executes at a time."""
        self._least_room = self.room
        self._given = 0
        self.ready = False
        self.hung = False
        self._dismissed = False
        self._sign = time.monotonic()
        self._kill_at: float | None = None
        with _opened(self.log) as stderr:
            self.process = subprocess.Popen(
                command(place, settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=_environment(place),
                # The sweep handles Ctrl-C; in a session of their own the workers do not receive it.
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events: Events) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                break  # an incomplete line: the worker died while writing it
            events.put((self.number, event))
        events.put((self.number, None))

    @property
    def idle(self) -> bool:
        """Return True if the worker is ready and has no run."""
        return self.free and not self.current

    @property
    def free(self) -> bool:
        """Return True if the worker can accept a run."""
        return self.ready and not self._dismissed and len(self.current) < self.room

    def give(self, run: Run) -> None:
        """Send a run to the worker."""
        if not self.current:
            self.room = self._least_room  # until the worker reports the number for the new kind
        self._given += 1
        self.current[self._given] = run
        self.epochs[run] = 0
        self.sign()
        assert self.process.stdin is not None
        # If the worker has died, the event of its end is in the queue and requeues the run.
        with suppress(BrokenPipeError):
            message = {"id": self._given, "cell": asdict(run.cell), "recipe": run.recipe.as_dict()}
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def take_back(self, number: int) -> Run:
        """Remove and return a run that has ended."""
        run = self.current.pop(number)
        del self.epochs[run]
        return run

    def dismiss(self) -> None:
        """Dismiss the worker; its running cells save a checkpoint first."""
        self._dismissed = True
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def sign(self) -> None:
        """Record a sign of progress."""
        self._sign = time.monotonic()

    def check(self, hang_after: float) -> None:
        """Kill the worker if it makes no progress on its work; before, write its traceback to the cell's log."""
        now = time.monotonic()
        patience = hang_after if self.ready else max(hang_after, START_SECONDS)
        if self._kill_at is not None:
            if now >= self._kill_at:
                self.process.kill()
        elif not self.idle and now - self._sign > patience:
            self.hung = True
            self._kill_at = now + DUMP_SECONDS
            self.process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Kill the worker at once."""
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code; delete its log if empty."""
        code = self.process.wait()
        with suppress(OSError):
            if self.log.stat().st_size == 0:
                self.log.unlink()
        return code


def _opened(log: Path) -> IO[bytes]:
    """Open the worker's log; on a full disk return /dev/null instead."""
    try:
        return log.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")


def _environment(place: str) -> dict[str, str]:
    # The workers already occupy all cores, and another number of threads may change the order of sums.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    index = place.partition(":")[2]
    if index:
        # The index counts the devices visible to this process, which may be a subset of the machine's devices.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)] if visible else index
    return environment
