"""Check with a real, short job, submitted in the same way as a sweep's jobs."""

from __future__ import annotations

import json
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.doctor import probe
from pai_bench.doctor.checks import FAILED, OK, WARNING, Check, Checks
from pai_bench.experiment import provenance
from pai_bench.sweep.execution.owner import ENDED
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.slurm import answers, sbatch, trust
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable
from pai_bench.sweep.slurm.pending_reasons import explain
from pai_bench.sweep.slurm.profiles import Profile
from pai_bench.sweep.slurm.specification import Spec

Say = Callable[[str], None]

MINUTES = 10
"""Time limit of the job, in minutes."""
PATIENCE = 600.0
"""Seconds to wait for the job to start and end."""
POLL_SECONDS = 1.0
ASK_SECONDS = 15.0
"""Seconds between two queries of slurmctld."""
LATE_SECONDS = 30.0
"""Seconds after the end of the job until its answer counts as missing; NFS may show a new file late."""


def asked_for(root: Path, profile: Profile) -> tuple[Spec, sbatch.Request]:
    """Return the specification and the request of a job of the profile without cells."""
    token = uuid.uuid4().hex[:8]
    spec = Spec(
        sweep=f"doctor-{token}",
        token=token,
        settings=RunSettings(root),
        code={"pai-bench": provenance.source_hash()},
        any_code=False,
        requeue=False,
        gpus=profile.gpus,
        patience=0.0,
        ended_jobs={},
        tasks=((),),
    )
    return spec, sbatch.Request(profile, MINUTES, 1)


def checks(root: Path, data_dir: Path | None, profile: Profile, controller: Controller, say: Say) -> Checks:
    """Submit the job, wait for it, and compare the environment on the node with this one."""
    spec, request = asked_for(root, profile)
    # Both folders are made here, because the parents of a trusted folder follow the umask.
    trust.make_folder(spec.folder.parent)
    trust.make_folder(spec.folder)
    question = spec.folder / "question"
    question.write_text(spec.token, encoding="utf-8")
    datasets = sorted({line["dataset"] for plan in results.plans(root) for line in plan["cells"]})
    folder = "" if data_dir is None else str(data_dir.absolute())
    asked = (probe.__name__, str(question), *(("--data-dir", folder) if folder else ()), *datasets)
    try:
        job = sbatch.hand_over(spec, request, asked)
    except answers.Refused as refusal:
        yield Check("job", FAILED, f"sbatch refuses it: {refusal}", answers.explain(str(refusal)))
        return
    except answers.Unanswered as lost:
        found = sbatch.find(spec, controller)
        if found is None:
            yield Check("job", FAILED, f"it is unknown if SLURM accepted it ({lost})", "try again in some minutes")
            return
        job = found
    say(f"job {job} was submitted; it takes a minute once it runs")
    ended = False
    try:
        seen = _wait(question.with_suffix(".answer.json"), job, controller, say)
        ended = True
    except _NoAnswer as failure:
        ended = failure.ended
        yield Check("job", FAILED, f"job {job} {failure}{_last_error(spec.folder)}", _remedy(spec.folder))
        return
    finally:
        # Ctrl-C ends the wait too, and a job that nobody waits for must not occupy a node.
        if not ended:
            with suppress(ControllerUnavailable):
                controller.ask("scancel", job)
    yield from _compared(seen, spec, profile)
    shutil.rmtree(spec.folder, ignore_errors=True)
    with suppress(OSError):
        spec.folder.parent.rmdir()


class _NoAnswer(Exception):
    """Missing answer of the job."""

    def __init__(self, words: str, ended: bool) -> None:
        super().__init__(words)
        self.ended = ended


def _wait(answer: Path, job: str, controller: Controller, say: Say) -> Mapping[str, Any]:
    """Wait for the job's answer and return it.

    Raises: _NoAnswer when the job ends without an answer, or does not answer within PATIENCE seconds.
    """
    end = time.monotonic() + PATIENCE
    last, state = "", ""
    asked, gone_since = float("-inf"), None
    while (now := time.monotonic()) < end:
        with suppress(FileNotFoundError):
            # The file is complete as soon as it exists, because the job renames it into place.
            seen: Mapping[str, Any] = json.loads(answer.read_bytes())
            return seen
        if now - asked >= ASK_SECONDS:
            asked = now
            with suppress(ControllerUnavailable):  # the state is unknown: keep waiting
                state, reason = _state(job, controller)
                gone_since = (gone_since or now) if state in ENDED or not state else None
                words = f"waits: {explain(reason).words} [{reason}]" if state == "PENDING" else f"is {state.lower()}"
                if words != last and gone_since is None:
                    say(f"job {job} {words}")
                    last = words
        if gone_since is not None and now - gone_since >= LATE_SECONDS:
            raise _NoAnswer(f"ended without a response ({state or 'gone'})", True)
        time.sleep(POLL_SECONDS)
    raise _NoAnswer(
        f"did not respond within {PATIENCE / 60:.0f} minutes ({last or 'unknown'}) and was cancelled", False
    )


def _errors(folder: Path) -> list[str]:
    """Return the error lines of the job's output, or all lines when none contains "error"."""
    texts = [place.read_text(errors="replace") for place in folder.glob("*_log.err")]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [line for line in lines if "error" in line.lower() and not line.startswith("srun")] or lines


def _last_error(folder: Path) -> str:
    errors = _errors(folder)
    return f": {errors[-1]}" if errors else ""


def _remedy(folder: Path) -> str:
    if any("memory limit" in line or "oom" in line.lower() for line in _errors(folder)):
        return 'it needs more memory than the default of the cluster: set for example mem = "8G" in the profile'
    return f"see its output in {folder}"


def _state(job: str, controller: Controller) -> tuple[str, str]:
    for line in controller.ask("squeue", "--me", "-h", "-t", "all", "-o", "%i|%T|%r").splitlines():
        number, state, reason = line.split("|", 2)
        if number == job:
            return state, reason
    return "", ""


def _compared(seen: Mapping[str, Any], spec: Spec, profile: Profile) -> Checks:
    shared = seen["question"] == spec.token
    yield Check(
        "job",
        OK if shared else FAILED,
        f"ran on {seen['host']}, read and wrote the results folder",
        "put the results folder on a disk that all nodes share",
    )
    same = seen["source_hash"] == spec.code["pai-bench"]
    yield Check(
        "job: sources",
        OK if same else FAILED,
        f"sources {seen['source_hash'][:12]}, as on this host"
        if same
        else f"{seen['source_hash'][:12]}, different from this host's",
        "install pai-bench where the nodes find the same copy: in a virtual environment on the shared disk",
    )
    ours = platform.python_version()
    alike = seen["python"] == ours
    yield Check(
        "job: python",
        OK if alike else WARNING,
        f"{seen['python']}, torch {seen['torch']} ({seen['executable']})",
        f"this host has {ours}; use one environment for both",
    )
    enough = len(seen["gpus"]) >= profile.gpus
    found = ", ".join(seen["gpus"]) or f"torch finds none (CUDA_VISIBLE_DEVICES={seen['visible']})"
    yield Check(
        "job: GPU",
        OK if enough else FAILED,
        f"{found}; {profile.gpus} requested" if profile.gpus else "none requested",
        "check that the node's driver fits this torch, and that gpu_request of the profile fits the cluster",
    )
    for name, problem in seen["data"].items():
        remedy = "put the data on a disk that all nodes share (--data-dir)"
        yield Check(f"job: data {name}", OK if problem is None else FAILED, problem or "on disk", remedy)
