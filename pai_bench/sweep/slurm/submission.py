"""Chunks handed to SLURM through submitit: what sbatch is told, and what is done when it says no."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from pai_bench.errors import PaiBenchError
from pai_bench.sweep.slurm.controller import clean_environment, tag
from pai_bench.sweep.slurm.ledger import Spec
from pai_bench.sweep.slurm.profiles import Profile
from pai_bench.sweep.slurm.task import Task

MANY_TIMEOUTS = 1000
"""submitit counts requeues, and takes preemptions of short jobs for time-outs; whether a task still gets anywhere is
for the task itself to say."""

# What sbatch says: too long an array; too many jobs of ours or of everybody's; nobody there.
_TOO_LONG = ("Invalid job array specification",)
_TOO_MANY = ("AssocMaxSubmitJobLimit", "QOSMaxSubmitJob", "MaxSubmitJobs", "Job violates accounting/QOS policy")
_FULL = ("Resource temporarily unavailable", "temporarily unable to accept job")
_ABSENT = (
    "Unable to contact slurm controller",
    "Connection refused",
    "Socket timed out",
    "Zero Bytes were transmitted",
)


class Refused(Exception):
    """sbatch did not take a chunk, and its words."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.too_large = any(word in words for word in (*_TOO_LONG, *_TOO_MANY))
        """Whether a smaller chunk may be taken."""
        self.passing = any(word in words for word in (*_TOO_MANY, *_FULL, *_ABSENT))
        """Whether the same chunk may be taken later."""


@dataclass(frozen=True)
class Request:
    """What one sbatch asks for besides what the profile says."""

    profile: Profile
    minutes: int
    parallelism: int
    after: str | None = None
    """A job that must have succeeded first."""


def executor(spec: Spec, request: Request) -> submitit.SlurmExecutor:
    """submitit's executor, all told."""
    profile = request.profile
    python = shlex.quote(sys.executable)
    if profile.container is not None:
        python = f"{profile.container} {python}"
    if not profile.use_srun:
        python = f"exec {python}"  # so that the signal reaches it, not the shell around it
    made = submitit.SlurmExecutor(spec.folder, max_num_timeout=MANY_TIMEOUTS, python=python)
    parameters = _parameters(spec, request)
    made.update_parameters(**parameters)
    return made


def _parameters(spec: Spec, request: Request) -> dict[str, Any]:
    profile = request.profile
    words = tag(spec.sweep, spec.token)
    comment = words if profile.comment is None else f"{profile.comment} {words}"
    delay = signal_seconds(profile, request.minutes)
    options: dict[str, Any] = {"requeue" if profile.requeue else "no-requeue": True, **dict(profile.options)}
    gpus: dict[str, Any] = {}
    if profile.gpus:
        wanted = f"{profile.gpu_type}:{profile.gpus}" if profile.gpu_type else str(profile.gpus)
        if profile.gpu_request == "gres":
            gpus["gres"] = f"gpu:{wanted}"
        elif profile.gpu_request == "gpus_per_node":
            gpus["gpus_per_node"] = wanted
        else:
            options["gpus"] = wanted
    if not profile.use_srun:
        options["signal"] = f"B:USR2@{delay}"
    if request.after is not None:
        options["kill-on-invalid-dep"] = "yes"
    return {
        "job_name": words,
        "comment": comment,
        "time": request.minutes,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "nodelist": profile.nodelist,
        "cpus_per_task": profile.cpus_per_task,
        # Said twice, for where a job gets whole nodes srun would start one copy a core.
        "ntasks_per_node": 1,
        "srun_args": ["--ntasks=1"] if profile.use_srun else None,
        "mem": profile.mem,
        "wckey": profile.wckey,
        "setup": [*profile.setup, *_setup(spec)],
        "signal_delay_s": delay,
        "array_parallelism": request.parallelism,
        "dependency": None if request.after is None else f"afterok:{request.after}",
        "use_srun": profile.use_srun,
        "additional_parameters": options,
        **gpus,
    }


def _setup(spec: Spec) -> list[str]:
    """Lines of bash before each task.

    submitit gives each task its pickle after sbatch has answered. All ours are alike, so a task that does not find its
    own makes it from the chunk's: the submitter may be dead, or the file system slow.
    """
    return [
        f"folder={shlex.quote(str(spec.folder))}",
        "task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; task=${task:-$SLURM_JOB_ID}",
        'rm -f "$folder/$task"_*.save_tmp',
        '[ -e "$folder/${task}_submitted.pkl" ] || { cp "$folder/task.pkl" "$folder/.$task-$$" &&'
        ' mv -n "$folder/.$task-$$" "$folder/${task}_submitted.pkl"; }',
        "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}",  # srun has not taken it from sbatch since 22.05
    ]


def signal_seconds(profile: Profile, minutes: int) -> int:
    """How long before its limit a task is warned; never more than a third of it."""
    return min(profile.signal_seconds, minutes * 60 // 3)


def script(spec: Spec, request: Request) -> str:
    """The script that sbatch would be given."""
    made = executor(spec, request)
    if len(spec.tasks) > 1:
        made.parameters["map_count"] = len(spec.tasks)
    text: str = made._make_submission_file_text(made._submitit_command_str, "")
    return text


def submit(spec: Spec, request: Request) -> str:
    """Call sbatch for a chunk; returns the id of the job, of the array where there are several tasks.

    Raises: Refused, PaiBenchError when SLURM's commands are not there.
    """
    place = spec.write()
    spec.folder.mkdir(parents=True, exist_ok=True)
    task = Task(str(place))
    # What a task makes its pickle from if need be; it asks for a requeue as often as submitit's own would.
    delayed = DelayedSubmission(task)
    delayed.set_timeout(request.minutes, MANY_TIMEOUTS)
    new = spec.folder / ".task.pkl"
    delayed.dump(new)
    new.replace(spec.folder / "task.pkl")
    try:
        with clean():
            jobs = executor(spec, request).submit_array([task] * len(spec.tasks))
    except (FailedJobError, FailedSubmissionError) as error:
        for left in (*spec.folder.glob("*.pkl"), *spec.folder.glob(".submission_file_*")):
            left.unlink(missing_ok=True)
        raise Refused(_last_line(str(error))) from None
    except RuntimeError as error:
        raise PaiBenchError(f"submitit: {error}", "run it where sbatch and srun are, or use --where local") from None
    return str(jobs[0].job_id).partition("_")[0]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("sbatch: error")]
    found = lines or [line.strip() for line in text.splitlines() if line.strip()] or ["sbatch failed"]
    return found[-1].removeprefix("sbatch: error: ")


@contextmanager
def clean() -> Iterator[None]:
    """Without what an enclosing job has set in the environment, which sbatch would take for options."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_environment(before))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def explain(words: str) -> str:
    """What to do about sbatch's words."""
    remedies = {
        "Invalid partition": "name one of `sinfo` with --slurm partition=NAME or in the profile",
        "Requested node configuration": "ask for what a node has (`sinfo -o '%P %G %c %m'`), or use --profile cpu",
        "Invalid generic resource": "this cluster has no such GPU: see `sinfo -o %G`, or use --profile cpu",
        "Invalid feature": "mend constraint in the profile",
        "Invalid account": "name your account with --slurm account=NAME",
        "Invalid qos": "name your QOS with --slurm qos=NAME",
        "Memory specification": "leave mem out of the profile",
        "wckey": "set wckey in the profile",
        "time limit": "ask for less time with --slurm time=…",
    }
    for word, remedy in remedies.items():
        if word.lower() in words.lower():
            return remedy
    return "mend the profile (slurm/generic.toml says what it may hold), or set a value with --slurm key=value"
