"""Submission of a chunk: generation of the batch script with submitit, the call of sbatch, and the resulting job."""

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
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable, clean_environment, tag
from pai_bench.sweep.slurm.executor import CommandExecutor
from pai_bench.sweep.slurm.profiles import Profile
from pai_bench.sweep.slurm.specification import Spec

TASK = "pai_bench.sweep.slurm.task"
"""The module that a job runs."""

LOOKS = (1.0, 4.0, 10.0)
"""Seconds to wait before each search for a job whose reply was lost."""


@dataclass(frozen=True)
class Request:
    """Options of one call of sbatch, in addition to the profile."""

    profile: Profile
    minutes: int
    parallelism: int
    after: str | None = None
    """Ids of jobs, separated by colons, that must succeed first."""


def executor(spec: Spec, request: Request, arguments: Sequence[str] | None = None) -> CommandExecutor:
    """Create the executor of a chunk; its jobs run a module with arguments, by default TASK with the path of the
    specification."""
    profile = request.profile
    python = shlex.quote(sys.executable)
    if profile.container is not None:
        python = f"{profile.container} {python}"
    if not profile.use_srun:
        python = f"exec {python}"  # B:USR2 signals the batch shell only; exec puts Python in the shell's place
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
        gpu_count = f"{profile.gpu_type}:{profile.gpus}" if profile.gpu_type else str(profile.gpus)
        if profile.gpu_request == "gres":
            gpus["gres"] = f"gpu:{gpu_count}"
        elif profile.gpu_request == "gpus_per_node":
            gpus["gpus_per_node"] = gpu_count
        else:
            options["gpus"] = gpu_count
    # By default SLURM signals the steps that srun has started, with B: only the batch shell.
    options["signal"] = f"USR2@{delay}" if profile.use_srun else f"B:USR2@{delay}"
    if request.after is not None:
        # Without this option, jobs whose canary has failed would stay in the queue (DependencyNeverSatisfied).
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
        # Set for sbatch and for srun: where jobs get whole nodes, srun would otherwise start one copy per core.
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
        # sbatch is called under a stricter umask, to protect the chunk's folder; restore the user's umask for results.
        f"umask {mask}; export SLURM_UMASK={mask}",
        "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}",  # srun has not inherited it since SLURM 22.05
    ]


def check_folder(root: Path) -> None:
    """Check that sbatch uses the path of the results folder literally, because the tasks' output is written below it.

    Raises: PaiBenchError for characters that sbatch replaces (%A), drops (backslashes), or cannot parse in a script.
    """
    wrong = sorted({mark for mark in str(root) if mark in "%\\" or unicodedata.category(mark) in ("Cc", "Cs")})
    if wrong:
        marks = ", ".join(ascii(mark) for mark in wrong)
        raise PaiBenchError(
            f"SLURM cannot write the output of jobs below {str(root)!a}: the path contains {marks}",
            "name another folder with --results, or a link to it without these characters",
        )


def signal_seconds(profile: Profile, minutes: int) -> int:
    """Return how many seconds before its time limit a task receives USR2: at most a third of the limit."""
    # With a short limit, an early warning would leave no time for work.
    return min(profile.signal_seconds, minutes * 60 // 3)


def script(spec: Spec, request: Request) -> str:
    """Return the batch script of a chunk."""
    return executor(spec, request).text(len(spec.tasks))


def submit(spec: Spec, request: Request) -> str:
    """Write the specification of a chunk and call sbatch; returns the id of the job or job array.

    Raises: Refused, Unanswered; PaiBenchError when the SLURM commands are missing.
    """
    spec.write()
    return hand_over(spec, request)


def hand_over(spec: Spec, request: Request, arguments: Sequence[str] | None = None) -> str:
    """Call sbatch for tasks that each run a module with arguments (see `executor`); returns the id of the job.

    The script is removed only after a refusal, because a job whose reply was lost may still be in the queue.

    Raises: Refused, Unanswered; PaiBenchError when the SLURM commands are missing.
    """
    try:
        text = executor(spec, request, arguments).text(len(spec.tasks))
    except RuntimeError as error:
        raise PaiBenchError(
            f"submitit: {error}", "run the command where sbatch and srun are installed, or use --where local"
        ) from None
    trust.make_folder(spec.folder)
    place = spec.folder / "sbatch.sh"
    # SLURM creates the tasks' output files under the umask of sbatch.
    with trust.closed():
        with replacing(place) as file:
            file.write(text.encode())
        try:
            return job_id(*sbatch([str(place)], clean_environment()))
        except Refused:
            place.unlink(missing_ok=True)
            raise


def find(spec: Spec, controller: Controller) -> str | None:
    """Return the id of the job of a chunk whose reply was lost, found by its tag; None when squeue does not show it.

    A job that is not found may still appear in the queue later.
    """
    for pause in LOOKS:
        time.sleep(pause)
        # A controller that has lost the reply may be too busy for the first queries as well.
        with suppress(ControllerUnavailable):
            for row in controller.rows():
                if (row.sweep, row.token) == (spec.sweep, spec.token):
                    return row.array
    return None
