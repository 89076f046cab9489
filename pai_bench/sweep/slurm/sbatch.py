"""Submission of chunks: the script that submitit writes for sbatch, and the job that comes of it."""

from __future__ import annotations

import shlex
import sys
import time
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pai_bench.core.atomic import replacing
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.slurm import trust
from pai_bench.sweep.slurm.answers import Refused, job_id, sbatch
from pai_bench.sweep.slurm.controller import Controller, Silent, clean_environment, tag
from pai_bench.sweep.slurm.executor import CommandExecutor
from pai_bench.sweep.slurm.profiles import Profile
from pai_bench.sweep.slurm.specification import Spec

TASK = "pai_bench.sweep.slurm.task"
"""The module that is a job's program."""

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


def executor(spec: Spec, request: Request, arguments: Sequence[str] | None = None) -> CommandExecutor:
    """Make the executor of a chunk; its jobs run a module with arguments, by default the task with its specification's
    path."""
    profile = request.profile
    python = shlex.quote(sys.executable)
    if profile.container is not None:
        python = f"{profile.container} {python}"
    if not profile.use_srun:
        python = f"exec {python}"  # so that the signal reaches it, not the shell around it
    made = CommandExecutor(spec.folder, python, arguments or (TASK, str(spec.place)))
    made.update_parameters(**_parameters(spec, request))
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
    options["signal"] = f"USR2@{delay}" if profile.use_srun else f"B:USR2@{delay}"
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
        "setup": [*profile.setup, *_setup()],
        "signal_delay_s": delay,
        "array_parallelism": request.parallelism,
        "dependency": None if request.after is None else f"afterok:{request.after}",
        "use_srun": profile.use_srun,
        "additional_parameters": options,
        **gpus,
    }


def _setup() -> list[str]:
    """Return the lines of bash before each task."""
    mask = f"{trust.umask():04o}"
    return [
        # sbatch is called under a stricter umask, which the chunk's folder needs and the results do not.
        f"umask {mask}; export SLURM_UMASK={mask}",
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
    return executor(spec, request).text(len(spec.tasks))


def submit(spec: Spec, request: Request) -> str:
    """Write the specification of a chunk and call sbatch; returns the id of the job, of the array where there are
    several tasks.

    Raises: Refused, Unanswered, PaiBenchError when SLURM's commands are not there.
    """
    spec.write()
    return hand_over(spec, request)


def hand_over(spec: Spec, request: Request, arguments: Sequence[str] | None = None) -> str:
    """Call sbatch for tasks that each run a module with arguments, see `executor`; returns the id of the job.

    The script is removed after a refusal only: a job whose answer got lost may need it.

    Raises: Refused, Unanswered, PaiBenchError when SLURM's commands are not there.
    """
    try:
        text = executor(spec, request, arguments).text(len(spec.tasks))
    except RuntimeError as error:
        raise PaiBenchError(f"submitit: {error}", "run it where sbatch and srun are, or use --where local") from None
    trust.make_folder(spec.folder)
    place = spec.folder / "sbatch.sh"
    # SLURM creates the output of the tasks under the umask of sbatch.
    with trust.closed():
        with replacing(place) as file:
            file.write(text.encode())
        try:
            return job_id(*sbatch([str(place)], clean_environment()))
        except Refused:
            place.unlink(missing_ok=True)
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
