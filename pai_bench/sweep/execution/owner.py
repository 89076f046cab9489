"""Owners of claims, and detection of dead owners."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STALE_SECONDS = 120.0
"""Age in seconds above which a heartbeat is stale: twelve beats, and twice the longest NFS attribute cache time."""

ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}
)
"""Final states of a SLURM job; a requeued job is in a queued state instead."""


@dataclass(frozen=True)
class Owner:
    """A process that claims cells."""

    id: str
    host: str
    machine: str
    """Identifies the boot and the container (PID namespace) in which the process number is valid."""
    pid: int
    ticks: int | None
    """Start time of the process in ticks since boot; needed because process numbers are reused."""
    job: str | None
    """The SLURM job, as "id" or "arrayid_task"."""
    restart: int
    sweep: str | None

    @classmethod
    def current(cls, sweep: str | None = None) -> Owner:
        """Return an owner for this process, with a new id."""
        get = os.environ.get
        job = get("SLURM_JOB_ID")
        if get("SLURM_ARRAY_JOB_ID") and get("SLURM_ARRAY_TASK_ID"):
            # squeue lists a task of an array under this id, and SLURM_JOB_ID is another number.
            job = f"{get('SLURM_ARRAY_JOB_ID')}_{get('SLURM_ARRAY_TASK_ID')}"
        return cls(
            id=uuid.uuid4().hex[:16],
            # The cluster's name of a node may differ from its host name, and is the one that squeue shows.
            host=get("SLURMD_NODENAME") or socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            ticks=_ticks(os.getpid()),
            job=job,
            restart=int(get("SLURM_RESTART_COUNT") or 0),
            sweep=sweep,
        )

    @property
    def attempt(self) -> str:
        """Return the name under which this process writes checkpoints and log lines."""
        where = f"{self.host}-{self.pid}" if self.job is None else f"{self.job}-{self.restart}"
        return f"{where}-{self.id[:8]}"

    def runs_here(self) -> bool | None:
        """Return True if the process is alive, False if it is dead, None if it belongs to another machine."""
        if self.machine != _machine():
            return None
        ticks = _ticks(self.pid)
        return ticks is not None and (self.ticks is None or ticks == self.ticks)


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _ticks(pid: int) -> int | None:
    """Return the start time of a live process; None if it does not exist, 0 if the system does not report it."""
    try:
        # The name of the command precedes the last parenthesis, and may contain spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return 0
    # A zombie (Z) and a dead process (X) still have an entry, but do no work.
    return None if fields[0] in "ZX" else int(fields[19])


def liveness(owner: Owner, age: float, jobs: Mapping[str, str] | None) -> tuple[str, bool]:
    """Return the verdict on an owner, and True if it rests on more than the age of the heartbeat."""
    here = owner.runs_here()
    if owner.job is None:
        if here is not None:
            return ("alive" if here else "dead"), True
    elif jobs is not None and owner.job in jobs:
        # Accounting also reports "CANCELLED by 1000", and appends a plus sign to a state that it has cut short.
        words = jobs[owner.job].split()
        return ("dead" if words and words[0].rstrip("+") in ENDED else "alive"), True
    elif here is False:
        return "dead", True
    if age <= -STALE_SECONDS:
        return "unknown", False  # a heartbeat from the future: the clock was set back after it was written
    if age <= STALE_SECONDS:
        return "alive", False
    # Without an answer from the controller, a silent job is not declared dead.
    return ("dead" if owner.job is None or jobs is not None else "unknown"), False


def superseded(earlier: Owner, owner: Owner) -> bool:
    """Return True if `owner` is a requeued run of the SLURM job of `earlier`."""
    return earlier.job is not None and earlier.job == owner.job and earlier.restart < owner.restart
