"""Worker processes as the sweep sees them: started on a device, spoken to, and killed."""

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
from pai_bench.sweep.execution.settings import Settings

_COMMAND = (sys.executable, "-m", "pai_bench.sweep.local.worker")

START_SECONDS = 600.0
"""How long a worker may take to be ready: a busy network disk is slow to import from."""

DUMP_SECONDS = 2.0
"""How long a worker that hangs has for saying where."""


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


Events = queue.SimpleQueue[tuple[int, dict[str, Any] | None]]
"""(number of the worker, what it tells); None is its end."""


class Worker:
    """One worker process, the runs it is still to be given, and those it has."""

    def __init__(self, number: int, place: str, settings: Settings, events: Events) -> None:
        self.number = number
        self.place = place
        self.log = results.log_path(settings.results, f"worker-{os.getpid()}-{number}")
        self.pending: deque[Run] = deque()
        self.current: dict[int, Run] = {}
        """The runs it has, by the numbers that it knows them by."""
        self.epochs: dict[Run, int] = {}
        """How far they are."""
        self.room = settings.pack or 1
        """How many it does at a time."""
        self._least_room = self.room
        self._given = 0
        self.ready = False
        self.hung = False
        self._dismissed = False
        self._sign = time.monotonic()
        self._kill_at: float | None = None
        with _opened(self.log) as stderr:
            self.process = subprocess.Popen(
                [*_COMMAND, "--device", place.partition(":")[0], *settings.arguments()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=_environment(place),
                # Ctrl-C is the sweep's to handle; its workers must not see it first.
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events: Events) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                break  # cut off in the middle of a line: the worker is dying
            events.put((self.number, event))
        events.put((self.number, None))

    @property
    def idle(self) -> bool:
        """Whether it has no run and waits for one."""
        return self.free and not self.current

    @property
    def free(self) -> bool:
        """Whether it can be given a run."""
        return self.ready and not self._dismissed and len(self.current) < self.room

    def give(self, run: Run) -> None:
        """Let it do a run."""
        if not self.current:
            self.room = self._least_room  # until it says what it does of the new kind
        self._given += 1
        self.current[self._given] = run
        self.epochs[run] = 0
        self.sign()
        assert self.process.stdin is not None
        # If it has died, its end is on the way and brings the run back.
        with suppress(BrokenPipeError):
            told = {"id": self._given, "cell": asdict(run.cell), "recipe": run.recipe.as_dict()}
            self.process.stdin.write(json.dumps(told) + "\n")
            self.process.stdin.flush()

    def take_back(self, number: int) -> Run:
        """A run that it has ended with."""
        run = self.current.pop(number)
        del self.epochs[run]
        return run

    def dismiss(self) -> None:
        """Let it go; the cells that it works on are saved before."""
        self._dismissed = True
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def sign(self) -> None:
        """Note a sign of progress."""
        self._sign = time.monotonic()

    def check(self, hang_after: float) -> None:
        """Kill it if it has work and shows no sign of progress; where it hangs is written to the cell's log before."""
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
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended; an empty log goes."""
        code = self.process.wait()
        with suppress(OSError):
            if self.log.stat().st_size == 0:
                self.log.unlink()
        return code


def _opened(log: Path) -> IO[bytes]:
    """The log to write to; on a full disk there is none."""
    try:
        return log.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")


def _environment(place: str) -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    index = place.partition(":")[2]
    if index:
        # The index is one of the devices that this process sees, which need not be all of the machine's.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)] if visible else index
    return environment
