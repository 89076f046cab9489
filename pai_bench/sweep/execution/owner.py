"""The processes that claim cells, and whether they live."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STALE_SECONDS = 120.0
"""A heartbeat that is older than this has stopped; twelve beats, and twice what NFS may keep from its clients."""

ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}
)
"""States in which a Slurm job will not come back."""


@dataclass(frozen=True)
class Owner:
    """A process that claims cells."""

    id: str
    host: str
    machine: str
    """Tells boots and containers apart, within which process numbers mean something."""
    pid: int
    ticks: int | None
    """When the process started, in ticks since the machine did: process numbers are used again."""
    job: str | None
    """The Slurm job, "id" or "arrayid_task"."""
    restart: int
    sweep: str | None

    @classmethod
    def current(cls, sweep: str | None = None) -> Owner:
        """This process, under a new id."""
        get = os.environ.get
        job = get("SLURM_JOB_ID")
        if get("SLURM_ARRAY_JOB_ID") and get("SLURM_ARRAY_TASK_ID"):
            job = f"{get('SLURM_ARRAY_JOB_ID')}_{get('SLURM_ARRAY_TASK_ID')}"
        return cls(
            id=uuid.uuid4().hex[:16],
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
        """The name of this process's checkpoints and log lines."""
        where = f"{self.host}-{self.pid}" if self.job is None else f"{self.job}-{self.restart}"
        return f"{where}-{self.id[:8]}"

    def runs_here(self) -> bool | None:
        """Whether the process lives; None when it is of another machine."""
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
    """When a living process started; None when there is none, 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return 0
    return None if fields[0] in "ZX" else int(fields[19])


def judge(owner: Owner, age: float, jobs: Mapping[str, str] | None) -> tuple[str, bool]:
    """The verdict on an owner, and whether it rests on more than the age of its heartbeat."""
    here = owner.runs_here()
    if owner.job is None:
        if here is not None:
            return ("alive" if here else "dead"), True
    elif jobs is not None and owner.job in jobs:
        words = jobs[owner.job].split()
        return ("dead" if words and words[0].rstrip("+") in ENDED else "alive"), True
    elif here is False:
        return "dead", True
    if age <= -STALE_SECONDS:
        return "unknown", False  # from the future: the clock has been set back since
    if age <= STALE_SECONDS:
        return "alive", False
    return ("dead" if owner.job is None or jobs is not None else "unknown"), False


def superseded(earlier: Owner, owner: Owner) -> bool:
    """Whether Slurm runs the owner's job again in place of an earlier attempt."""
    return earlier.job is not None and earlier.job == owner.job and earlier.restart < owner.restart
