"""Checks of SLURM: the commands, the controller's response, the partitions, and a trial submission of the profile."""

from __future__ import annotations

from pathlib import Path

from pai_bench.doctor import job as real_job
from pai_bench.doctor.checks import FAILED, OK, WARNING, Check, Checks, tried
from pai_bench.errors import PaiBenchError
from pai_bench.sweep.slurm import answers, profiles, sbatch
from pai_bench.sweep.slurm.controller import Controller, ControllerUnavailable, clean_environment, installed

PATIENCE = 30.0
SMALL_ARRAY = 100


def checks(root: Path, data_dir: Path | None, name: str | None, wants_job: bool, say: real_job.Say) -> Checks:
    """Check SLURM's commands, its controller, the partitions and the profile; with `wants_job` also run a real job."""
    if not installed():
        yield _absent("sbatch and squeue were not found on PATH", name is not None or wants_job)
        return
    controller = Controller(PATIENCE)
    try:
        limits = controller.limits()
    except ControllerUnavailable as error:
        if "configuration source" in str(error):
            yield _absent(
                "the SLURM commands are installed, but not configured (no slurm.conf)", name is not None or wants_job
            )
        else:
            yield Check("SLURM", FAILED, f"it does not respond: {error}", "try again later; sweep --where local works")
        return
    small = limits.max_array_size < SMALL_ARRAY
    found = f"cluster {limits.cluster} responds; up to {limits.max_array_size} tasks in an array"
    remedy = "sweeps are split into more arrays; --cells-per-job puts more cells into each task"
    yield Check("SLURM", WARNING if small else OK, found, remedy if small else None)
    yield tried("partitions", "see sinfo", lambda: _partitions(controller))
    try:
        profile = profiles.load(name or profiles.DEFAULT)
    except PaiBenchError as error:
        yield Check("profile", FAILED, error.cause, error.remedy)
        return
    taken = _rehearsal(root, profile)
    yield taken
    if wants_job and taken.state == OK:
        yield from real_job.checks(root, data_dir, profile, controller, say)


def _absent(found: str, needed: bool) -> Check:
    if needed:
        return Check("SLURM", FAILED, found, "run doctor on a login node of the cluster")
    return Check("SLURM", OK, f"{found}; sweeps run on this machine")


def _partitions(controller: Controller) -> Check:
    """List the usable partitions with their nodes, GPUs and time limits; sinfo marks the default one with a star."""
    lines = [line.split("|") for line in controller.ask("sinfo", "-h", "-o", "%P|%a|%l|%D|%G").splitlines()]
    usable = [
        f"{name} ({nodes} nodes, {gpus.strip('()')}, {limit})" for name, up, limit, nodes, gpus in lines if up == "up"
    ]
    if not usable:
        return Check("partitions", FAILED, "no partition is up", "see sinfo")
    return Check("partitions", OK, "; ".join(usable))


def _rehearsal(root: Path, profile: profiles.Profile) -> Check:
    """Check with `sbatch --test-only` that SLURM would accept a job of the profile; nothing is submitted."""
    spec, request = real_job.asked_for(root, profile)
    try:
        sbatch.check_folder(root)
        text = sbatch.script(spec, request)
        # sbatch prints the result of --test-only to stderr.
        _, output = answers.sbatch(["--test-only"], clean_environment(), script=text, seconds=PATIENCE)
    except PaiBenchError as error:
        return Check("profile", FAILED, error.cause, error.remedy)
    except answers.Refused as refusal:
        return Check("profile", FAILED, f"{profile.name}: sbatch refuses it: {refusal}", answers.explain(str(refusal)))
    except answers.Unanswered as lost:
        return Check("profile", FAILED, f"{profile.name}: sbatch did not respond: {lost}", "try again later")
    words = [line.removeprefix("sbatch: ") for line in output.strip().splitlines()] or [""]
    return Check("profile", OK, f"{profile.name}: sbatch would accept it ({words[-1]})")
