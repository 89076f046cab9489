"""Submission of chunks: the script that submitit writes for sbatch, and the job that comes of it."""

from __future__ import annotations

import shlex
import sys
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission

from pai_bench.atomic import replacing
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.slurm.answers import Refused, job_id, sbatch
from pai_bench.sweep.slurm.controller import Controller, Silent, clean_environment, tag
from pai_bench.sweep.slurm.ledger import Spec
from pai_bench.sweep.slurm.profiles import Profile
from pai_bench.sweep.slurm.task import Task

MANY_TIMEOUTS = 1000
"""submitit counts requeues, and takes preemptions of short jobs for time-outs; whether a task still gets anywhere is
for the task itself to say."""

LOOKS = (1.0, 4.0, 10.0)
"""Seconds before each look for a job whose answer got lost."""


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


def check_folder(root: Path) -> None:
    """Check that sbatch takes the results folder's path as it is, for the tasks' output goes below it.

    Raises: PaiBenchError for characters that sbatch replaces, drops, or cannot read in a script.
    """
    wrong = sorted({mark for mark in str(root) if mark in "%\\" or unicodedata.category(mark) in ("Cc", "Cs")})
    if wrong:
        marks = ", ".join(ascii(mark) for mark in wrong)
        raise PaiBenchError(
            f"SLURM cannot write the output of jobs below {str(root)!a}: the path contains {marks}",
            "name another folder with --results, or a link to it without these characters",
        )


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
    """Write the specification of a chunk and call sbatch; returns the id of the job, of the array where there are
    several tasks.

    Raises: Refused, Unanswered, PaiBenchError when SLURM's commands are not there.
    """
    return hand_over(spec, request, Task(str(spec.write())))


def hand_over(spec: Spec, request: Request, call: Callable[..., object], *arguments: object) -> str:
    """Call sbatch for tasks that each run `call`; returns the id of the job.

    Files of the chunk are removed after a refusal only: a job whose answer got lost needs them.

    Raises: Refused, Unanswered, PaiBenchError when SLURM's commands are not there.
    """
    try:
        text = script(spec, request)
    except RuntimeError as error:
        raise PaiBenchError(f"submitit: {error}", "run it where sbatch and srun are, or use --where local") from None
    spec.folder.mkdir(parents=True, exist_ok=True)
    # What a task makes its pickle from; it asks for a requeue as often as submitit's own would.
    delayed = DelayedSubmission(call, *arguments)
    delayed.set_timeout(request.minutes, MANY_TIMEOUTS)
    pickle, place = spec.folder / "task.pkl", spec.folder / "sbatch.sh"
    new = spec.folder / ".task.pkl"
    delayed.dump(new)
    new.replace(pickle)
    with replacing(place) as file:
        file.write(text.encode())
    try:
        return job_id(*sbatch([str(place)], clean_environment()))
    except Refused:
        for left in (pickle, place):
            left.unlink(missing_ok=True)
        raise


def find(spec: Spec, controller: Controller) -> str | None:
    """The id of the job of a chunk whose answer got lost, by its tag; None when squeue does not show it.

    It may come to the queue later all the same.
    """
    for pause in LOOKS:
        time.sleep(pause)
        with suppress(Silent):
            for row in controller.rows():
                if (row.sweep, row.token) == (spec.sweep, spec.token):
                    return row.array
    return None
