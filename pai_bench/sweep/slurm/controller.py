"""What the controller says, in as few calls as can be; they are counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pai_bench.sweep.execution.owner import ENDED

_TAG = re.compile(r"pai-bench:([\w.-]+):([\w.-]+)")


class Silent(Exception):
    """The controller did not answer: what it knows is unknown, and nothing is dead."""


def tag(sweep: str, token: str) -> str:
    """The words by which a chunk's job is known again, in its comment and its name."""
    return f"pai-bench:{sweep}:{token}"


@dataclass(frozen=True)
class Row:
    """A task of ours that the controller remembers."""

    job: str
    """"123_4" for a task of an array, else "123"."""
    state: str
    reason: str
    node: str
    sweep: str
    token: str

    @property
    def index(self) -> int:
        """The task's place in its chunk; an array of one is no array."""
        return int(self.job.partition("_")[2] or 0)

    @property
    def array(self) -> str:
        """The id of the job without the task's number."""
        return self.job.partition("_")[0]

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Limits:
    """What the controller allows and how it is set up."""

    cluster: str
    max_array_size: int
    shows_others: bool
    """Whether a user sees the jobs of others."""


class Controller:
    """Asks squeue, scontrol and scancel, and counts how often."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self._limits: Limits | None = None

    def rows(self, users: Iterable[str] = ()) -> list[Row]:
        """All tasks of pai-bench of this user, or of those named, one call for all.

        Raises: Silent.
        """
        names = sorted(users)
        who = [f"--user={','.join(names)}"] if names else ["--me"]
        # The comment comes last: it may hold anything.
        lines = self.ask("squeue", *who, "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%N|%j|%k").splitlines()
        found = []
        for line in lines:
            job, state, reason, node, words = (line.split("|", 4) + [""] * 4)[:5]
            ours = _TAG.search(words)
            if ours:
                found.append(Row(job, state, reason, node, ours[1], ours[2]))
        return found

    def forgotten(self, jobs: Iterable[str]) -> dict[str, str]:
        """How jobs ended that the controller has forgotten, as accounting has it; empty without accounting."""
        names = sorted(jobs)
        if not names or shutil.which("sacct") is None:
            return {}
        try:
            told = self.ask("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(names))
        except Silent:
            return {}
        # A state may be "CANCELLED by 0". A job that runs for accounting and is not known to squeue is lost, not alive.
        words = dict(line.split("|", 1) for line in told.splitlines() if "|" in line)
        states = {job: words[job].split()[0] for job in names if words.get(job, "").strip()}
        return {job: state for job, state in states.items() if state in ENDED}

    def limits(self) -> Limits:
        """What the controller allows; asked once.

        Raises: Silent.
        """
        if self._limits is not None:
            return self._limits
        text = self.ask("scontrol", "show", "config")
        values = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
        self._limits = Limits(
            values.get("ClusterName", ""),
            int(values.get("MaxArraySize", 1001)),
            "jobs" not in values.get("PrivateData", "none"),
        )
        return self._limits

    def ask(self, *command: str) -> str:
        """The answer of one command.

        Raises: Silent.
        """
        self.calls[command[0]] += 1
        try:
            done = subprocess.run(
                command,
                env=clean_environment(),
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # anybody's job may have any name
                timeout=self.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Silent(f"{command[0]} did not answer within {self.seconds:.0f} s") from None
        except OSError as error:
            raise Silent(f"{command[0]}: {error.strerror}") from None
        if done.returncode:
            words = done.stderr.strip().splitlines()
            raise Silent(words[-1] if words else f"{command[0]} ended with {done.returncode}")
        return done.stdout


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what an enclosing job has set, so that its limits are not handed on, and without the
    user's own filters of what SLURM's commands show."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    jobs = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
    filters = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_")
    given = os.environ if environment is None else environment
    return {key: value for key, value in given.items() if key in kept or not key.startswith((*jobs, *filters))}


def installed() -> bool:
    """Whether SLURM's commands are here."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None
