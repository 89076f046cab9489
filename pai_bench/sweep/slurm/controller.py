"""Queries to slurmctld, the SLURM controller: few calls, each of them counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pai_bench.sweep.execution.owner import ENDED

_TAG = re.compile(r"pai-bench:([\w.-]+):([\w.-]+)")
_RANGE = r"\d{1,7}(?:-\d{1,7}(?::\d{1,7})?)?"
_JOB = re.compile(rf"(\d+)(?:\+\d+)?(?:_(?:(\d+)|\[({_RANGE}(?:,{_RANGE})*)(?:%\d+)?\]))?", re.ASCII)
"""An id in squeue's output: a job, a task of an array, or (from wrappers that ignore -r) all of its pending tasks."""
_PART = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?", re.ASCII)
"""First and last task of a range of an array, and its step."""
_STEP = re.compile(r"[\d_+]+\.\w+")
"""An id of a step of a job."""
_SEPARATORS = 5
"""Number of separators in a row of squeue."""
_LOST = re.compile(
    r"slurm_load_\w+ error|unable to contact|communication \w+ (?:failure|error)|socket timed out|zero bytes"
    r"|connection (?:refused|reset|timed out)|authentication (?:error|credential)|munge (?:encode|decode)|standby mode",
    re.IGNORECASE,
)
"""Messages of commands that got no answer, or a part of it; some wrappers exit with 0 after them."""


class ControllerUnavailable(Exception):
    """Missing response of slurmctld: job states are unknown, and no job may be taken for finished."""


def tag(sweep: str, token: str) -> str:
    """Return the tag in the name and the comment of a chunk's job, by which later commands identify the job."""
    return f"pai-bench:{sweep}:{token}"


@dataclass(frozen=True)
class Row:
    """A row of squeue that belongs to a pai-bench task."""

    job: str
    """The task's id: "123_4" for a task of an array, otherwise "123"."""
    state: str
    reason: str
    node: str
    sweep: str
    token: str

    @property
    def index(self) -> int:
        """The task's index in its chunk; a chunk of one task is submitted without an array and has index 0."""
        return int(self.job.partition("_")[2] or 0)

    @property
    def array(self) -> str:
        """The id of the job without the task's index."""
        return self.job.partition("_")[0]

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Limits:
    """Limits and settings of the cluster, from `scontrol show config`."""

    cluster: str
    max_array_size: int
    shows_others: bool
    """True when squeue shows a user the jobs of other users (PrivateData)."""


class Controller:
    """Client of slurmctld: runs squeue, scontrol, sacct and scancel, and counts the calls."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self._limits: Limits | None = None

    def rows(self, users: Iterable[str] = ()) -> list[Row]:
        """Return all pai-bench tasks of this user, or of the users named, with a single call of squeue.

        Raises: ControllerUnavailable, also for a row of pai-bench with an id that cannot be read.
        """
        names = sorted(users)
        who = [f"--user={','.join(names)}"] if names else ["--me"]
        # The comment is the last field because it may contain the separator.
        # -t all adds ended tasks, whose states decide which claims are dead; -r prints one row for each task.
        output = self.ask("squeue", *who, "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%N|%j|%k")
        found = []
        for line in output.splitlines():
            _check_row(line, is_cut=output.endswith(line))
            job, state, reason, node, words = (field.strip() for field in (line.split("|", 4) + [""] * 4)[:5])
            ours = _TAG.search(words)
            if ours and not _STEP.fullmatch(job):
                found += [Row(task, state, reason, node, ours[1], ours[2]) for task in _tasks(job)]
        return found

    def forgotten(self, jobs: Iterable[str]) -> dict[str, str]:
        """Return the end states, from accounting, of jobs that slurmctld has purged; empty without accounting."""
        names = sorted(jobs)
        if not names or shutil.which("sacct") is None:
            return {}
        try:
            # -X omits the steps of jobs; -P prints long states in full.
            output = self.ask("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(names))
        except ControllerUnavailable:
            return {}
        # A state may be "CANCELLED by 0". A job that is RUNNING in accounting but absent from squeue is lost, because
        # slurmdbd keeps the last state that it received.
        states: dict[str, str] = {}
        for line in output.splitlines():
            job, _, words = line.partition("|")
            state = (words.strip("| ").split() or [""])[0]
            with suppress(ControllerUnavailable):  # raised for other lines, and for steps
                states |= dict.fromkeys(_tasks(job.strip()), state)
        return {job: states[job] for job in names if states.get(job) in ENDED}

    def limits(self) -> Limits:
        """Return the cluster's limits, read once and then cached.

        Raises: ControllerUnavailable.
        """
        if self._limits is not None:
            return self._limits
        text = self.ask("scontrol", "show", "config")
        values = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
        self._limits = Limits(
            values.get("ClusterName", ""),
            # 1001 is the default of slurm.conf.
            int(size) if (size := values.get("MaxArraySize", "")).isdecimal() else 1001,
            "jobs" not in values.get("PrivateData", "none"),
        )
        return self._limits

    def ask(self, *command: str) -> str:
        """Run one SLURM command and return its stdout.

        Raises: ControllerUnavailable when the command fails or exceeds the time limit.
        """
        self.calls[command[0]] += 1
        try:
            done = subprocess.run(
                command,
                # SLURM shortens long lists of array tasks ("7_[1,3,…]") unless this is 0.
                env={**clean_environment(), "SLURM_BITSTR_LEN": "0"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # job names are arbitrary bytes
                timeout=self.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ControllerUnavailable(f"{command[0]} did not answer within {self.seconds:.0f} s") from None
        except OSError as error:
            raise ControllerUnavailable(f"{command[0]}: {error.strerror}") from None
        words = done.stderr.strip().splitlines()
        if done.returncode:
            raise ControllerUnavailable(words[-1] if words else f"{command[0]} ended with {done.returncode}")
        words += [line for line in done.stdout.splitlines() if not {"|", "="} & set(line)]  # neither rows nor settings
        for line in filter(_LOST.search, words):
            raise ControllerUnavailable(line.strip())
        return done.stdout


def _check_row(line: str, is_cut: bool) -> None:
    """Check that a line of squeue is a whole row, or no row; `is_cut` is True for a last line without its end.

    Raises: ControllerUnavailable, also for a job of pai-bench in another format.
    """
    # squeue's default format shows the first eight characters of the name of a job.
    # A cut row may end within the id of its job.
    is_row = re.match(r"\s*\d", line) and (re.search(r"\||^[\s\d_]+$", line) if is_cut else "pai-benc" in line)
    if line.count("|") < _SEPARATORS and (is_row or _TAG.search(line)):
        raise ControllerUnavailable(f"squeue returned {line.strip()!r}, which is not a whole row")


def _tasks(job: str) -> list[str]:
    """Return the ids of the tasks in an id of squeue: "12_[1-2,5-9:4%4]" is 12_1, 12_2, 12_5 and 12_9.

    Raises: ControllerUnavailable for another text: a task whose id is unknown may be running.
    """
    found = _JOB.fullmatch(job)
    if found is None:
        raise ControllerUnavailable(f"squeue returned {job!r} as the id of a job")
    array, index, several = found.groups()
    if several is None:
        return [array if index is None else f"{array}_{index}"]
    parts = _PART.findall(several)
    ranges = [range(int(first), int(last or first) + 1, int(step or 1)) for first, last, step in parts]
    if not all(ranges):
        raise ControllerUnavailable(f"squeue returned {job!r} as the id of a job, with a range without tasks")
    return [f"{array}_{number}" for numbers in ranges for number in numbers]


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the variables of an enclosing job, whose limits sbatch would inherit, and without
    the user's default filters for SLURM commands (SQUEUE_PARTITION, …), which would hide jobs."""
    # These two select the cluster.
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    jobs = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
    filters = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_")
    given = os.environ if environment is None else environment
    return {key: value for key, value in given.items() if key in kept or not key.startswith((*jobs, *filters))}


def installed() -> bool:
    """Return True when sbatch and squeue are on PATH."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None
